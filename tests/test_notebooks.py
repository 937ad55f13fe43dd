"""Full-scale notebooks: what papermill needs of them, and that no YAML leaves smoke values in."""

import ast
import json
import re
from pathlib import Path

import pytest
import yaml

from wsss_lab.data.config import DATA_SETS
from wsss_lab.plan.long_run import PARAMETERS
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.runs.settings import plain

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
CONFIGS = sorted((FOLDER / "configs").glob("*.yaml"))
LINE = re.compile(r"^(?P<name>\w+): (?P<type>\w+) = (?P<value>.+?)  # (?P<help>\S.*)$")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code(path):
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def parameters(path):
    """name -> (type, default, help), as papermill infers them."""
    (cell,) = [c for c in code(path) if "parameters" in c["metadata"].get("tags", [])]
    lines = "".join(cell["source"]).splitlines()
    found = [LINE.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    return {m["name"]: (m["type"], ast.literal_eval(m["value"]), m["help"]) for m in found}


def method_of(path):
    return path.stem.removeprefix("train_")


def notebook_of(config):
    name = max((m for m in RECIPES if config.stem.startswith(m)), key=len)
    return FOLDER / f"train_{name}.ipynb"


def settings(notebook, folder, **values):
    """The `config` that a notebook makes of its parameters, as papermill would set them."""
    space = {name: value for name, (_, value, _) in parameters(notebook).items()}
    space |= values | {"out": str(folder / "out")}
    (cell,) = [c for c in code(notebook) if c["id"] == "config"]
    exec("".join(cell["source"]), space)
    return space["config"]


def test_there_are_notebooks():
    assert NOTEBOOKS
    assert CONFIGS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook(path):
    assert method_of(path) in RECIPES
    cells = code(path)
    assert "parameters" in cells[0]["metadata"]["tags"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in cells)
    assert all("raises-exception" not in c["metadata"].get("tags", []) for c in cells)
    for name, (kind, value, text) in parameters(path).items():
        assert type(value).__name__ == kind, name
        assert len(text) > 5, name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_papermill_sees_the_same_parameters(path):
    papermill = pytest.importorskip("papermill")
    seen = papermill.inspect_notebook(str(path))
    mine = parameters(path)
    assert list(seen) == list(mine)
    for name, (kind, value, text) in mine.items():
        found = seen[name]
        assert (found["inferred_type_name"], found["help"]) == (kind, text)
        assert ast.literal_eval(found["default"]) == value


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_defaults_are_a_smoke_run(path, tmp_path):
    config = settings(path, tmp_path)
    assert config.data.name == "toy"
    assert config.run.steps <= 50
    assert getattr(config, "mask_steps", 0) <= 50
    assert method_of(path) != "acr" or config.affinity.steps <= 50
    assert config.data.count <= 100
    assert config.data.size <= 64
    assert parameters(path)["out"][1] == ""  # a new temporary folder each time


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_sets_every_parameter(path):
    values, known = yaml.safe_load(path.read_text()), parameters(notebook_of(path))
    assert list(values) == list(known)
    for name, value in values.items():
        assert type(value).__name__ == known[name][0], name


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_is_the_preset_of_its_name(path, tmp_path):
    """So that notebook and command line do the same."""
    notebook = notebook_of(path)
    name = path.stem.removeprefix(f"{method_of(notebook)}_")
    values = yaml.safe_load(path.read_text())
    made = plain(settings(notebook, tmp_path, **values))
    preset = plain(find_preset(method_of(notebook), name))
    root = made["data"].pop("root")
    assert preset["data"].pop("root") is None
    assert made == preset
    assert root == f"data/{name}"
    text = path.read_text()
    for split in DATA_SETS[name].splits:
        assert f"# the usual one: {split}\n" in text


def test_notebooks_share_their_cells():
    """What differs is the text, the parameters and the name."""
    assert len(NOTEBOOKS) == 5
    seen = set()
    for path in NOTEBOOKS:
        source = {c["id"]: "".join(c["source"]) for c in code(path)[1:]}
        assert source["config"].count(f'"{method_of(path)}"') == 1
        source["config"] = source["config"].replace(f'"{method_of(path)}"', "METHOD")
        seen.add(json.dumps(source))
    assert len(seen) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_parameter_is_used(path):
    """A name that no cell and no table knows would be set in vain."""
    cells = code(path)[1:]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    shared = {"preset", "out", "more", "probe_only", *PARAMETERS} if "LongRun" in text else set()
    for name in parameters(path):
        assert name in shared or re.search(rf"\b{name}\b", text), name


def test_readme_names_every_file():
    text = (FOLDER / "README.md").read_text()
    for file in [*NOTEBOOKS, *CONFIGS]:
        assert file.name in text
