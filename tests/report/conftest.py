"""A finished run, and a copy of it that a test may damage."""

import shutil

import pytest

from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import train
from wsss_lab.runs.stages import silent


@pytest.fixture(scope="module")
def original(world, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "A"
    config = Config(
        data=DataConfig(name="voc", root=world, train_split="train", crop=48),
        run=RunConfig(steps=2, batch=2, log_every=1),
        cam_scales=(1.0,),
        mask_steps=2,
        test=TestConfig(tags_at_test=True),
        report_train=4,
    )
    train(config, out, log=silent)
    return out


@pytest.fixture
def run(original, tmp_path):
    """A copy of it, to be damaged; its files keep their times."""
    return shutil.copytree(original, tmp_path / "run")
