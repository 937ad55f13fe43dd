"""The rule of ASDT's study on made-up runs whose verdict is known, and its parts against loops."""

import shutil

import numpy as np
import pytest
import torch

from wsss_lab.config import write_json
from wsss_lab.metrics import mean_iou
from wsss_lab.studies.aggregate import aggregate
from wsss_lab.studies.plan import plan
from wsss_lab.studies.results import load_study
from wsss_lab.studies.rules import (
    ASDT_CLAIMS,
    FinishedRun,
    asdt,
    bootstrap_difference,
    exceeds,
    find_rule,
    miou_of,
    pooled_sd,
)

CPU = ("r1", "r2", "r3", "r5", "r8", "r10")
FULL = (*CPU, "r6")


def counts_of(share, images, seed, k1=3):
    """Counts of a prediction that is right on about `share` of every class's pixels."""
    random = np.random.default_rng(seed)
    true = random.integers(50, 100, size=(images, k1))
    hit = np.minimum(true, (true * (share + random.normal(0, 0.02, true.shape))).astype(int))
    missed = true - hit
    predicted = hit + np.roll(missed, 1, axis=1)
    return np.stack([hit, predicted, true], axis=1).astype(np.int32)


def made(tmp_path, shares, arms, seeds=(0, 1, 2), images=12):
    """Finished runs whose arms are right on these shares; both voices alike."""
    runs = []
    for arm in arms:
        for seed in seeds:
            counts = counts_of(shares.get(arm, 0.6), images, seed)  # arms alike but for it
            path = tmp_path / f"{arm}-seed{seed}.per_image.npz"
            np.savez_compressed(path, head2=counts, fused=counts)
            value = float(miou_of(counts.sum(0)))
            metrics = {"train_head2": value, "train_fused": value}
            runs.append(FinishedRun(arm, seed, metrics, {"per_image.npz": path}))
    return runs, {arm: set(seeds) for arm in arms}


def test_pooled_sd_and_miou_against_other_code():
    one, other = [0.1, 0.4, 0.2], [0.5, 0.9]
    wanted = np.sqrt((2 * np.var(one, ddof=1) + np.var(other, ddof=1)) / 3)
    assert pooled_sd(one, other) == pytest.approx(wanted)
    assert np.isnan(pooled_sd([1.0], other))
    matrix = np.random.default_rng(1).integers(0, 50, size=(4, 4))
    matrix[2] = 0  # a class that is predicted and never true does not count
    counts = np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)])
    assert miou_of(counts) == pytest.approx(float(mean_iou(torch.from_numpy(matrix))[1]))


def test_the_bootstrap_against_a_loop():
    one = np.stack([counts_of(0.7, 15, s) for s in (1, 2)])
    other = np.stack([counts_of(0.6, 15, s) for s in (3, 4, 5)])
    random, found = np.random.default_rng(0), []
    for draw in random.multinomial(15, np.full(15, 1 / 15), size=300):
        chosen = np.repeat(np.arange(15), draw)
        means = [np.mean([miou_of(c[chosen].sum(0)) for c in arm]) for arm in (one, other)]
        found.append(means[0] - means[1])
    low, high = bootstrap_difference(one, other, resamples=300)
    assert (low, high) == pytest.approx(tuple(np.percentile(found, [2.5, 97.5])), abs=1e-12)
    assert 0 < low < high
    assert bootstrap_difference(one, one) == (0, 0)  # paired: no image favours one of them
    with pytest.raises(ValueError, match="same images and classes"):
        bootstrap_difference(one, other[:, :9])


def test_both_conditions_are_needed():
    """Far apart on every image but with seeds far apart, and the other way round."""
    same = np.stack([counts_of(0.6, 20, 1)] * 2)
    better = np.stack([counts_of(0.8, 20, 2)] * 2)
    calm, wild = {0: 0.80, 1: 0.81}, {0: 0.5, 1: 0.75}
    assert exceeds(calm, {0: 0.60, 1: 0.61}, (better, same))["holds"]
    assert not exceeds(calm, wild, (better, same))["holds"]
    assert not exceeds(calm, {0: 0.60, 1: 0.61}, (same, same))["holds"]
    alone = exceeds({0: 0.8}, {0: 0.6}, (better[:1], same[:1]))
    assert not alone["holds"]
    assert alone["sd"] is None


def test_a_clear_win_supports_all_claims(tmp_path):
    found = asdt(*made(tmp_path, {"r8": 0.85}, FULL))
    assert found["verdicts"] == dict.fromkeys(ASDT_CLAIMS, "supported")
    assert len(found["lines"]) == len(ASDT_CLAIMS) + 1
    assert set(found["comparisons"]) == {"r1", "r2", "r3", "r5", "r6", "r10"}


def test_a_draw_is_not_shown_and_is_called_so(tmp_path):
    found = asdt(*made(tmp_path, {}, FULL))
    assert found["verdicts"] == dict.fromkeys(ASDT_CLAIMS, "not supported")
    assert all(": not shown (" in line for line in found["lines"][:3])


def test_one_equal_rival_is_enough_against_a_claim(tmp_path):
    found = asdt(*made(tmp_path, {"r8": 0.85, "r10": 0.85}, FULL))
    assert list(found["verdicts"].values()) == ["supported", "supported", "not supported"]
    (tmp_path / "b").mkdir()
    found = asdt(*made(tmp_path / "b", {"r8": 0.85, "r3": 0.85}, FULL))
    assert set(found["verdicts"].values()) == {"not supported"}  # the later ones need the first


def test_what_was_not_run_is_not_judged(tmp_path):
    runs, planned = made(tmp_path, {"r8": 0.85}, CPU)
    verdicts = ["supported", "not judged", "supported"]
    assert list(asdt(runs, planned)["verdicts"].values()) == verdicts
    part = [run for run in runs if (run.arm, run.seed) != ("r2", 1)]
    found = list(asdt(part, planned)["verdicts"].values())
    assert found == ["incomplete", "not judged", "incomplete"]
    assert list(asdt([], planned)["verdicts"].values()) == found


def test_the_aggregate_tells_what_the_rule_says(place, tmp_path):
    """From a declaration to the table, on records of made-up runs."""
    arms = {arm: {"what": arm, "settings": {"gain": 1}} for arm in CPU}
    study = place.declare(
        arms=arms,
        baseline="r1",
        seeds=[0, 1, 2],
        rule="asdt",
        keep=["per_image.npz"],
        metrics={
            name: {"path": f"val.{name}", "what": name} for name in ("train_head2", "train_fused")
        },
        primary="train_fused",
    )
    made_up = {(r.arm, r.seed): r for r in made(tmp_path, {"r8": 0.85}, CPU)[0]}
    for run in plan(study, "cpu", **place.folders):
        source = made_up[run.arm, run.seed]
        told = {"git": "abc", "declaration_committed": True, "status": "finished"}
        results = {"val": source.metrics}
        write_json(
            run.record,
            {**run.identity, **told, "metrics": source.metrics}
            | {"run": {"results": results, "versions": {}}},
        )
        shutil.copy(source.kept["per_image.npz"], run.kept["per_image.npz"])
    target = aggregate(study, "cpu", **place.folders)
    first = target.read_bytes()
    result = load_study("fake", records=place.records, declared=place.declared)
    assert result.rule["verdicts"] == {
        "alternating helps": "supported",
        "the period matters": "not judged",
        "more than regularisation": "supported",
    }
    assert "- Claim “alternating helps”: supported (head2 against r1 +" in result.table()
    assert "- Claim “the period matters”: not judged" in result.table()
    aggregate(study, "cpu", **place.folders)
    assert target.read_bytes() == first


def test_the_same_runs_give_the_same_answer(tmp_path):
    runs, planned = made(tmp_path, {"r8": 0.62}, FULL)
    assert asdt(runs, planned) == asdt(runs[::-1], planned)


def test_bad_input(tmp_path):
    runs, planned = made(tmp_path, {}, FULL)
    (tmp_path / "r8-seed0.per_image.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match="no counts of head2"):
        asdt(runs, planned)
    with pytest.raises(ValueError, match="rule: expected one of asdt, got 'nobody'"):
        find_rule("nobody")
