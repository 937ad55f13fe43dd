"""The example of ASDT, run as a reader does: it trains, scores, and leaves a picture."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "asdt.py"


def test_asdt_example_trains_scores_and_draws(tmp_path):
    folder = tmp_path / "deep" / "folder"
    command = [sys.executable, str(EXAMPLE), "--steps", "2", "--out", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    scores = dict(re.findall(r"^(.+): ([\d.]+) % mIoU on 64 held-out scenes$", run.stdout, re.M))
    assert list(scores) == ["all background", "before", "after"]
    assert all(0 < float(score) < 100 for score in scores.values())
    assert float(scores["before"]) > 15  # the packaged classifier's maps
    assert float(scores["after"]) < 15  # heads that have learned for two steps only
    steps = re.findall(r"^ +(\d+) tags ([\d.]+) head .+ student .+ energy -", run.stdout, re.M)
    assert [step for step, _ in steps] == ["0", "1"]
    picture = np.asarray(Image.open(folder / "asdt.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_asdt_example_is_short():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100
