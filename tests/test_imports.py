"""The import direction of the package: a room imports what lies below it, never back.

Inside a room modules may import one another, but not in a circle, and a paper's folder imports
neither another paper nor a recipe; `mix`, which is no paper's, puts their parts together. Module
names in strings (lazy imports) count like imports.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wsss_lab"
FLOORS = [
    {"__main__"},
    {"commands", "studies", "exercises"},
    {"recipes", "report"},
    {"plan"},
    {"runs"},
    {"evaluate", "train"},
    {"methods"},
    {"viz"},
    {"cam"},
    {"losses", "data"},
    {"refine", "metrics", "models", "ema"},
    {"config", "registry", "outputs"},
    {"ranges", "printable", "progress", "records"},
]
"""From the top; a room imports from the floors below its own."""
APART = {
    "data": {"models", "refine", "metrics", "ema"},
    "metrics": set(),
    "viz": {"cam", "refine", "models", "metrics", "ema", "losses"},
    "methods": {"data", "viz", "metrics"},
    "cam": {"data", "losses", "refine", "metrics", "ema"},
    "models": {"ema", "metrics"},
}
"""Below, and nevertheless not to be imported from there."""
ROOT = {"IGNORE", "__version__"}
TEXT = re.compile(r"wsss_lab(?:\.\w+)+(?::\w+)?")
METHODS = PACKAGE / "methods"
FOLDERS = {file.parent.name for file in METHODS.glob("*/__init__.py")} - {"common"}
MIXED = {"mix"}
"""Folders of methods that are made of several papers' functions."""
PAPERS = sorted(FOLDERS - MIXED)
GENERAL = ("cam", "refine", "metrics", "models", "losses", "evaluate", "train", "data", "ema")
GENERAL += ("config", "registry", "runs", "plan", "report", "viz", "commands", "__main__")
"""Rooms that know no method by its name: what is a paper's own comes from its recipe."""
NAMED = re.compile(rf"(?<![a-z])(?:{'|'.join(PAPERS)})(?![a-z])")
KNOWS_MIXED = re.compile(rf"wsss_lab\.(?:methods|recipes)\.(?:{'|'.join(MIXED)})(?:\.|$)")


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_of(path): path for path in FILES}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def docstrings(tree):
    """Nodes of docstrings, under fields too: they may name anything."""
    return {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


@cache
def imports_of(path: Path) -> dict[str, bool]:
    """Modules of the package that a file names -> whether at its top level, outside functions."""
    tree = ast.parse(path.read_text())
    skipped = docstrings(tree)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    # names that exist for the type checker alone
    late |= {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            raise AssertionError(f"{path}: relative import; write the whole name")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in skipped or not TEXT.fullmatch(node.value):
                continue
            names = [node.value.partition(":")[0]]
        for name in names:
            if not name.startswith("wsss_lab"):
                continue
            while name not in MODULES and "." in name:
                name = name.rpartition(".")[0]
            top = id(node) not in late and not isinstance(node, ast.Constant)
            found[name] = found.get(name, False) or top
    return found


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_direction(path):
    room = room_of(module_of(path))
    if not room:
        return  # the package's own file: the one place that knows all rooms
    for target in imports_of(path):
        other = room_of(target)
        if other in ("", room):
            continue
        assert FLOOR[other] > FLOOR[room], f"{room} may not import {target}: it lies above"
        assert other not in APART.get(room, set()), f"{room} keeps apart from {target}"


def test_rooms_are_those_of_the_package():
    assert {room_of(module) for module in MODULES} - {""} == {*FLOOR, "weights"} - {"weights"}


@pytest.mark.parametrize("paper", PAPERS)
def test_papers_do_not_know_each_other(paper):
    others = [f"wsss_lab.methods.{other}" for other in FOLDERS if other != paper]
    for module, path in MODULES.items():
        if f"{module}.".startswith((f"wsss_lab.methods.{paper}.", "wsss_lab.methods.common.")):
            for target in imports_of(path):
                assert not target.startswith(tuple(others)), f"{module} imports {target}"
                assert target != "wsss_lab.methods", f"{module} imports what may be of any paper"


def test_the_papers_are_found():
    assert set(PAPERS) == {"acr", "asdt", "cosa", "tscd"}
    assert FOLDERS >= MIXED


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_general_rooms_do_not_import_what_is_mixed(path):
    """`mix` is a word, so its name is looked for in imports alone."""
    if room_of(module_of(path)) in GENERAL:
        assert not [target for target in imports_of(path) if KNOWS_MIXED.match(target)]


def names_of_methods(path: Path) -> list[str]:
    """Strings, keywords and names in a file's code that name a method; docstrings may."""
    tree = ast.parse(path.read_text())
    skipped = docstrings(tree)
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        # value of a constant, name of an argument, attribute, variable, import or definition
        texts = [getattr(node, name, None) for name in ("value", "arg", "attr", "id", "name")]
        found += [text for text in texts if isinstance(text, str) and NAMED.search(text)]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_general_rooms_know_no_method_by_its_name(path):
    if room_of(module_of(path)) in GENERAL:
        assert not names_of_methods(path)


def test_the_rule_sees_keys_and_strings(tmp_path):
    text = 'VIEWS = {"cosa_eval": 1, "scosa": 2}\nif name == "acr":\n    run(tscd=f(asdt_cam))\n'
    file = tmp_path / "odd.py"
    file.write_text(f'"""cosa"""\n{text}')
    assert sorted(names_of_methods(file)) == ["acr", "asdt_cam", "cosa_eval", "tscd"]


def test_no_circles_when_the_package_is_imported():
    """Imports at the top of files; one inside a function is made when all modules are there."""
    graph = {
        module: [t for t, top in imports_of(path).items() if top and t != module]
        for module, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(module, way):
        assert module not in way, " -> ".join([*way[way.index(module) :], module])
        if module in done:
            return
        for target in graph[module]:
            if not f"{module}.".startswith(f"{target}."):  # a package's own face
                visit(target, [*way, module])
        done.add(module)

    for module in graph:
        visit(module, [])


def test_the_rule_sees_strings_and_importlib(tmp_path):
    text = 'import importlib\n"""wsss_lab.plan"""\nimportlib.import_module("wsss_lab.plan.plan")\n'
    file = tmp_path / "odd.py"
    file.write_text(text)
    assert list(imports_of(file)) == ["wsss_lab.plan.plan"]
