"""The example of CoSA, run as a reader does: it trains, scores, and leaves a picture."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cosa.py"


def test_cosa_example_trains_scores_and_draws(tmp_path):
    folder = tmp_path / "deep" / "folder"
    command = [sys.executable, str(EXAMPLE), "--steps", "2", "--out", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    scores = dict(re.findall(r"^(.+): ([\d.]+) % mIoU on 64 held-out scenes$", run.stdout, re.M))
    kinds = ("segmentation", "maps (true tags)")
    assert list(scores) == [f"{when}, {kind}" for when in ("before", "after") for kind in kinds]
    assert all(0 < float(score) < 100 for score in scores.values())
    # two steps move the teacher's segmentation, and its maps start from weights that know the tags
    assert scores["after, segmentation"] != scores["before, segmentation"]
    assert float(scores["before, maps (true tags)"]) > 30
    steps = re.findall(r"^ +(\d+) tags ([\d.]+) seg ([\d.]+) cam ([\d.]+)$", run.stdout, re.M)
    assert [step for step, *_ in steps] == ["0", "1"]
    assert float(steps[1][2]) < float(steps[0][2])  # labels are learned from the first step on
    picture = np.asarray(Image.open(folder / "cosa.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_cosa_example_is_short():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100
