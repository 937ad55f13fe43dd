"""Sentences of README, pages and docstrings that can be counted, against what is there."""

import re
from pathlib import Path

import pytest

import wsss_lab.methods
from wsss_lab.data import tiny

ROOT = Path(__file__).parents[1]
NOTATION = (ROOT / "book" / "notation.md").read_text()
README = (ROOT / "README.md").read_text()


def rows_of(heading):
    """Cells of the first table under a heading of the page on notation."""
    section = NOTATION.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_axes_of_the_toy_example_are_its_shapes():
    axes = {name: row[2] for row in rows_of("Axes") for name in [row[0].strip("`")]}
    (k, d), (b, _, gh, gw) = tiny.tiny_weights().shape, tiny.tiny_features().shape
    shown = {"b": b, "k": k, "k1": k + 1, "n": gh * gw, "d": d}
    assert {name: int(axes[name]) for name in shown} == shown
    for pair, size in (("h w", tiny.tiny_mask().shape[1:]), ("gh gw", (gh, gw))):
        assert axes[pair] == " × ".join(map(str, size))
    text = NOTATION.split("## The toy example")[1]
    stated = set(re.findall(r"`[a-z0-9]+ = \d`", text))
    assert stated >= {f"`k = {k}`", f"`d = {d}`", f"`k1 = {k + 1}`"}


@pytest.mark.parametrize("paper", ["acr", "asdt", "cosa", "tscd"])
def test_a_folder_per_paper_has_the_files_that_the_package_names(paper):
    table = wsss_lab.methods.__doc__
    files = re.findall(r"^``([a-z]+)`` ", table, re.M)
    assert {"config", "network", "losses", "labels", "method", "values"} <= set(files)
    folder = Path(wsss_lab.methods.__file__).parent / paper
    other = {"acr": {"labels": "localisation"}}.get(paper, {})
    assert all(f"``{name}``" in table for name in other.values())
    for name in files:
        assert (folder / f"{other.get(name, name)}.py").is_file(), name


def test_examples_are_as_short_as_the_readme_says():
    (most,) = map(int, re.findall(r"one script each, at most (\d+) lines", README))
    scripts = sorted((ROOT / "examples").glob("*.py"))
    assert [path.stem for path in scripts] == ["acr", "asdt", "cam", "cosa", "tscd"]
    for path in scripts:
        assert len(path.read_text().splitlines()) <= most, path.name


def test_chapters_and_sizes_that_the_readme_counts():
    words = {"eight": 8, "nine": 9, "ten": 10}
    (count,) = re.findall(r"^\| (\w+) chapters, from", README, re.M)
    assert words[count] == len(list((ROOT / "book").glob("*.ipynb")))
    low, high = map(float, re.findall(r"([\d.]+) to ([\d.]+) MB each", README)[0])
    weights = ROOT / "wsss_lab" / "weights"
    for name in ("toy_cnn", "toy_mit2", "toy_vit2", "toy_mit", "toy_vit"):
        assert low - 0.05 <= (weights / f"{name}.safetensors").stat().st_size / 1e6 <= high + 0.05
    (limit,) = map(int, re.findall(r"\((\d+) MB\)", README))
    recorded = (ROOT / "tests" / "golden" / "recorded").rglob("*")
    size = sum(path.stat().st_size for path in recorded if path.is_file()) / 1e6
    assert limit - 1 <= size <= limit
