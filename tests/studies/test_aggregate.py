"""Arithmetic against numpy and scipy; what an aggregate says about what is not there."""

import numpy as np
import pytest
from scipy import stats

from wsss_lab.config import write_json
from wsss_lab.studies.aggregate import aggregate, judge, paired, summarise
from wsss_lab.studies.plan import plan
from wsss_lab.studies.results import load_study, lookup
from wsss_lab.studies.student_t import t_quantile, t_tail


@pytest.mark.parametrize("df", [1, 2, 3, 4, 9, 30])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
def test_t_quantile_against_scipy(df, confidence):
    wanted = stats.t.ppf((1 + confidence) / 2, df)
    assert t_quantile(confidence, df) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("df", [1, 2, 5, 40, 1000])
@pytest.mark.parametrize("t", [-3.0, 0.0, 0.4, 2.5, 9.0])
def test_p_values_against_scipy(df, t):
    assert t_tail(t, df) == pytest.approx(2 * stats.t.sf(abs(t), df), rel=1e-6, abs=1e-14)


def test_t_quantile_refuses_what_has_no_quantile():
    with pytest.raises(ValueError, match="df from 1"):
        t_quantile(0.95, 0)


def test_summary_and_paired_difference_against_numpy_and_scipy():
    random = np.random.default_rng(3)
    arm, base = random.normal(size=(2, 5))
    found = summarise(dict(enumerate(arm.tolist())))
    assert found["mean"] == pytest.approx(arm.mean())
    assert found["sd"] == pytest.approx(arm.std(ddof=1))
    # seeds 4 (arm only) and 7 (baseline only) have no partner
    difference = paired(
        dict(enumerate(arm.tolist())), dict(enumerate(base[:4].tolist())) | {7: 9.0}, 0.9
    )
    delta = arm[:4] - base[:4]
    low, high = stats.t.interval(0.9, 3, loc=delta.mean(), scale=stats.sem(delta))
    assert difference["n"] == 4
    assert [difference[k] for k in ("mean", "sd", "low", "high")] == pytest.approx(
        [delta.mean(), delta.std(ddof=1), low, high]
    )


def test_too_few_seeds_give_no_spread():
    assert summarise({}) == {"mean": None, "sd": None, "n": 0, "per_seed": {}}
    assert summarise({2: 0.5})["sd"] is None
    alone = paired({0: 0.5}, {0: 0.25}, 0.95)
    assert (alone["mean"], alone["low"], alone["high"]) == (0.25, None, None)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.02, 0.05, "better"),
        (-0.05, -0.02, "worse"),
        (-0.005, 0.009, "null"),
        (0.001, 0.009, "null"),
        (0.001, 0.02, "better"),
        (-0.02, 0.005, "undecided"),
        (-0.5, 0.5, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_verdicts(low, high, verdict):
    difference = {"low": low, "high": high}
    assert judge(difference, 0.01, True, True) == verdict
    turned = {"better": "worse", "worse": "better"}.get(verdict, verdict)
    assert judge(difference, 0.01, False, True) == turned
    assert judge(difference, 0.01, True, False) == "incomplete"
    assert judge({"low": 0.0, "high": 0.0}, 0.0, True, True) == "undecided"


def record(run, score, **changes):
    content = {
        "format": 1,
        **run.identity,
        "git": "abc",
        "declaration_committed": True,
        "status": "finished",
        "metrics": {"score": score, "odd": None if run.seed == 1 else score},
        "run": {
            "config": {"gain": run.config.gain},
            "device": "cpu",
            "versions": {"torch": "2"},
            "weights": "none",
            "results": {"val": {"score": score, "protocol": {"images": 9}}},
        },
    }
    write_json(run.record, content | changes)


def test_the_aggregate_names_what_is_missing_and_is_the_same_every_time(place):
    study = place.declare(seeds=[0, 1, 2])
    runs = plan(study, "cpu", **place.folders)
    scores = np.random.default_rng(0).random(6)
    for run, score in zip(runs, scores.tolist(), strict=True):
        if run.name not in ("high-seed2", "low-seed1"):
            record(run, score)
    failed = {"status": "failed", "error": "OutOfMemoryError: too big"}
    write_json(runs[2].record, runs[2].identity | failed)
    assert runs[2].name == "low-seed1"
    target = aggregate(study, "cpu", **place.folders)
    first = target.read_bytes()
    result = load_study("fake", records=place.records, declared=place.declared)
    assert result.missing == [
        "low-seed1 (failed: OutOfMemoryError: too big)",
        "high-seed2 (not finished)",
    ]
    assert (result.complete, result.reduced, result.profile) == (False, True, "cpu")
    low, high = result.arms["low"], result.arms["high"]
    assert (low.verdict, high.verdict) == ("", "incomplete")
    assert low.metrics["score"].per_seed == {0: scores[0], 2: scores[4]}
    assert high.metrics["score"].mean == pytest.approx(scores[[1, 3]].mean())
    assert high.metrics["odd"].n == 1  # not a number with seed 1
    assert high.differences["score"].per_seed == {0: scores[1] - scores[0]}
    assert result.provenance["git"] == ["abc"]
    assert result.provenance["protocols"]["score"] == [{"images": 9}]
    assert list(result.arms) == ["low", "high"]
    table = result.table()
    assert "Missing: low-seed1 (failed: OutOfMemoryError: too big); high-seed2" in table
    assert "Reduced profile" in table
    aggregate(study, "cpu", **place.folders)
    assert target.read_bytes() == first


def test_the_table_of_a_complete_study(place):
    study = place.declare(seeds=[0, 1, 2])
    for run in plan(study, "full", **place.folders):
        record(run, (0.5 if run.arm == "low" else 0.75) + 0.01 * run.seed)
    aggregate(study, "full", **place.folders)
    result = load_study("fake", records=place.records, declared=place.declared)
    assert (result.complete, result.reduced, result.note) == (True, False, "")
    lines = result.table().splitlines()
    assert lines[0] == "| arm | score | odd score | difference to the baseline | verdict |"
    assert lines[2] == "| gain of one (baseline) | 0.510 ± 0.010 | 51.0 ± 1.4 % |  |  |"
    assert lines[3].endswith("| +0.250 [+0.250, +0.250] | better (from 0.000) |")
    assert "Reduced" not in result.table()
    assert result.table(["odd"], judged=False).splitlines() == [
        "| arm | odd score |",
        "|---|---|",
        "| gain of one (baseline) | 51.0 ± 1.4 % |",
        lines[3].split(" | ")[0] + " | 76.0 ± 1.4 % |",
    ]
    assert result.table(["odd"]).splitlines()[0].startswith("| arm | odd score | difference")
    with pytest.raises(ValueError, match="metrics: expected some of"):
        result.table(["nothing"])
    assert "95 % t intervals of the mean paired difference" in result.interval
    assert result.interval.endswith("lies within ±0.01.")


def test_an_arm_may_be_compared_with_another_one(place):
    arms = {
        "low": {"what": "one"},
        "high": {"what": "two", "settings": {"gain": 2}},
        "higher": {"what": "three", "settings": {"gain": 3}, "baseline": "high"},
    }
    study = place.declare(seeds=[0, 1, 2], arms=arms)
    scores = {"low": 0.5, "high": 0.75, "higher": 0.7}
    for run in plan(study, "full", **place.folders):
        record(run, scores[run.arm] + 0.01 * run.seed)
    aggregate(study, "full", **place.folders)
    result = load_study("fake", records=place.records, declared=place.declared)
    assert {name: arm.baseline for name, arm in result.arms.items()} == {
        "low": "",
        "high": "low",
        "higher": "high",
    }
    assert result.arms["higher"].differences["score"].mean == pytest.approx(-0.05)
    assert (result.arms["high"].verdict, result.arms["higher"].verdict) == ("better", "worse")
    lines = result.table().splitlines()
    assert "difference to its baseline" in lines[0]
    assert lines[2].startswith("| low: one (baseline) |")
    assert lines[4].endswith("| -0.050 [-0.050, -0.050] to high | worse (from 0.000) |")
    rows = result.rows("odd")
    assert [row.name for row in rows] == ["high − low", "higher − high"]
    # the metric is not there with seed 1, and shares come in percent points
    assert rows[1].per_seed == pytest.approx([-5, -5])
    assert (rows[1].low, rows[1].mean, rows[1].high) == pytest.approx((-5, -5, -5))
    with pytest.raises(ValueError, match="metric: expected one of"):
        result.rows("nothing")


def test_foreign_records_are_not_added_up_and_old_aggregates_not_shown(place):
    study = place.declare()
    runs = plan(study, "cpu", **place.folders)
    for run in runs:
        record(run, 0.5)
    aggregate(study, "cpu", **place.folders)
    with pytest.raises(FileNotFoundError, match="run fake"):
        load_study("fake", "full", records=place.records, declared=place.declared)
    changed = place.declare(margin=0.4)
    with pytest.raises(ValueError, match="4 files of foreign runs"):
        aggregate(changed, "cpu", **place.folders)
    with pytest.raises(ValueError, match="of another declaration"):
        load_study("fake", records=place.records, declared=place.declared)


def test_a_damaged_record_is_named(place):
    study = place.declare()
    runs = plan(study, "cpu", **place.folders)
    record(runs[0], 0.5)
    runs[0].record.write_text("{")
    with pytest.raises(ValueError, match=r"low-seed0.json: damaged .*; delete it"):
        aggregate(study, "cpu", **place.folders)


def test_lookup_finds_numbers_and_says_what_there_is():
    results = {"val": {"a+b c": {"miou": 0.5, "bad": True}, "none": None, "nan": float("nan")}}
    assert lookup(results, "val.a+b c.miou") == 0.5
    assert lookup(results, "val.none") is None
    assert lookup(results, "val.nan") is None
    with pytest.raises(ValueError, match=r"there is no 'x', but .*'none'"):
        lookup(results, "val.x")
    with pytest.raises(ValueError, match="expected a number, got True"):
        lookup(results, "val.a+b c.bad")
