"""A run that is killed again and again ends with the same bytes as one that is not."""

import signal

import pytest
from test_resume import script

from wsss_lab.data.toy import write_voc


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A small world on disk: drawing scenes would cost more than training on them."""
    world = tmp_path_factory.mktemp("world")
    write_voc(world, split="train", count=70, size=48)
    write_voc(world, split="val", count=4, size=48)
    return script("killed_commands.py", world, tmp_path_factory.mktemp("killed"))


def test_every_run_but_the_last_was_killed_in_the_middle(found):
    ends = dict(found["ends"])
    assert ends.pop("to the end") == 0, found["said"]
    assert ends == dict.fromkeys(ends, -signal.SIGKILL), found["said"]
    assert len(ends) == 4
    assert not found["finished too early"]


def test_killed_runs_end_with_the_same_bytes(found):
    assert len(found["whole"]) == 73  # two networks, scores, 70 labels
    assert found["broken"] == found["whole"]
    assert not found["left"]


def test_a_run_that_is_done_has_nothing_left_to_do(found):
    assert found["again"] == 0
    assert found["said again"].count("done already") == 3  # tags, labels, masks
    assert found["broken again"] == found["whole"]
