"""The chapter on mixing: its file of twenty lines, its grid, and the words around it."""

import json
import re
from pathlib import Path

import pytest
import torch
from tiny_mix import make, state_of, step

from wsss_lab import IGNORE
from wsss_lab.exercises.mix import _Mirror
from wsss_lab.methods.mix.technique import OWN, TECHNIQUES
from wsss_lab.records import RECORDS
from wsss_lab.registry import use_file
from wsss_lab.studies.grid import grid_of

CHAPTER = Path(__file__).parents[3] / "book" / "mix.ipynb"
CELLS = json.loads(CHAPTER.read_text(encoding="utf-8"))["cells"]
TEXT = "\n".join("".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "markdown")


def cell_with(words):
    (cell,) = [c for c in CELLS if c["cell_type"] == "code" and words in "".join(c["source"])]
    return cell


def test_the_page_shows_the_record_or_says_that_there_is_none():
    (output,) = cell_with('grid_of("mix")')["outputs"]
    assert "".join(output["data"]["text/markdown"]) == grid_of("mix").text
    there = (RECORDS / "studies" / "mix").is_dir()
    assert ("The grid has not been run." in TEXT) != there


def test_the_readers_file_is_complete_and_short(tmp_path):
    text = "".join(cell_with("class Size(Technique)")["source"])
    lines = [line for line in text.splitlines() if line.strip()]
    assert len(lines) <= 20
    file = tmp_path / "size.py"
    file.write_text(text + "\n")
    use_file(file)
    try:
        method = make(extra=["size"])
        state = state_of(method)
        probs = (state.logits.softmax(1) * state.valid[:, None])[:, 1:].mean((2, 3))
        off = torch.where(state.tags > 0, (0.01 - probs).clamp(min=0), probs)
        terms, factors = method.terms(state)
        torch.testing.assert_close(terms["size"], off.square().mean())
        assert factors["size"] == 100
        assert step(method).loss.isfinite()
    finally:
        TECHNIQUES._found.pop("size")


def test_the_commands_of_the_page_name_settings_that_exist():
    commands = " ".join(re.findall(r"^\$ (.+?)(?<!\\)$", TEXT, re.M | re.S))
    for name in re.findall(r"--method\.([a-z]+)", commands):
        assert name == "extra" or name in OWN
    assert {"refine", "search", "extra"} <= set(re.findall(r"--method\.([a-z]+)", commands))


def test_the_exercises_filter_runs_in_a_step():
    method = make()
    state = state_of(method)
    plain = state.labels.clone()
    filtered = _Mirror().labels(state)
    assert torch.equal(state.labels, plain)
    kept = filtered == plain
    assert (kept | (filtered == IGNORE)).all()
    assert 0 < kept.float().mean() < 1
    state.images, state.labels = state.images.flip(-1), plain.flip(-1)
    assert torch.equal(_Mirror().labels(state).flip(-1), filtered)  # both see the same pair


@pytest.mark.parametrize("name", OWN)
def test_every_technique_has_its_cell(name):
    assert cell_with(f'found = look("{"varm" if name == "refine" else name}", {{"method.{name}.')
