"""Variables that decide where a run happens and how it computes: fitting, refused or recorded."""

import pytest

from wsss_lab.config import RunConfig
from wsss_lab.train.environment import (
    ARITHMETIC,
    RANKS,
    REPLACE_SETTINGS,
    arithmetic,
    require_fitting_environment,
)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in (*RANKS, *REPLACE_SETTINGS, *ARITHMETIC):
        monkeypatch.delenv(name, raising=False)


STALE = [
    {"RANK": "1"},
    {"RANK": ""},
    {"RANK": "one"},
    {"LOCAL_RANK": "-1"},
    {"LOCAL_RANK": "1"},
    {"NODE_RANK": "1"},
    {"GROUP_RANK": "1"},
    {"WORLD_SIZE": "2"},
    {"WORLD_SIZE": ""},
    *({name: "1"} for name in REPLACE_SETTINGS),
]


@pytest.mark.parametrize("names", STALE, ids=str)
def test_what_another_run_has_left_is_refused_by_its_name(names, monkeypatch):
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{next(iter(names))}.*unset"):
        require_fitting_environment(RunConfig())


TORCHRUN = {"RANK": 3, "LOCAL_RANK": 1, "WORLD_SIZE": 4, "GROUP_RANK": 1}


@pytest.mark.parametrize(
    ("names", "devices", "nodes"),
    [
        ({}, 1, 1),
        ({}, 4, 1),
        ({"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "GROUP_RANK": 0}, 1, 1),
        (TORCHRUN, 2, 2),
        ({"LOCAL_RANK": 1, "WORLD_SIZE": 2, "NODE_RANK": 0}, 2, 1),  # started by Lightning
        ({"NODE_RANK": 1}, 2, 2),  # the first process of the second machine
    ],
)
def test_ranks_of_the_run_itself_are_welcome(names, devices, nodes, monkeypatch):
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    require_fitting_environment(RunConfig(devices=devices, nodes=nodes))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (TORCHRUN, "4 processes were started"),
        ({"LOCAL_RANK": 0}, "without WORLD_SIZE"),
        ({"RANK": 2, "WORLD_SIZE": 2}, "RANK is 2"),
    ],
)
def test_ranks_that_would_wait_for_ever_are_refused(names, words, monkeypatch):
    for name, value in names.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(ValueError, match=words):
        require_fitting_environment(RunConfig(devices=2))


def test_variables_of_arithmetic_are_listed(monkeypatch):
    assert arithmetic() == {}
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert arithmetic() == {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"}
