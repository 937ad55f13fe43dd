"""Verdicts of whole studies: variance of blocks, Holm's rule and bootstraps against other code."""

import numpy as np
import pytest
from scipy import stats

from wsss_lab.config import write_json
from wsss_lab.studies.aggregate import aggregate
from wsss_lab.studies.plan import plan
from wsss_lab.studies.results import SIGNS, load_study
from wsss_lab.studies.rules import miou_of
from wsss_lab.studies.verdicts import (
    bootstrap,
    families,
    holm,
    joined_spread,
    judge_study,
    residual_variance,
)


def table(arms):
    return {arm: dict(enumerate(values)) for arm, values in arms.items()}


def test_families_are_arms_that_baselines_connect():
    baselines = {"a": "", "x": "", "b": "a", "y": "x", "c": "b", "lone": ""}
    assert families(baselines) == [["a", "b", "c"], ["x", "y"], ["lone"]]
    assert families({"a": "", "b": "", "c": "a", "d": "b", "e": "d"}) == [
        ["a", "c"],
        ["b", "d", "e"],
    ]


def test_two_arms_are_the_paired_t_test():
    one, other = np.random.default_rng(0).normal(size=(2, 4))
    found = judge_study({"a": "", "b": "a"}, table({"a": one, "b": other}), range(4), 0.95, True)
    wanted = stats.ttest_rel(other, one)
    assert found["b"]["p"] == pytest.approx(wanted.pvalue)
    assert found["b"]["df"] == 3
    interval = wanted.confidence_interval(0.95)
    assert (found["b"]["low"], found["b"]["high"]) == pytest.approx((interval.low, interval.high))
    # one comparison: the smallest that would have been shown is half the interval
    assert found["b"]["smallest"] == pytest.approx((interval.high - interval.low) / 2)


def test_the_residual_of_blocks_against_least_squares():
    values = np.random.default_rng(1).normal(size=(4, 3)) + np.arange(3)
    rows = [(a, s) for a in range(4) for s in range(3)]
    design = np.array([np.r_[np.eye(4)[a], np.eye(3)[s]] for a, s in rows])
    fitted = design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]
    variance, df = residual_variance(values)
    assert df == 6
    assert variance == pytest.approx(((values.ravel() - fitted) ** 2).sum() / 6)
    assert residual_variance(values[:1])[1] == residual_variance(values[:, :1])[1] == 0


def test_the_luck_of_a_seed_does_not_count():
    random = np.random.default_rng(2)
    arms = {arm: 0.01 * random.normal(size=3) + shift for arm, shift in [("a", 0), ("b", 0.3)]}
    lucky = {arm: values + np.array([0, 5, -9]) for arm, values in arms.items()}
    tests = [
        judge_study({"a": "", "b": "a"}, table(x), range(3), 0.95, True) for x in (arms, lucky)
    ]
    assert tests[0]["b"]["verdict"] == tests[1]["b"]["verdict"] == "better"
    assert tests[0]["b"]["p"] == pytest.approx(tests[1]["b"]["p"])


def test_satterthwaite_and_its_ends():
    alone = joined_spread(0.09, 4, 3)
    assert (alone.error, alone.df) == (pytest.approx(0.06**0.5), 4)
    joined = joined_spread(0.09, 4, 3, images=0.06)  # half the variance is images'
    assert (joined.error, joined.df) == (pytest.approx(0.12**0.5), 16)
    assert joined_spread(0.0, 4, 3, images=0.06).df == 1000
    assert joined_spread(np.nan, 0, 1) is None


def test_holm_against_its_definition_and_with_missing_comparisons():
    p = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    assert holm(p, 4) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.01}, 4) == pytest.approx({"a": 0.04})
    assert holm({"a": 0.9, "b": 0.5}, 2) == {"b": 1.0, "a": 1.0}
    with pytest.raises(ValueError, match="comparisons: expected at least 4"):
        holm(p, 3)


def test_correction_takes_a_verdict_away():
    random = np.random.default_rng(5)
    values = {"base": random.normal(size=5)} | {f"n{i}": random.normal(size=5) for i in range(9)}
    base = values["base"]
    values["edge"] = base + np.array([0.8, 1.9, 0.9, 2.0, 1.4])
    baselines = dict.fromkeys(values, "base") | {"base": ""}
    pair = {"base": "", "edge": "base"}
    alone = judge_study(pair, table({key: values[key] for key in pair}), range(5), 0.95, True)
    among = judge_study(baselines, table(values), range(5), 0.95, True)
    assert alone["edge"]["verdict"] == "better"
    assert among["edge"]["comparisons"] == 10
    assert among["edge"]["verdict"] == "not shown"
    assert among["edge"]["smallest"] > abs(among["edge"]["mean"])


def test_a_difference_above_the_smallest_is_shown_and_the_direction_counts():
    random = np.random.default_rng(6)
    values = {arm: 0.01 * random.normal(size=3) for arm in "abcd"}
    smallest = judge_study(
        dict.fromkeys("abcd", "a") | {"a": ""}, table(values), range(3), 0.95, True
    )
    shift = smallest["b"]["smallest"]
    for factor, verdict in ((1.01, "better"), (-1.01, "worse")):
        moved = values | {
            "b": values["b"] - values["b"].mean() + values["a"].mean() + factor * shift
        }
        up, down = (
            judge_study(dict.fromkeys("abcd", "a") | {"a": ""}, table(moved), range(3), 0.95, high)
            for high in (True, False)
        )
        assert up["b"]["verdict"] == verdict
        assert down["b"]["verdict"] == {"better": "worse", "worse": "better"}[verdict]


def test_precedence_and_too_few_seeds():
    values = table({"a": [0.1, 0.2], "b": [0.5, 0.6]})
    del values["b"][1]
    found = judge_study({"a": "", "b": "a"}, values, [0, 1], 0.95, True)
    assert found["b"] == {"verdict": "incomplete", "comparisons": 1}
    one = judge_study({"a": "", "b": "a"}, table({"a": [0.1], "b": [0.9]}), [0], 0.95, True)
    assert one["b"]["verdict"] == "not shown"
    assert "smallest" not in one["b"]


def made_counts(share, seed, images=40, k1=3):
    random = np.random.default_rng(seed)
    true = random.integers(50, 100, size=(images, k1))
    hit = np.minimum(true, (true * (share + random.normal(0, 0.05, true.shape))).astype(int))
    return np.stack([hit, hit + np.roll(true - hit, 1, 1), true], 1).astype(np.int32)


def test_the_bootstrap_against_a_loop():
    one = np.stack([made_counts(0.7, s) for s in range(3)])
    other = np.stack([made_counts(0.6, 9 + s) for s in range(3)])
    found = bootstrap(one, other, resamples=400, seed=3)
    random = np.random.default_rng(3)
    draws = random.multinomial(40, np.full(40, 1 / 40), size=400)
    seeds = random.multinomial(3, np.full(3, 1 / 3), size=400)
    images, both = [], []
    for pick, blocks in zip(draws, seeds, strict=True):
        chosen = np.repeat(np.arange(40), pick)
        by_seed = [
            float(miou_of(one[s, chosen].sum(0)) - miou_of(other[s, chosen].sum(0)))
            for s in range(3)
        ]
        images.append(np.mean(by_seed))
        both.append(np.mean(np.repeat(by_seed, blocks)))
    assert found["images"] == pytest.approx(np.var(images, ddof=1))
    assert found["interval"] == pytest.approx(np.percentile(both, [2.5, 97.5]))
    with pytest.raises(ValueError, match="same seeds, images and classes"):
        bootstrap(one, other[:2])


def test_images_widen_the_interval(tmp_path):
    files, values = {}, {}
    for arm, share in (("a", 0.6), ("b", 0.7)):
        for seed in range(3):
            counts = made_counts(share, 10 * seed + (arm == "b"))
            path = tmp_path / f"{arm}{seed}.npz"
            np.savez_compressed(path, main=counts)
            files.setdefault(arm, {})[seed] = path
            values.setdefault(arm, {})[seed] = float(miou_of(counts.sum(0)))
    without = judge_study({"a": "", "b": "a"}, values, range(3), 0.95, True)["b"]
    given = judge_study({"a": "", "b": "a"}, values, range(3), 0.95, True, files)["b"]
    assert given["error"] > without["error"]
    assert given["df"] >= without["df"]
    low, high = given["bootstrap"]
    assert low < given["mean"] < high
    assert "bootstrap" not in without


def test_from_a_declaration_to_the_table(place):
    arms = {
        "low": {"what": "one"},
        "high": {"what": "two", "settings": {"gain": 2}},
        "same": {"what": "three", "settings": {"gain": 3}},
        "apart": {"what": "four", "baseline": "none"},
    }
    study = place.declare(seeds=[0, 1, 2], arms=arms, verdicts="blocks", margin=0.0)
    noise = {"low": [0, 1, 3], "high": [1, 0, 2], "same": [1, 2, 2], "apart": [0, 0, 0]}
    for run in plan(study, "full", **place.folders):
        score = (0.75 if run.arm == "high" else 0.5) + 0.001 * noise[run.arm][run.seed]
        content = {**run.identity, "status": "finished", "git": "", "declaration_committed": True}
        facts = {"results": {"val": {}}, "versions": {}}
        write_json(run.record, content | {"metrics": {"score": score, "odd": None}, "run": facts})
    aggregate(study, "full", **place.folders)
    result = load_study("fake", records=place.records, declared=place.declared)
    verdicts = {name: arm.verdict for name, arm in result.arms.items()}
    assert verdicts == {"low": "", "high": "better", "same": "not shown", "apart": ""}
    assert result.arms["high"].test["comparisons"] == 2
    difference, test = result.arms["high"].differences["score"], result.arms["high"].test
    assert difference.high - difference.low < 2 * test["smallest"]  # not corrected: narrower
    lines = result.table().splitlines()
    assert lines[4].endswith(f"| not shown (from {test['smallest']:.3f}) |")
    assert lines[5].endswith("|  |  |")
    assert "Holm" in result.table()
    assert not any(word.startswith("null") for word in SIGNS.values())
