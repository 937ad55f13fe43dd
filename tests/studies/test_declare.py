"""What a declaration must say, and what it may not."""

import dataclasses
import subprocess

import pytest

from wsss_lab.config import write_json
from wsss_lab.methods.asdt.config import ARMS
from wsss_lab.runs.recipe import find_preset
from wsss_lab.runs.settings import plain
from wsss_lab.studies.committed import is_committed
from wsss_lab.studies.declare import declared_names, read_declaration
from wsss_lab.studies.former import FORMER
from wsss_lab.studies.plan import find_records, flat, foreign, plan, read_json, require_none_foreign


def test_every_declared_study_can_be_planned(tmp_path):
    for name in declared_names():
        study = read_declaration(name)
        for profile in ("full", "cpu"):
            runs = plan(study, profile, tmp_path, tmp_path)
            assert len({run.name for run in runs}) == len(runs) >= 2
            accelerator = {"full": "cuda", "cpu": "cpu"}[profile]
            assert {run.config.run.accelerator for run in runs} == {accelerator}
            assert all(run.config.run.seed == run.seed for run in runs)


def test_the_cam_baseline_crosses_two_factors_and_fixes_the_rest(tmp_path):
    runs = plan(read_declaration("cam_baseline"), "full", tmp_path, tmp_path)
    found = {(r.config.pool, r.config.cam_scales, r.seed) for r in runs}
    assert len(found) == len(runs) == 12
    assert {(r.config.threshold, r.config.cam_flip, r.config.data.count) for r in runs} == {
        (0.4, True, 3000)
    }
    assert [r.seed for r in runs[:4]] == [0, 0, 0, 0]  # all arms of a seed before the next seed


def test_settings_of_arm_beat_profile_beat_common(place):
    full = {"what": "x", "run_minutes": 1}
    cpu = full | {"settings": {"gain": 3, "run.steps": 1}, "seeds": [7]}
    study = place.declare(profiles={"full": full, "cpu": cpu})
    runs = {run.name: run for run in plan(study, "cpu", **place.folders)}
    assert set(runs) == {"low-seed7", "high-seed7"}
    assert (runs["low-seed7"].config.gain, runs["high-seed7"].config.gain) == (3.0, 2.0)
    assert runs["low-seed7"].config.run.steps == 1


def test_a_profile_may_run_fewer_arms(place):
    full = {"what": "x", "run_minutes": 1}
    study = place.declare(profiles={"full": full, "cpu": full | {"arms": ["low"]}})
    assert [run.arm for run in plan(study, "cpu", **place.folders)] == ["low"] * 2
    assert [run.arm for run in plan(study, "full", **place.folders)] == ["low", "high"] * 2
    for arms, message in (
        (
            ["high"],
            "profiles.cpu.arms: expected names of .*, the baselines and starts .'low'. among them",
        ),
        (["low", "nobody"], "profiles.cpu.arms: expected names of"),
        (["low", "low"], "a list of different names"),
        ("low", "a list of different names"),
    ):
        with pytest.raises(ValueError, match=message):
            place.declare(profiles={"full": full, "cpu": full | {"arms": arms}})


def test_the_arms_of_asdt_are_those_of_its_plan(tmp_path):
    study = read_declaration("asdt")
    runs = {run.arm: run for run in plan(study, "full", tmp_path, tmp_path)}
    assert len(runs) == 15
    assert set(plan_arms(study, "cpu", tmp_path)) == {"r1", "r2", "r3", "r5", "r8", "r10", "r11"}
    base = find_preset("asdt", "toy").method
    for name, changes in ARMS.items():
        mine = {"R2-full": "r2_full", "R3-half": "r3_half", "R4-agree": "r4_agree"}
        if name != "R10-dense":
            found = runs[mine.get(name, name.lower())].config.method
            assert found == dataclasses.replace(base, **changes)
    assert all(run.config.watch == 0 for arm, run in runs.items() if arm != "r8")


def plan_arms(study, profile, folder):
    return [run.arm for run in plan(study, profile, folder, folder)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep": ["../x.npz"]}, "keep: expected plain file names"),
        ({"keep": "x.npz"}, "keep: expected a list of different names"),
        ({"rule": ["asdt"]}, "rule: expected a name"),
        ({"rule": "nobody"}, "rule: expected one of asdt, got 'nobody'"),
        ({"baseline": "nobody"}, "baseline: expected one of"),
        ({"arms": {"low": {"what": "x", "baseline": "low"}}}, "compared with nothing"),
        (
            {"arms": {"low": {"what": "x"}, "high": {"what": "x", "baseline": "nobody"}}},
            "arms.high.baseline: expected another of",
        ),
        (
            {"arms": {"low": {"what": "x"}, "high": {"what": "x", "baseline": "high"}}},
            "arms.high.baseline: expected another of",
        ),
        ({"primary": "nothing"}, "primary: expected one of"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": [True]}, "different whole numbers"),
        ({"margin": "a bit"}, "margin: expected a number"),
        ({"confidence": 1}, "confidence"),
        ({"question": " "}, "question: expected text"),
        ({"extra": 1}, "unknown \\['extra'\\]"),
        ({"arms": {"Bad name": {"what": "x"}}}, "expected a name"),
        ({"arms": {"low": {"what": "x", "settings": {"run.seed": 1}}}}, "leave them out"),
        ({"profiles": {"cpu": {"what": "x", "run_minutes": 1}}}, "missing \\['full'\\]"),
    ],
)
def test_bad_declarations_are_refused(place, changes, message):
    with pytest.raises(ValueError, match=message):
        place.declare(**changes)


def test_a_key_that_stands_twice_is_refused(place):
    study = place.declare()
    study.path.write_text(study.path.read_text() + "title: another\n")
    with pytest.raises(ValueError, match="stands there twice"):
        read_declaration("fake", place.declared)
    with pytest.raises(ValueError, match="expected one of fake, got 'other'"):
        read_declaration("other", place.declared)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gian": 2}, "arm high: there is no setting 'gian'"),
        ({"run.stepz": 2}, "there is no setting 'run.stepz'"),
        ({"gain.low": 2}, "there is no setting 'gain.low'"),
        ({"gain": "1e-3"}, "write 1.0e-3"),
        ({"run.steps": 1.5}, "run.steps: expected a value like"),
        ({"run.progress": 1}, "run.progress: expected a value like"),
        ({"scales": ["a"]}, "scales: expected a value like"),
        ({"run": {"steps": 3}}, "run: expected a value like"),
        ({"run.steps": 0}, "steps: expected at least 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_runs(place, settings, message):
    arms = {"low": {"what": "a"}, "high": {"what": "b", "settings": settings}}
    with pytest.raises(ValueError, match=message):
        plan(place.declare(arms=arms), "cpu", **place.folders)


def test_a_changed_declaration_makes_old_runs_foreign(place):
    runs = plan(place.declare(), "cpu", **place.folders)
    write_json(runs[0].folder / "study.json", runs[0].identity)
    write_json(runs[1].record, runs[1].identity | {"status": "finished"})
    assert not list(foreign(runs))
    changed = plan(place.declare(margin=0.02), "cpu", **place.folders)
    lines = list(foreign(changed))
    assert len(lines) == 2
    assert all("of the declaration" in line for line in lines)
    with pytest.raises(ValueError, match="2 files of foreign runs, which are not mixed"):
        require_none_foreign(changed)


def test_settings_that_changed_in_the_code_make_old_runs_foreign(place):
    runs = plan(place.declare(), "cpu", **place.folders)
    config = {"gain": 5.0, "run": {"workers": 9, "steps": 2}, "gone": 1}  # workers: free to change
    record = runs[0].identity | {"status": "finished", "run": {"config": config}}
    write_json(runs[0].record, record)
    started = runs[1].identity | {"config": {"scales": [1.0, 2.0]}}
    write_json(runs[1].folder / "study.json", started)
    reasons = ["gain was 5.0, now 1.0", "scales was [1.0, 2.0], now [1.0]"]
    assert [line.rpartition(": ")[2] for line in foreign(runs)] == reasons


def test_a_record_that_the_declaration_does_not_know_is_foreign(place):
    runs = plan(place.declare(), "cpu", **place.folders)
    write_json(runs[0].record.with_name("ghost-seed0.json"), {"status": "finished"})
    with pytest.raises(ValueError, match="has no such run"):
        require_none_foreign(runs)


def test_committed_means_exactly_as_git_has_it(place, monkeypatch):
    study = place.declare()
    assert is_committed(study.path) is None
    for key, value in {"NAME": "a", "EMAIL": "a@b.c"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key}", value)

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=place.declared, check=True, capture_output=True)

    git("init")
    assert is_committed(study.path) is False
    git("add", ".")
    assert is_committed(study.path) is False
    git("commit", "-m", "x")
    assert is_committed(study.path) is True
    place.declare(margin=0.5)
    assert is_committed(study.path) is False


MOVED = ("backbone", "aux_level", "input_stats", "beta", "certainty")
"""Settings of methods in which a preset `toy` has moved on."""


@pytest.mark.parametrize("name", ["acr", "cosa", "precision", "tscd"])
def test_a_preset_that_moved_on_leaves_old_records_as_they_are(name, tmp_path):
    study = read_declaration(name)
    runs = {run.name: run for run in plan(study, "cpu", tmp_path, find_records())}
    recorded = {k: read_json(run.record) for k, run in runs.items() if run.record.is_file()}
    assert recorded
    for key, record in recorded.items():
        there, here = flat(record["run"]["config"]), flat(plain(runs[key].config))
        for path in ("backbone", *(f"method.{key}" for key in MOVED)):
            assert there.get(path) == here.get(path) or path not in there, (key, path)
    anew = dataclasses.replace(study, sha256="0" * 64)  # the same, declared today
    fresh = {run.name: run.config for run in plan(anew, "cpu", tmp_path, tmp_path)}
    assert any(fresh[key] != run.config for key, run in runs.items())


def test_former_settings_are_of_declarations_that_are_there():
    assert set(FORMER) <= {read_declaration(name).sha256 for name in declared_names()}
