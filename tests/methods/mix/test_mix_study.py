"""The declared grid: every technique alone, every pair of them, on one base."""

import itertools

import torch
from tiny_mix import K

from wsss_lab.methods.mix.technique import OWN
from wsss_lab.recipes.mix import METHOD
from wsss_lab.studies.declare import read_declaration
from wsss_lab.studies.plan import plan

STUDY = read_declaration("mix")
ALONE = ("slow", "varm", "search", "perplexity", "turns", "scd", "separation", "acr")
"""Arms of one technique, in the order in which a step calls them."""


def test_the_grid_has_every_technique_and_every_pair():
    pairs = list(itertools.combinations(ALONE, 2))
    assert list(STUDY.arms) == ["base", *ALONE, *map("_".join, pairs)]
    assert [name.replace("varm", "refine") for name in ALONE] == [*OWN, "acr"]
    assert all(STUDY.arms[name].baseline == "base" for name in ALONE)
    for one, other in pairs:
        arm = STUDY.arms[f"{one}_{other}"]
        assert arm.baseline == one
        assert arm.settings == {**STUDY.arms[one].settings, **STUDY.arms[other].settings}
    settings = [set(STUDY.arms[name].settings) for name in ALONE]
    assert all(not one & other for one, other in itertools.combinations(settings, 2))
    assert len(STUDY.arms) - 1 == 36  # comparisons, as the decision says
    assert "36 comparisons" in STUDY.decision


def test_arms_have_on_what_their_names_say(tmp_path):
    for run in plan(STUDY, "cpu", tmp_path, tmp_path):
        if run.seed:
            continue
        torch.manual_seed(0)
        on = set(METHOD.build(run.config, K, False).techniques)
        on |= {"acr"} if run.config.acr.alpha > 0 else set()
        named = set() if run.arm == "base" else set(run.arm.split("_"))
        assert {name.replace("refine", "varm") for name in on} == named
        band = (run.config.method.low, run.config.method.high)
        assert band == ((0.35, 0.55) if "varm" in named else (0.45, 0.65))
        assert (run.config.run.steps, run.config.start) == (300, "toy")
