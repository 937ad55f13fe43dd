"""The grid of pairs as a table, and the sentence where it has not been run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from wsss_lab.studies import grid
from wsss_lab.studies.arm_result import ArmResult, Difference, Summary
from wsss_lab.studies.grid import grid_of, grid_table, interaction
from wsss_lab.studies.parts import Metric

SCORES = {
    "base": ("", "", {0: 0.30, 1: 0.40}),
    "one": ("base", "better", {0: 0.34, 1: 0.46}),
    "other": ("base", "not shown", {0: 0.31, 1: 0.41}),
    "one_other": ("one", "worse", {0: 0.33, 1: 0.44}),
}


def study():
    """A stand-in for `StudyResult`: what the table reads."""
    arms = {}
    for name, (baseline, verdict, values) in SCORES.items():
        found = {}
        if baseline:
            per_seed = {s: v - SCORES[baseline][2][s] for s, v in values.items()}
            mean = sum(per_seed.values()) / 2
            found = {"miou": Difference(mean, None, 2, per_seed, None, None)}
        metrics = {"miou": Summary(sum(values.values()) / 2, None, 2, values)}
        arms[name] = ArmResult(name, {}, metrics, found, verdict, baseline)
    return SimpleNamespace(
        arms=arms, baseline="base", primary="miou", remarks=lambda: ["Two seeds."],
        metrics={"miou": Metric("x", "mIoU")},
    )  # fmt: skip


def test_an_interaction_is_what_is_left():
    values = [SCORES[name][2] for name in ("base", "one", "other", "one_other")]
    # 0.33 - 0.34 - 0.31 + 0.30, and 0.44 - 0.46 - 0.41 + 0.40
    assert interaction(*values) == pytest.approx((-0.02 - 0.03) / 2)
    assert interaction({0: 1.0}, {0: 1.0}, {1: 1.0}, {0: 1.0}) is None
    assert interaction({0: 1.0, 1: 9.0}, {0: 2.0}, {0: 3.0}, {0: 4.0}) == 0


def test_the_table_has_effects_and_interactions():
    text = grid_table(study())
    head, _, first, second, *rest = text.splitlines()
    assert head == "|  | one | other |"
    # alone +5.0 and shown; the pair less its row's arm: 0.385 - 0.40
    assert first == "| **one** | **+5.0\\*** | -1.5\\* |"
    assert second == "| **other** | -2.5 | **+1.0** |"
    assert rest[-1] == "Two seeds."


def test_a_pair_without_an_arm_is_named():
    one = study()
    del one.arms["one_other"]
    with pytest.raises(ValueError, match="arms: expected 'one_other', compared with 'one'"):
        grid_table(one)


def test_missing_runs_leave_a_dash():
    one = study()
    arm = one.arms["one_other"]
    none = replace(arm.differences["miou"], mean=None)
    empty = replace(arm.metrics["miou"], per_seed={})
    one.arms["one_other"] = replace(
        arm, differences={"miou": none}, metrics={"miou": empty}, verdict="incomplete"
    )
    assert grid_table(one).count("–") == 2


def test_a_grid_without_record_says_so(monkeypatch):
    def none(name):
        raise FileNotFoundError

    monkeypatch.setattr(grid, "load_study", none)
    text = grid_of("mix").text
    assert text.startswith("**Not run yet.** Declared: 37 arms, 36 comparisons, seeds 0, 1, 2;")
    assert "python -m wsss_lab.studies run mix" in text
    monkeypatch.setattr(grid, "load_study", lambda name: study())
    assert grid_of("mix").text == grid_table(study())
