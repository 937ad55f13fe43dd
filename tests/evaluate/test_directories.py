"""`eval` of two folders of label images, by the command line: pixels without a class."""

import json

import numpy as np
import pytest

from wsss_lab.__main__ import main
from wsss_lab.data.masks import write_mask


@pytest.fixture
def folders(tmp_path):
    """A square of class 1 on background; the labels leave out four of its twenty rows."""
    truth = np.zeros((40, 40), np.uint8)
    truth[10:30, 10:30] = 1
    truth[0, 0] = 255  # void, predicted as background: not counted
    pred = truth.copy()
    pred[0, 0] = 0
    pred[10:14, 10:30] = 255
    write_mask(tmp_path / "truth" / "a.png", truth)
    write_mask(tmp_path / "pred" / "a.png", pred)
    pred[pred == 255] = 77
    write_mask(tmp_path / "other" / "a.png", pred)
    (tmp_path / "list.txt").write_text("a\n")
    return tmp_path


def scores(folders, capsys, *more, pred="pred"):
    words = ["eval", "--pred", folders / pred, "--truth", folders / "truth"]
    words += ["--list", folders / "list.txt", "--classes", 2, *more]
    code = main([str(word) for word in words])
    return code, capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "pred", "iou"),
    [
        ([], "pred", 16 / 20),
        (["--unlabelled", "wrong"], "pred", 16 / 20),
        (["--unlabelled=ignored"], "pred", 1),
        (["--ignore", "255"], "pred", 1),
        (["--ignore", "77"], "other", 1),
    ],
)
def test_pixels_without_a_class_are_wrong_unless_they_are_left_out(
    folders, capsys, more, pred, iou
):
    code, printed = scores(folders, capsys, *more, "--json", pred=pred)
    assert code == 0
    report = json.loads(printed.out)
    assert report["iou"] == [1, pytest.approx(iou)]
    assert report["unlabelled_share"] == pytest.approx(80 / 1599)
    reading = "wrong" if iou < 1 else "ignored"
    assert report["protocol"]["unlabelled"] == reading
    code, printed = scores(folders, capsys, *more, pred=pred)
    assert f"unlabelled: {reading}" in printed.out
    assert "5.00 % of the labelled pixels have no prediction" in printed.out


@pytest.mark.parametrize(
    ("more", "pred", "message", "expected"),
    [
        (["--unlabelled", "error"], "pred", "255 on 80 labelled pixels", 1),
        (["--ignore", "1"], "pred", "ignore: expected a value that is no class, 2..255", 2),
        (["--ignore", "256"], "pred", "ignore: expected", 2),
        ([], "other", "77", 1),
        (["--ignore", "76"], "other", "77", 1),
    ],
)
def test_values_that_are_no_class_are_refused(folders, capsys, more, pred, message, expected):
    """Exit code 1 for files that cannot be compared, 2 for a wrong option."""
    code, printed = scores(folders, capsys, *more, pred=pred)
    assert code == expected
    assert message in printed.err


def test_without_such_pixels_there_is_no_word_of_them(folders, capsys):
    code, printed = scores(folders, capsys, pred="truth")
    assert code == 0
    assert "no prediction" not in printed.out
