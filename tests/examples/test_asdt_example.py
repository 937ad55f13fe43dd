"""The example of ASDT, run as a reader does: it trains, scores, and leaves a picture."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "asdt.py"


def test_asdt_example_trains_scores_and_draws(tmp_path, printed_by):
    folder = tmp_path / "deep" / "folder"
    printed = printed_by("asdt.py", "--steps", 2, "--out", folder)
    scores = dict(re.findall(r"^(.+): ([\d.]+) % mIoU on 64 held-out scenes$", printed, re.M))
    assert list(scores) == ["all background", "before", "after"]
    assert all(0 < float(score) < 100 for score in scores.values())
    assert float(scores["before"]) > 15  # the packaged classifier's maps
    assert float(scores["after"]) < 15  # heads that have learned for two steps only
    steps = re.findall(r"^ +(\d+) tags ([\d.]+) head .+ student .+ energy -", printed, re.M)
    assert [step for step, _ in steps] == ["0", "1"]
    picture = np.asarray(Image.open(folder / "asdt.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_asdt_example_is_short():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100
