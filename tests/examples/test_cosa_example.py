"""The example of CoSA, run as a reader does: it trains, scores, and leaves a picture."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLE = Path(__file__).parents[2] / "examples" / "cosa.py"


def test_cosa_example_trains_scores_and_draws(tmp_path, printed_by):
    folder = tmp_path / "deep" / "folder"
    printed = printed_by("cosa.py", "--steps", 2, "--out", folder)
    scores = dict(re.findall(r"^(.+): ([\d.]+) % mIoU on 64 held-out scenes$", printed, re.M))
    kinds = ("segmentation", "maps (true tags)")
    assert list(scores) == [f"{when}, {kind}" for when in ("before", "after") for kind in kinds]
    assert all(0 < float(score) < 100 for score in scores.values())
    # two steps move the teacher's segmentation, and its maps start from weights that know the tags
    assert scores["after, segmentation"] != scores["before, segmentation"]
    assert float(scores["before, maps (true tags)"]) > 30
    steps = re.findall(r"^ +(\d+) tags ([\d.]+) seg ([\d.]+) cam ([\d.]+)$", printed, re.M)
    assert [step for step, *_ in steps] == ["0", "1"]
    assert float(steps[1][2]) < float(steps[0][2])  # labels are learned from the first step on
    picture = np.asarray(Image.open(folder / "cosa.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_cosa_example_is_short():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100
