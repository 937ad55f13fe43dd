"""`eval` names the classes wherever they are written down, and knows their number from there."""

import json

import numpy as np
import pytest
from PIL import Image

from wsss_lab.data.masks import save_label
from wsss_lab.evaluate.eval_command import run_eval
from wsss_lab.evaluate.mask_names import label_folder

MASK = np.array([[0, 1], [2, 2]], np.uint8)


@pytest.fixture
def folders(tmp_path):
    for folder in ("pred", "root/truth"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(MASK).save(tmp_path / folder / "a.png")
    (tmp_path / "list.txt").write_text("a\n")
    return tmp_path / "pred", tmp_path / "root" / "truth", tmp_path / "list.txt"


def printed(capsys, folders, **options):
    assert run_eval(*folders, **options) == 0
    return capsys.readouterr().out


def test_without_names_there_are_21_numbers(folders, capsys):
    text = printed(capsys, folders)
    assert "class 20" in text
    assert "class 21" not in text


def test_of_the_data_set(folders, capsys):
    (folders[1].parent / "classes.txt").write_text("cat\ndog\n")
    text = printed(capsys, folders)
    assert "cat " in text
    assert "class 1" not in text
    assert len([row for row in text.splitlines() if "100.00" in row]) == 4  # 3 classes, means


def test_of_the_masks(folders, capsys):
    save_label(folders[0] / "a.png", MASK, ("background", "cat", "dog"))
    assert "dog " in printed(capsys, folders)


def test_of_a_run(folders, capsys):
    settings = {"method": "m", "config": {}, "classes": ["cat", "dog"]}
    (folders[0].parent / "config.json").write_text(json.dumps(settings))
    assert "dog " in printed(capsys, folders)


@pytest.mark.parametrize(
    "content", ['{"classes": ["x"]}', "[1]", "{", '{"method": 1, "config": 2}']
)
def test_not_of_a_foreign_file(folders, capsys, content):
    (folders[0] / "config.json").write_text(content)
    assert "class 20" in printed(capsys, folders)


def test_a_run_stands_for_its_labels(folders, capsys):
    pred, truth, listed = folders
    run = pred.parent / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    pred.rename(run / "labels")
    assert label_folder(run) == run / "labels"
    assert label_folder(truth) == truth
    assert run_eval(run, truth, listed) == 0
    assert "its labels are compared" in capsys.readouterr().err


def test_every_missing_file_has_a_line(folders, capsys):
    folders[2].write_text("a\nb\nc\n")
    assert run_eval(*folders) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "eval: problems in 2 of 3 images"
    assert [row.split("/")[-1].split(":")[0] for row in lines[1:]] == ["b.png", "c.png"]
