"""Runs are started, stopped, killed and gone on with; failures stay with the run they belong to."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wsss_lab.config import write_json
from wsss_lab.studies import load_study
from wsss_lab.studies.__main__ import main
from wsss_lab.studies.aggregate import aggregate
from wsss_lab.studies.clock import Clock
from wsss_lab.studies.one import BUSY
from wsss_lab.studies.one import main as one_main
from wsss_lab.studies.plan import State, plan, state
from wsss_lab.studies.run_lock import hold, is_held
from wsss_lab.studies.runner import run_study

HERE = Path(__file__).parent
PROGRAM = (str(HERE / "fake_study.py"),)
ONE_SEED = {"seeds": [0]}
SEARCHED = os.pathsep.join([str(HERE.parent.parent), *sys.path])


@pytest.fixture(autouse=True)
def package_on_path(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", SEARCHED)


def go(place, study, **options):
    lines = []
    options = {"program": PROGRAM, "log": lines.append, "jobs": 2} | options
    return run_study(study, "cpu", **place.folders, **options), lines


def wait_for(happened, seconds=60):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def starts(**tags):
    begin = {"arm": "tags", "file": "weights.txt"}
    arms = {
        "high": {"what": "gain of two", "start": begin, "settings": {"gain": 2}},
        "low": {"what": "gain of one", "start": begin},
        "tags": {"what": "tags alone", "settings": {"run.steps": 1, **tags}},
    }
    return {"arms": arms, "seeds": [0, 2]}


@pytest.fixture(scope="module")
def chained(shared_place):
    """Folders, declaration and ends of six runs; four begin with the network of another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", SEARCHED)
        study = shared_place.declare(**starts())
        return shared_place, study, go(shared_place, study)[0].ends


def test_arms_begin_with_the_network_of_another_arm_and_the_same_seed(chained):
    place, _, ends = chained
    assert len(ends) == 6
    assert set(ends.values()) == {"finished"}
    folder = place.records / "fake" / "cpu"
    for seed in (0, 2):
        first, again = (random.Random(f"{seed} {step}").random() for step in (0, 1))
        found = json.loads((folder / f"high-seed{seed}.json").read_text())
        assert found["metrics"]["score"] == pytest.approx(first + 2 * (first + again))
        assert found["run"]["config"]["start"] == f"tags-seed{seed}/weights.txt"
        assert str(place.work) not in json.dumps(found)


def test_records_are_those_of_their_declaration_and_nothing_is_run_twice(chained):
    place, study, ends = chained
    again, lines = go(place, study, program=("-c", "raise SystemExit(9)"))
    assert again.ends == ends
    assert not any("started" in line for line in lines)


def test_weights_that_are_gone_are_trained_again_and_their_record_stays(place, chained):
    """Another machine: records are there, runs are not."""
    shutil.copytree(chained[0].records, place.records)
    study = place.declare(**starts())
    folder = place.records / "fake" / "cpu"
    before = (folder / "tags-seed0.json").read_bytes()
    (folder / "low-seed0.json").unlink()
    outcome, lines = go(place, study)
    assert set(outcome.ends.values()) == {"finished"}
    started = [line.split(":")[0] for line in lines if ": started" in line]
    assert started == ["tags-seed0", "low-seed0"]
    assert (folder / "tags-seed0.json").read_bytes() == before
    first, again = (random.Random(f"0 {step}").random() for step in (0, 1))
    found = json.loads((folder / "low-seed0.json").read_text())
    assert found["metrics"]["score"] == pytest.approx(first + first + again)


def test_arms_wait_in_vain_for_a_start_that_failed(place):
    outcome, _ = go(place, place.declare(**starts(fail_at=0)))
    assert set(outcome.failed) == {"tags-seed0", "tags-seed2"}
    assert {outcome.ends[f"{arm}-seed0"] for arm in ("low", "high")} == {"not started"}


@pytest.mark.parametrize(
    ("begin", "why"),
    [
        ({"arm": "low"}, "has no start itself"),
        ({"arm": "none"}, "has no start itself"),
        ({"file": "x"}, "missing"),
    ],
)
def test_starts_that_cannot_be(place, begin, why):
    arms = starts()["arms"]
    arms["high"]["start"] = begin
    with pytest.raises(ValueError, match=why):
        place.declare(arms=arms)


def test_files_are_kept_beside_the_record(place):
    study = place.declare(keep=["metrics.json"], **ONE_SEED)
    outcome, _ = go(place, study)
    assert set(outcome.ends.values()) == {"finished"}
    kept = place.records / "fake" / "cpu" / "low-seed0.metrics.json"
    run = place.work / "fake" / "cpu" / "low-seed0" / "run"
    assert kept.read_bytes() == (run / "metrics.json").read_bytes()
    assert go(place, study)[0].ends == outcome.ends  # they are no foreign runs
    aggregate(study, "cpu", **place.folders)


def test_kept_files_stay_with_their_record_when_weights_are_trained_again(place):
    study = place.declare(keep=["metrics.json"], **starts() | {"seeds": [0]})
    go(place, study)
    folder = place.records / "fake" / "cpu"
    kept = folder / "tags-seed0.metrics.json"
    kept.write_text("of the first machine")
    shutil.rmtree(place.work)
    (folder / "low-seed0.json").unlink()
    outcome, lines = go(place, study)
    assert set(outcome.ends.values()) == {"finished"}
    assert any("tags-seed0: started" in line for line in lines)
    assert kept.read_text() == "of the first machine"


@pytest.mark.parametrize(
    ("file", "most", "why"),
    [("metrics.json", 10, "more than 10"), ("other.npz", 10**6, "the run left no other.npz")],
)
def test_files_that_are_missing_or_large_fail_the_run(place, monkeypatch, file, most, why):
    monkeypatch.setattr("wsss_lab.studies.records.KEEP_BYTES", most)
    outcome, lines = go(place, place.declare(keep=[file], **ONE_SEED))
    assert set(outcome.ends.values()) == {"failed"}
    assert sum("keep: " in line and why in line for line in lines) == 2


def test_a_failure_is_recorded_and_stops_no_other(place):
    arms = {
        "bad": {"what": "fails", "settings": {"fail_at": 1}},
        "low": {"what": "gain of one"},
    }
    study = place.declare(arms=arms, **ONE_SEED)
    outcome, lines = go(place, study, revision="abc")
    assert outcome.ends == {"bad-seed0": "failed", "low-seed0": "finished"}
    assert outcome.failed == ["bad-seed0"]
    assert any("Reduced profile" in line for line in lines)
    assert lines[-1].endswith("2 runs: 1 failed, 1 finished")

    records = place.records / "fake" / "cpu"
    bad, low = (json.loads((records / f"{arm}-seed0.json").read_text()) for arm in ("bad", "low"))
    assert bad["error"] == "FloatingPointError: loss is nan at step 1 in RUN/run"
    for record in (bad, low):
        assert record["declaration_sha256"] == study.sha256
        assert (record["reduced"], record["profile"]) == (True, "cpu")
        assert record["git"]
    assert low["metrics"]["score"] == low["run"]["results"]["val"]["score"]
    assert low["run"]["config"]["data"]["root"] is None
    folder = place.work / "fake" / "cpu" / "low-seed0"
    assert not list(folder.rglob("*.pt"))  # of a finished run, checkpoints are of no more use
    log = (folder / "log.txt").read_text()
    assert "Reduced profile" in log
    assert "step 2" in log
    assert "Traceback" in (place.work / "fake" / "cpu" / "bad-seed0" / "log.txt").read_text()

    before = (records / "low-seed0.json").stat().st_mtime_ns
    outcome, lines = go(place, study, program=("-c", "raise SystemExit(9)"), retry=True)
    assert outcome.ends == {"bad-seed0": "failed", "low-seed0": "finished"}
    assert json.loads((records / "bad-seed0.json").read_text())["error"] == "ended with exit code 9"
    assert (records / "low-seed0.json").stat().st_mtime_ns == before

    outcome, lines = go(place, study, program=("-c", "raise SystemExit(9)"))
    assert not any("started" in line for line in lines)  # without retry, failed is failed
    aggregate(study, "cpu", **place.folders)
    result = load_study("fake", records=place.records, declared=place.declared)
    assert result.missing == ["bad-seed0 (failed: ended with exit code 9)"]
    assert not result.complete


def test_a_killed_runner_takes_its_runs_along_and_the_next_one_goes_on(place):
    common = {"method": "fake", "preset": "toy", "settings": {"pause": 0.3, "run.steps": 6}}
    study = place.declare(common=common, arms={"low": {"what": "gain of one"}}, **ONE_SEED)
    run = plan(study, "cpu", **place.folders)[0]
    folders = map(str, (place.declared, place.work, place.records))
    command = [sys.executable, *PROGRAM, "runner", *folders]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for((run.folder / "run" / "stage" / "checkpoints" / "step_00000002.pt").is_file)
    assert state(run) is State.RUNNING
    first.send_signal(signal.SIGKILL)
    first.wait()
    wait_for(lambda: not is_held(run.folder), 10)
    assert state(run) is State.STARTED

    outcome, _ = go(place, study)
    assert outcome.ends == {"low-seed0": "finished"}
    log = (run.folder / "log.txt").read_text()
    assert "goes on after step" in log
    assert log.count("step 1\n") == 1
    wanted = sum(random.Random(f"0 {step}").random() for step in range(6))
    found = json.loads(run.record.read_text())["metrics"]["score"]
    assert found == pytest.approx(wanted, rel=1e-12)


def test_the_time_is_kept_and_runs_stop_at_a_checkpoint(place):
    pause = {"pause": 0.3, "run.steps": 1000, "run.save_every": 2}
    common = {"method": "fake", "preset": "toy", "settings": pause}
    study = place.declare(common=common)
    clock = Clock()
    folder = place.work / "fake" / "cpu" / "low-seed0"
    newest = folder / "run" / "stage" / "checkpoints" / "step_00000002.pt"

    def log(line):
        if "started" in line:
            wait_for(newest.is_file)
            clock.wind_down, clock.end = time.monotonic(), time.monotonic() + 120

    outcome, _ = go(place, study, jobs=1, clock=clock, log=log)
    assert not clock.over  # a checkpoint came before the end
    assert list(outcome.ends.values()) == ["stopped"] + 3 * ["not started"]
    assert not outcome.failed
    assert max(newest.parent.glob("step_*.pt")) > newest  # and was waited for


def test_a_clock_closes_before_it_ends_and_a_signal_closes_it():
    clock = Clock(10)
    assert clock.end - clock.wind_down == pytest.approx(60)
    assert Clock(1).end - Clock(1).wind_down == pytest.approx(6, abs=0.1)
    assert not clock.closing
    with clock.listening():
        os.kill(os.getpid(), signal.SIGINT)
        assert clock.closing
        assert not clock.over
        os.kill(os.getpid(), signal.SIGINT)
        assert clock.over
    with pytest.raises(ValueError, match="minutes: expected more than 0"):
        Clock(0)


def test_a_run_that_takes_too_long_is_stopped_and_failed(place):
    profiles = {key: {"what": "x", "run_minutes": 0.005} for key in ("full", "cpu")}
    study = place.declare(profiles=profiles, **ONE_SEED)
    outcome, _ = go(place, study, program=("-c", "import time; time.sleep(99)"))
    assert set(outcome.ends.values()) == {"failed"}
    record = json.loads((place.records / "fake" / "cpu" / "low-seed0.json").read_text())
    assert record["error"] == "took longer than its 0.005 minutes"


def test_a_finished_run_whose_runner_was_killed_is_recorded_without_running(place):
    study = place.declare(**ONE_SEED)
    runs = plan(study, "cpu", **place.folders)
    for run in runs:
        told = {"git": "abc", "declaration_committed": None}
        write_json(run.folder / "study.json", run.identity | told)
        results = {"val": {"score": 0.5, "odd": None}} if run.arm == "low" else {"val": {}}
        write_json(run.folder / "run" / "metrics.json", {"results": results, "config": {}})
    outcome, _ = go(place, study, program=("-c", "raise SystemExit(9)"))
    assert outcome.ends == {"low-seed0": "finished", "high-seed0": "failed"}
    error = json.loads(runs[1].record.read_text())["error"]
    assert error == "ValueError: metric 'val.score': there is no 'score', but []"


def test_two_processes_never_work_on_one_run(place):
    place.work.mkdir()
    with hold(place.work) as mine:
        assert mine
        assert is_held(place.work)
        with hold(place.work, 0.2) as other:
            assert not other
    assert not is_held(place.work)
    study = place.declare(**ONE_SEED)
    outcome, _ = go(place, study, program=("-c", f"raise SystemExit({BUSY})"))
    assert set(outcome.ends.values()) == {"running elsewhere"}
    assert not outcome.failed


def test_nothing_starts_that_should_not(place, monkeypatch):
    study = place.declare()
    with pytest.raises(ValueError, match="jobs: expected at least 1"):
        go(place, study, jobs=0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="full needs a GPU"):
        run_study(study, "full", **place.folders)
    monkeypatch.setattr("wsss_lab.studies.runner.is_committed", lambda path: False)
    with pytest.raises(ValueError, match="commit it first"):
        go(place, study)
    monkeypatch.setattr("wsss_lab.studies.runner.is_committed", lambda path: True)
    run = plan(study, "cpu", **place.folders)[0]
    write_json(run.folder / "study.json", run.identity)
    with pytest.raises(ValueError, match="foreign"):
        go(place, place.declare(margin=0.3))
    assert not place.records.exists()


TINY = {
    "run.steps": 2,
    "run.batch": 2,
    "mask_steps": 1,
    "hidden": 8,
    "report_train": 2,
    "data.count": 4,
    "data.val_count": 2,
    "data.size": 32,
    "data.crop": 32,
}


def test_the_cam_baseline_runs_from_the_command_line(place, monkeypatch, tmp_path, capsys):
    """The study that is declared, its arms as they are, at a size at which numbers mean nothing."""
    import yaml

    from wsss_lab.studies.declare import DECLARED

    content = yaml.safe_load((DECLARED / "cam_baseline.yaml").read_text())
    arms = {name: content["arms"][name] for name in ("gap_single", "gmp_multi")}
    profiles = content["profiles"] | {"cpu": {"what": "x", "run_minutes": 3, "settings": TINY}}
    changes = {"arms": arms, "profiles": profiles, "seeds": [3]}
    study = place.declare("small", **content | changes)
    failed = plan(study, "cpu", **place.folders)[1]
    write_json(failed.record, failed.identity | {"status": "failed", "error": "OSError: no"})
    monkeypatch.chdir(tmp_path)
    folders = ["--declared", "declared", "--work", "work", "--records", "records"]
    assert main(["run", "small", "--profile", "cpu", "--jobs", "2", *folders]) == 1
    said = capsys.readouterr()
    assert "failed: small/gmp_multi-seed3" in said.err
    assert "2 runs: 1 finished, 1 failed" in said.out
    result = load_study("small", records=Path("records"), declared=Path("declared"))
    assert result.arms["gap_single"].metrics["mask_miou"].n == 1
    assert result.provenance["protocols"]["mask_miou"][0]["images"] == 2
    assert result.arms["gmp_multi"].verdict == "incomplete"
    assert main(["aggregate", "small", *folders]) == 1
    assert main(["status", "small", "--profile", "cpu", *folders]) == 1
    lines = capsys.readouterr().out
    assert "finished  gap_single-seed3" in lines
    assert "failed    gmp_multi-seed3" in lines
    assert main(["run", "nothing", *folders]) == 2
    assert "expected one of small, got 'nothing'" in capsys.readouterr().err


def test_one_run_in_this_process_reports_its_failure(place):
    run = plan(place.declare(**ONE_SEED), "cpu", **place.folders)[0]
    write_json(run.folder / "study.json", {"method": "fake", "config": {"gian": 1}})
    assert one_main([str(run.folder)]) == 1
    assert "has no settings ['gian']" in (run.folder / "error.json").read_text()
