"""Shared fixtures; `--golden DIR` points the golden tests at another folder."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent


def pytest_addoption(parser):
    parser.addoption(
        "--golden",
        default=str(HERE / "golden" / "recorded"),
        help="folder with one sub-folder per method (tscd, asdt, acr, cosa) of recorded arrays",
    )
    parser.addoption(
        "--photos",
        default=os.environ.get("WSSS_LAB_PHOTOS", ""),
        help="folder with real photos in VOC layout, for checks that need them",
    )


class Golden:
    """The recorded arrays of one method; a missing file skips the test by name."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str) -> dict[str, np.ndarray]:
        path = self.folder / name
        if not path.is_file():
            pytest.skip(f"golden file {self.folder.name}/{name} is not here")
        if path.suffix != ".npz":
            return path
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}


@pytest.fixture
def golden(request):
    """`golden("tscd")("cam_fusion.npz")` -> arrays by name."""
    root = Path(request.config.getoption("--golden"))
    return lambda method: Golden(root / method)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
