"""What moves with a kernel also moves without one: every explorer has a strip as its static twin.

`make execute` draws each explorer with every slider at both ends; here only what is stored is read.
"""

import ast
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest

from wsss_lab import viz

CHAPTERS = sorted((Path(__file__).parents[1] / "book").glob("*.ipynb"))
NEAR = 4
"""A reader finds the twin among so many code cells above the explorer."""


def source(cell) -> str:
    return "".join(cell["source"])


def strip_names(cell) -> list[str]:
    """Names beside the sliders of the strips that a cell has stored."""
    texts = ["".join(o.get("data", {}).get("text/html", "")) for o in cell.get("outputs", [])]
    return [
        html.unescape(name)
        for text in texts
        for name in re.findall(r'<input type="range"[^>]* aria-label="([^"]+)"', text)
    ]


def explorers(path: Path):
    """(cells before, the markdown cell right above, the cell) of every explorer of a chapter."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for i, cell in enumerate(cells):
        if cell["cell_type"] == "code" and "viz.explorer(" in source(cell):
            yield cells[:i], cells[i - 1], cell


WITH_EXPLORER = [path for path in CHAPTERS if any(explorers(path))]


def complaints(before, above, cell) -> list[str]:
    found = []
    code = [c for c in before if c["cell_type"] == "code"]
    twins = [name for c in code[-NEAR:] for name in strip_names(c)]
    if above["cell_type"] != "markdown" or not any(name in source(above) for name in twins):
        found.append(f"the text above names none of the strips {twins}")
    if "remove-output" not in cell["metadata"].get("tags", []) or cell["outputs"]:
        found.append("a page without a kernel must not show it")
    call = next(
        node
        for node in ast.walk(ast.parse(source(cell)))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "explorer"
    )
    draws = [
        node
        for c in [*code, cell]
        for node in ast.walk(ast.parse(source(c)))
        if isinstance(node, ast.FunctionDef) and node.name == call.args[0].id
    ]
    sliders = [word.arg for word in call.keywords]
    parameters = [a.arg for a in draws[-1].args.args] if draws else []
    required = parameters[: len(parameters) - len(draws[-1].args.defaults)] if draws else ["?"]
    if not set(required) <= set(sliders) <= set(parameters):
        found.append(f"sliders {sliders} for a function of {parameters}")
    for word in call.keywords:
        ends = [ast.unparse(value) for value in getattr(word.value, "elts", [])]
        numbers = [float(end) for end in ends if re.fullmatch(r"[\d.]+", end)]
        if (
            len(ends) == 3 == len(numbers)
            and not numbers[0] < numbers[0] + numbers[2] <= numbers[1]
        ):
            found.append(f"{word.arg} has no second value in {ends}")
    return found


def test_most_chapters_have_one():
    assert {path.stem for path in CHAPTERS} - {path.stem for path in WITH_EXPLORER} <= {"mix"}


@pytest.mark.parametrize("path", WITH_EXPLORER, ids=lambda path: path.stem)
def test_every_explorer_has_a_twin_that_its_text_names(path):
    assert [c for parts in explorers(path) for c in complaints(*parts)] == []


@pytest.mark.parametrize(
    ("where", "old", "new", "words"),
    [
        ("above", "turns of PAR", "something", "names none"),
        ("cell", "turns=(0, 40, 1)", "turn=(0, 40, 1)", "for a function of"),
        ("cell", "turns=(0, 40, 1)", "turns=(0, 40, 50)", "no second value"),
        ("cell", "index=(0, 39, 1), ", "", "for a function of"),
    ],
)
def test_damage_is_seen(where, old, new, words):
    refine = next(path for path in WITH_EXPLORER if path.stem == "refine")
    before, above, cell = next(explorers(refine))
    damaged = above if where == "above" else cell
    assert old in source(damaged)
    damaged["source"] = [source(damaged).replace(old, new)]
    (found,) = complaints(before, above, cell)
    assert words in found


def test_explorer_draws_both_ends_of_each_slider_when_asked(monkeypatch):
    pytest.importorskip("ipywidgets")
    seen = []

    def draw(x, on, kind):
        seen.append((x, on, kind))
        assert x < 3, "too far"
        return viz.image_grid([np.zeros((8, 8, 3), np.uint8)], [""])

    viz.explorer(draw, x=(0, 4, 1), on=False, kind=["a", "b"])
    assert seen == [(2, False, "a")]
    seen.clear()
    monkeypatch.setenv("WSSS_LAB_EXPLORER_ENDS", "1")
    viz.explorer(draw, x=(0, 2, 1), on=False, kind=["a", "b"])
    assert seen[:2] == [(0, False, "a"), (2, False, "a")]
    assert seen[2:6] == [(1, False, "a"), (1, True, "a"), (1, False, "a"), (1, False, "b")]
    assert seen[6:] == [(1, False, "a")]  # what is shown
    with pytest.raises(AssertionError, match="too far"):
        viz.explorer(draw, x=(0, 4, 1), on=False, kind=["a", "b"])
