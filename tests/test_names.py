"""Names that are used are defined.

Shape strings such as `Float[Tensor, "b k h w"]` look like undefined names, so lint and mypy do not
check for any. Axes are short; every other name has to exist.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
AXES = {"size", "_size", "rows", "cells", "levels", "points", "sides", "bins", "queue"}


def test_every_name_but_axes_is_defined():
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821"]
    command += ["--output-format", "json", "wsss_lab", "examples"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    names = {(hit["filename"], hit["message"].split("`")[1]) for hit in found}
    assert names  # the axes: the check does run
    wrong = [(f, name) for f, name in names if len(name) > 4 and name not in AXES]
    assert not wrong
