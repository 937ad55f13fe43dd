"""The example of ACR, run as a reader does: it trains, scores, and leaves a picture."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "acr.py"


def test_it_runs(tmp_path):
    command = [sys.executable, EXAMPLE, "--steps", "2", "--out", tmp_path / "deep" / "folder"]
    run = subprocess.run(map(str, command), cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = re.findall(r"(before|after): mIoU of the class maps ([\d.]+) %; ([\d.]+) %", run.stdout)
    assert [name for name, *_ in found] == ["before", "after"]
    assert all(0 < float(value) < 100 for _, *values in found for value in values)
    assert found[0][1:] != found[1][1:]  # training changed something
    assert (
        len(re.findall(r"^step \d+: tags [\d.]+, activation \S+, affinity \S+$", run.stdout, re.M))
        == 2
    )
    picture = np.asarray(Image.open(tmp_path / "deep" / "folder" / "acr.png").convert("RGB"))
    assert picture.shape[1] > picture.shape[0] > 400
    assert picture.std() > 30


def test_it_fits_on_two_pages():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) <= 110
    assert max(map(len, lines)) <= 100
