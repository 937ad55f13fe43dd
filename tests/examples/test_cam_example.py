"""The example of the baseline, run as a reader does: it trains, scores, and leaves a picture."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "cam.py"


def test_cam_example_trains_scores_and_draws(tmp_path):
    command = [sys.executable, str(EXAMPLE), "--steps", "3", "--out", str(tmp_path / "deep")]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    scores = dict(re.findall(r"^(.+): ([\d.]+) % mIoU on 64 held-out scenes$", run.stdout, re.M))
    assert list(scores) == ["before", "pseudo-labels", "after"]
    assert all(0 <= float(score) < 100 for score in scores.values())
    assert scores["after"] != scores["before"]
    picture = np.asarray(Image.open(tmp_path / "deep" / "cam.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_cam_example_fits_on_two_pages():
    assert len(EXAMPLE.read_text().splitlines()) <= 110
