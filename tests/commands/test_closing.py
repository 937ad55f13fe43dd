"""The closing block of a training: where results are, the headline numbers, what to do next."""

import shlex
from types import SimpleNamespace

import pytest

from wsss_lab import registry
from wsss_lab.__main__ import main
from wsss_lab.commands.closing import closing, command_line, headlines


def scored(miou, told=False):
    return {"miou": miou, "protocol": {"split": "toy val", "tags_at_test": told}}


RESULTS = {"val": {"seg": scored(0.5), "seg+true tags": scored(0.75, True), "tags": {"map": 0.9}}}


def test_headlines_keep_the_oracle_apart():
    assert headlines(RESULTS) == [
        "mIoU in %",
        "   50.00  seg, toy val",
        "  with the true tags (an oracle):",
        "   75.00  seg, toy val",
    ]


def test_a_run_without_truth_gives_the_reason():
    results = {"val": {}, "no_score": "no pixel truth"}
    assert headlines(results) == ["not scored: no pixel truth"]


def test_files_that_are_there_are_named_and_commands_can_be_copied(tmp_path):
    run = tmp_path / "my run"
    (run / "labels").mkdir(parents=True)
    for name in ("model.safetensors", "metrics.json"):
        (run / name).touch()
    text = closing("cosa", run, {"results": RESULTS})
    rows = text.splitlines()
    assert rows[1] == f"done: results in {run}"
    assert any(row.startswith("  labels/ ") for row in rows)
    assert not any("overlays" in row for row in rows)
    commands = [shlex.split(row) for row in rows[rows.index("next") + 1 :]]
    assert commands[0][3:] == ["predict", "PHOTOS", "--weights", str(run), "--out", "MASKS"]
    assert commands[1][3:] == ["eval", "cosa", "--weights", str(run)]
    unscored = closing("cosa", run, {"results": {"val": {}, "no_score": "no truth"}})
    assert "eval" not in unscored


def test_files_in_use_are_part_of_commands(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_USED", {"x": tmp_path / "mine.py"})
    assert command_line("eval", "mine").endswith(f"eval mine --use {tmp_path}/mine.py")


@pytest.fixture
def recipe(monkeypatch):
    """A recipe that trains nothing."""
    from wsss_lab.recipes.cam_baseline import RECIPE
    from wsss_lab.runs import recipe as module

    fake = SimpleNamespace(**{name: getattr(RECIPE, name) for name in (
        "name", "summary", "config", "presets", "preset",
    )}, train=lambda config, out, resume: {"results": RESULTS})  # fmt: skip
    monkeypatch.setattr(module, "find_recipe", lambda name: fake)
    return fake


def test_train_ends_with_the_block(recipe, tmp_path, capsys):
    assert main(["train", "cam_baseline", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert f"done: results in {tmp_path}" in out
    assert "50.00  seg, toy val" in out


def test_an_interrupted_one_with_the_command_that_goes_on(recipe, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    recipe.train = interrupt
    monkeypatch.setattr(registry, "_USED", {"x": tmp_path / "mine.py"})
    assert main(["train", "cam_baseline", "--out", str(tmp_path)]) == 130
    err = capsys.readouterr().err
    assert f"--out {tmp_path} --resume --use {tmp_path}/mine.py" in err
