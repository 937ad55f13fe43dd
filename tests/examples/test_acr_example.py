"""The example of ACR, run as a reader does: it trains, scores, and leaves a picture."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "acr.py"


def test_it_runs(tmp_path, printed_by):
    printed = printed_by("acr.py", "--steps", 2, "--out", tmp_path / "deep" / "folder")
    found = re.findall(r"(before|after): mIoU of the class maps ([\d.]+) %; ([\d.]+) %", printed)
    assert [name for name, *_ in found] == ["before", "after"]
    assert all(0 < float(value) < 100 for _, *values in found for value in values)
    assert found[0][1:] != found[1][1:]  # training changed something
    assert (
        len(re.findall(r"^step \d+: tags [\d.]+, activation \S+, affinity \S+$", printed, re.M))
        == 2
    )
    picture = np.asarray(Image.open(tmp_path / "deep" / "folder" / "acr.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_it_fits_on_two_pages():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100
