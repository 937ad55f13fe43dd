"""Shared fixtures; `--golden DIR` points the golden tests at another folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from recordings import folder_of, recordings

from wsss_lab.data.toy import write_voc

ROOT = Path(__file__).parents[1]


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        default="auto",
        help="folder with one sub-folder per method (tscd, asdt, acr, cosa) of recorded arrays; "
        "auto: ../shared/golden where it lies beside the checkout, else the committed share",
    )
    parser.addoption(
        "--photos",
        default=os.environ.get("WSSS_LAB_PHOTOS", ""),
        help="folder with real photos in VOC layout, for checks that need them",
    )


def pytest_terminal_summary(terminalreporter, config):
    skipped = [
        r for r in terminalreporter.stats.get("skipped", []) if "plain clone" in str(r.longrepr)
    ]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} golden tests skipped: their recordings are not part of a plain clone "
            "(tests/golden/elsewhere.txt); --golden DIR names a whole set"
        )


@pytest.fixture
def golden(request):
    """`golden("tscd")("cam_fusion.npz")` -> arrays by name."""
    root = folder_of(request.config.getoption("--golden"))
    return lambda method: recordings(root, method)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    """The wheel of this checkout, built once for all tests of a process."""
    out = tmp_path_factory.mktemp("wheel")
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "wsss_lab").symlink_to(ROOT / "wsss_lab")  # build folders stay out of the checkout
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A few toy scenes in VOC layout, lists train and val."""
    folder = tmp_path_factory.mktemp("world")
    write_voc(folder, split="train", count=6, size=48)
    write_voc(folder, split="val", count=3, size=48)
    return folder
