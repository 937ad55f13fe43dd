"""Public docstrings open with one plain sentence, in the parts of the library in `ROOMS`.

That every docstring exists, and its sections, is checked by ruff.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wsss_lab

PACKAGE = Path(wsss_lab.__file__).parent
ROOMS = (
    "cam",
    "commands",
    "outputs.py",
    "config.py",
    "data",
    "ema.py",
    "evaluate",
    "exercises",
    "losses.py",
    "methods",
    "metrics",
    "models",
    "plan",
    "recipes",
    "records",
    "refine",
    "registry.py",
    "report",
    "runs",
    "studies",
    "train",
    "viz",
)
NOT_IMPERATIVE = re.compile(r"(What|Computes|Gets|Makes|Raises|Reads|Returns|Writes) ")
ANTHROPOMORPHIC = re.compile(
    r"\b(says?|said|tells?|told|speaks?|silent(ly)?|opinions?|knows|looks? (at|for|like)|"
    r"ask(s|ed)?|wants?|voices?|believes?|hears?|forgets?|remembers?)\b",
    re.IGNORECASE,
)


def first_sentence(text: str) -> str:
    """Text up to the first full stop of the first paragraph; empty where there is none."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    found = re.match(r".*?[.?](?=\s|$)", paragraph)
    return found[0] if found else ""


def problem(text: str) -> str:
    sentence = first_sentence(text)
    if not sentence:
        return "has no first sentence"
    if NOT_IMPERATIVE.match(sentence):
        return f"opens with {sentence.split()[0]!r}"
    word = ANTHROPOMORPHIC.search(sentence)
    return f"has the word {word[0]!r} in its first sentence" if word else ""


def is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def public_docstrings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of the docstrings of a module, its classes, functions and attributes."""
    before: ast.stmt | None = None
    for child in getattr(node, "body", []):
        if is_text(child):
            names = [n.id for n in ast.walk(before) if isinstance(n, ast.Name)] if before else []
            if not "".join(names[:1]).startswith("_"):
                yield child.lineno, child.value.value
        elif isinstance(child, ast.ClassDef | ast.FunctionDef) and (
            not child.name.startswith("_") or child.name.startswith("__")
        ):
            yield from public_docstrings(child)
        before = child


@pytest.mark.parametrize("room", ROOMS)
def test_public_docstrings_open_with_a_plain_sentence(room: str):
    path = PACKAGE / room
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    texts = [(f, *found) for f in files for found in public_docstrings(ast.parse(f.read_text()))]
    wrong = [
        f"{file.relative_to(PACKAGE)}:{line} {problem(text)}"
        for file, line, text in texts
        if problem(text)
    ]

    assert texts, f"no docstrings in {room}"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Return the map.", ""),
        ("Label map of one image, values 0..255.\n\nIt says nothing.", ""),
        ("What a step sees.", "opens with 'What'"),
        ("Reads a mask.", "opens with 'Reads'"),
        ("Return the map", "has no first sentence"),
        ("Pixels without opinion.", "has the word 'opinion' in its first sentence"),
    ],
)
def test_problems_are_found(text: str, expected: str):
    assert problem(text) == expected


def test_private_docstrings_are_left_out():
    source = '''"""Module."""
LIMIT = 1
"""Limit."""
_PART = 2
"""Part."""
class Box:
    """Box."""
    side: int
    """Side."""
    def area(self):
        """Area."""
    def _edge(self):
        """Edge."""
'''

    found = [text for _, text in public_docstrings(ast.parse(source))]

    assert found == ["Module.", "Limit.", "Box.", "Side.", "Area."]


def test_no_file_of_the_library_is_longer_than_a_reader_stands():
    """House rule: at most 300 lines; what grows beyond is two things."""
    lines = {p: len(p.read_text(encoding="utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {str(p.relative_to(PACKAGE)): n for p, n in lines.items() if n > 300} == {}
