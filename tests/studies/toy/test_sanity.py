"""Rows that never look: scored like a run, and the record is that of this code."""

import pytest

from wsss_lab.records import load_record
from wsss_lab.studies.toy import sanity

KINDS = {"all background": "seg", "noise": "cam+true tags", "box": "seg+true tags"}


def test_rows_are_scored_like_a_run(tmp_path):
    found = sanity.run(sanity.Sanity(out=tmp_path / "sanity.json", lists=(20,)))["val"]["20"]
    rows = {name: found[name][kind] for name, kind in KINDS.items()}
    empty = rows["all background"]
    pixels = empty["pixels"]
    assert empty["miou"] == pytest.approx(pixels[0] / sum(pixels) / len(pixels))
    assert empty["coverage"] == {"near": 0, "far": 0}
    for name in ("noise", "box"):
        assert rows[name]["protocol"]["tags_at_test"], name
        assert rows[name]["miou"] > empty["miou"], name
        assert 0 < rows[name]["coverage"]["far"] < 1, name
    assert rows["noise"]["protocol"]["thresholds"] == "fixed at 0.4"
    # the box is in the middle of every scene, whatever lies there
    assert rows["box"]["context"]["train_other"] > 0


def test_the_record_is_of_the_lists_of_the_studies():
    kept = load_record("sanity")["val"]
    assert set(kept) == {"120", "200"}
    for study, scenes in (("acr", "120"), ("cosa", "200")):
        run = load_record(
            f"studies/{study}/cpu/cosa-seed0"
            if study == "acr"
            else f"studies/{study}/cpu/all-seed0"
        )["run"]
        truth = run["results"]["val"]["seg"]["pixels"]
        assert kept[scenes]["all background"]["seg"]["pixels"] == truth
    again = sanity.score(120, sanity.Sanity())
    for name, kind in KINDS.items():
        assert again[name][kind]["miou"] == pytest.approx(kept["120"][name][kind]["miou"], abs=1e-6)
