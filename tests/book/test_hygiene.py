"""Stored notebooks: every rule on every chapter, and every rule on a notebook that breaks it."""

import copy
import json
import re
from pathlib import Path

import hygiene
import pytest

CHAPTERS = sorted((hygiene.ROOT / "book").glob("*.ipynb"))
LONG_RUNS = sorted((hygiene.ROOT / "notebooks").glob("*.ipynb"))
DEMO = Path(__file__).parent / "demo.ipynb"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def text_of(notebook):
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"])


def name(value):
    return getattr(value, "stem", None) or getattr(value, "__name__", None)


@pytest.mark.parametrize("rule", hygiene.EVERY_CHAPTER, ids=name)
@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_chapter(path, rule):
    assert rule(read(path)) == []


@pytest.mark.parametrize("path", LONG_RUNS, ids=name)
def test_long_run(path):
    """Notebooks outside the book are stored without outputs, so only portability counts."""
    assert hygiene.portable(read(path)) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_minutes_are_measured(path):
    assert hygiene.minutes(read(path)) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=name)
def test_figures_and_imports_are_folded(path):
    assert hygiene.folded(read(path)) == []


def test_open_figures_are_seen(demo):
    assert hygiene.folded(demo) != []
    for cell in hygiene.code_cells(demo):
        cell["metadata"]["tags"] = ["hide-input"]
    assert hygiene.folded(demo) == []


def test_minutes_see_a_page_that_has_grown(demo):
    text = hygiene.prose(demo)[0]
    assert "**Minutes.** 3 to read" in text
    assert hygiene.minutes(demo) == []
    demo["cells"].append({"cell_type": "markdown", "metadata": {}, "source": ["word " * 2000]})
    assert hygiene.minutes(demo)[0].startswith("states 3 minutes to read, measured 1")
    demo["metadata"]["wsss_lab"]["seconds"] = 200
    assert len(hygiene.minutes(demo)) == 2


def test_the_first_page_has_the_minutes_of_every_chapter():
    first = text_of(read(hygiene.ROOT / "book" / "start.ipynb"))
    told = {}
    for path in CHAPTERS:
        card = re.search(r"\*\*Minutes\.\*\* (\d+) to read, (\d+) to run", text_of(read(path)))
        if card:  # the first page is read in less than a minute
            told[path.stem] = card.groups()
    rows = re.findall(r"^\| \{doc\}`(\w+)` \|.*\| (\d+) \+ (\d+) \|$", first, re.MULTILINE)
    assert len(told) > 7
    assert {chapter: minutes for chapter, *minutes in rows} == {k: list(v) for k, v in told.items()}


def test_chapters_ask_registered_exercises():
    from wsss_lab.exercises import find

    for path in CHAPTERS:
        for label in hygiene.exercise_labels(read(path))[0]:
            assert label.startswith(f"{path.stem}-")
            find(label)


def test_labels_are_unique_across_chapters():
    seen = {}
    for path in CHAPTERS:
        for cell in hygiene.code_cells(read(path)):
            label = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
            assert label is None or seen.setdefault(label, path.name) == path.name, label


@pytest.fixture
def demo():
    return read(DEMO)


def test_demo_keeps_the_rules(demo):
    rules = [rule for rule in hygiene.EVERY_CHAPTER if rule is not hygiene.exercises]
    assert [complaint for rule in rules for complaint in rule(demo)] == []
    assert hygiene.exercises(demo, least=1) == []
    assert hygiene.exercises(demo) == ["1 exercises, expected 4 or more"]


def figure_cell(notebook):
    return next(c for c in hygiene.code_cells(notebook) if hygiene.outputs(c, "image/png"))


def replace(notebook, old, new):
    for cell in notebook["cells"]:
        cell["source"] = hygiene.source(cell).replace(old, new)


def no_caption(nb):
    del figure_cell(nb)["metadata"]["mystnb"]["figure"]["caption"]


def alt_is_a_path(nb):
    figure_cell(nb)["metadata"]["mystnb"]["image"]["alt"] = "../_build/a picture of one thing.png"


def alt_is_short(nb):
    figure_cell(nb)["metadata"]["mystnb"]["image"]["alt"] = "A picture."


def two_images(nb):
    cell = figure_cell(nb)
    cell["outputs"] = cell["outputs"] * 2


def out_of_order(nb):
    hygiene.code_cells(nb)[1]["execution_count"] = 7


def empty_cell(nb):
    hygiene.code_cells(nb)[1]["source"] = [" \n"]


def error(nb):
    out = {"output_type": "error", "ename": "NameError", "evalue": "", "traceback": []}
    hygiene.code_cells(nb)[1]["outputs"] = [out]


def stderr(nb):
    out = {"output_type": "stream", "name": "stderr", "text": ["careful\n"]}
    hygiene.code_cells(nb)[1]["outputs"] = [out]


def widget(nb):
    out = {"output_type": "display_data", "metadata": {}, "data": {}}
    out["data"]["application/vnd.jupyter.widget-view+json"] = {}
    hygiene.code_cells(nb)[1]["outputs"] = [out]


def timestamp(nb):
    hygiene.code_cells(nb)[0]["metadata"]["execution"] = {"iopub.status.busy": "2026"}


def private_folder(nb):
    hygiene.code_cells(nb)[0]["source"] = ["open('/home/someone/data.csv')"]


def heavy(nb):
    out = {"output_type": "stream", "name": "stdout", "text": ["x" * 400_001]}
    hygiene.code_cells(nb)[0]["outputs"] = [out]


def no_stamp(nb):
    del nb["metadata"]["wsss_lab"]


def slow(nb):
    nb["metadata"]["wsss_lab"]["seconds"] = 181


def not_compared(nb):
    hygiene.code_cells(nb)[-1]["metadata"]["tags"] = ["nbval-ignore-output"]


def varies_without_claim(nb):
    for cell in hygiene.code_cells(nb):
        cell["source"] = [hygiene.source(cell).replace("claim(", "print(")]
    out = {"output_type": "display_data", "metadata": {}}
    out["data"] = {"text/markdown": ["| a |\n| --- |\n| 1 |\n\n<!-- varies -->"]}
    hygiene.code_cells(nb)[1]["outputs"] = [out]


BROKEN = [
    (hygiene.held, not_compared),
    (hygiene.held, varies_without_claim),
    (hygiene.figures, no_caption),
    (hygiene.figures, alt_is_a_path),
    (hygiene.figures, alt_is_short),
    (hygiene.figures, two_images),
    (hygiene.order, out_of_order),
    (hygiene.order, empty_cell),
    (hygiene.order, error),
    (hygiene.order, stderr),
    (hygiene.portable, widget),
    (hygiene.portable, timestamp),
    (hygiene.portable, private_folder),
    (hygiene.portable, heavy),
    (hygiene.stamp, no_stamp),
    (hygiene.stamp, slow),
]
EDITED = [
    (hygiene.mentioned, "{numref}`fig-demo` shows", "the figure shows"),
    (hygiene.equations, " (eq-demo)", ""),
    (hygiene.equations, "```{shape}\nfeatures", "```\nfeatures"),
    (hygiene.equations, "(b d gh gw)", "(B C H W)"),
    (hygiene.opening, "**Goals.**", ""),
    (hygiene.opening, "| Prerequisite |", "| What |"),
    (hygiene.opening, "**Minutes.** 3", "**Minutes.** some"),
    (hygiene.exercises, ":class: dropdown", ""),
    (hygiene.exercises, 'check("demo-1"', "print("),
]


@pytest.mark.parametrize(("rule", "damage"), BROKEN, ids=name)
def test_rule_sees_damage(demo, rule, damage):
    broken = copy.deepcopy(demo)
    damage(broken)
    assert len(rule(broken)) > len(rule(demo))


@pytest.mark.parametrize(("rule", "old", "new"), EDITED)
def test_rule_sees_edits(demo, rule, old, new):
    broken = copy.deepcopy(demo)
    replace(broken, old, new)
    if rule is hygiene.opening and old.startswith("**Minutes"):
        replace(broken, "1 to run on two", "few to run on two")
    assert len(rule(broken)) > len(rule(demo))


def test_rule_sees_missing_sweep(demo):
    demo["cells"] = [c for c in demo["cells"] if "frame_strip" not in hygiene.source(c)]
    assert hygiene.sweeps(demo)
