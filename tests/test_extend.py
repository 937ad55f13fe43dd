"""The page on own methods, backbones and data sets, followed literally; the tables behind it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from wsss_lab.__main__ import main
from wsss_lab.data.config import DATA_SETS
from wsss_lab.models.backbones import BACKBONES
from wsss_lab.registry import Registry, use_file
from wsss_lab.runs.recipe import RECIPES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "extend.md").read_text()
SMALLER = {"--run.steps 20": "--run.steps 3", "--first 20": "--first 4"}
SMALLER |= {"--data.count 40": "--data.count 8", "--run.batch 8": "--run.batch 4"}
"""So that the page is followed in seconds, and so are the settings below."""
SMALL = ["--data.count", "8", "--data.size", "64", "--data.crop", "64", "--run.batch", "4"]


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.S | re.M)


def commands():
    text = re.sub(r" \\\n +", " ", "".join(blocks("console")))  # commands on one line
    for old, new in SMALLER.items():
        assert old in text, "the page has changed; so should this list"
        text = text.replace(old, new)
    return [shlex.split(line.partition("-m wsss_lab ")[2]) for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("hide", "ladder", "stripes"):
        (text,) = [b for b in blocks("python") if name in b and "register_" in b]
        (tmp_path / f"{name}.py").write_text(text)
    yield tmp_path
    RECIPES._found.pop("hide", None)
    BACKBONES._found.pop("ladder", None)
    DATA_SETS._found.pop("stripes", None)


def test_the_page_is_followed_literally(folder, capsys):
    main(["data", "toy", "--out", "toy", "--count", "3"])
    (folder / "toy" / "JPEGImages").rename("photos")
    for arguments in commands():
        if arguments[0] == "train" and "stripes.py" not in arguments:
            arguments = [*arguments, *SMALL]
        if arguments[:2] == ["train", "cam_baseline"]:
            arguments = [*arguments, "--report-train", "4", "--cam-scales", "1.0"]
        if arguments[0] in ("train", "eval"):
            arguments = [*arguments, "--data.val-count", "4"]
        assert main(arguments) == 0, capsys.readouterr().err
    assert (folder / "runs" / "hide" / "metrics.json").is_file()
    assert len(list((folder / "masks").glob("*.png"))) == 3
    assert "flat" in (folder / "runs" / "stripes" / "metrics.json").read_text()


def test_the_lines_are_counted_as_the_page_says(folder):
    for name in ("hide", "ladder", "stripes"):
        count = len((folder / f"{name}.py").read_text().splitlines())
        assert re.search(rf"^\| a [a-z ]+ \| 1 \| {count} below ", PAGE, re.M), (name, count)
        assert count <= 60


def test_a_file_is_asked_for_where_its_method_is_not_known(folder, capsys):
    arguments = ["train", "hide", "--out", "runs/a", "--run.steps", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "wsss_lab", *arguments], capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 2
    assert "--use FILE.py" in done.stderr
    assert main(["info", "--use", "nowhere.py"]) == 2
    assert main(["info", "--use"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert ["there is no nowhere.py" in lines[0], "after --use" in lines[1]] == [True, True]


def test_a_file_runs_once(folder):
    (folder / "counts.py").write_text("import sys\nsys.counted = getattr(sys, 'counted', 0) + 1\n")
    use_file("counts.py")
    use_file(folder / "counts.py")
    assert sys.counted == 1
    del sys.counted


def test_names_of_the_package_are_protected():
    for table, name in ((RECIPES, "cosa"), (BACKBONES, "toy_cnn"), (DATA_SETS, "voc")):
        with pytest.raises(ValueError, match=f"{name!r} already"):
            table.register(name, None)
    table = Registry("thing", "wsss_lab.nothing")
    table.register("own", 1)
    table.register("own", 2)  # a cell that runs twice
    assert table["own"] == 2
    for wrong in ("", "two words", "a/b"):
        with pytest.raises(ValueError, match="name: expected one word"):
            table.register(wrong, 1)


def test_values_given_as_text_are_imported_at_their_first_use():
    table = Registry("thing", "wsss_lab.nothing")
    table.register("late", "fractions:Fraction")
    assert table._found["late"] == "fractions:Fraction"
    assert table["late"](1, 2) == 0.5
    assert len(table) == 1
    with pytest.raises(ValueError, match="thing: expected one of late, got 'x'"):
        table.find("x")


def test_other_packages_announce_theirs_by_entry_points(tmp_path, monkeypatch):
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[wsss_lab.things]\nhalf = fractions:Fraction\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    table = Registry("thing", "wsss_lab.things")
    table.register("own", 1)
    assert list(table) == ["own", "half"]
    assert table["half"](1, 2) == 0.5
