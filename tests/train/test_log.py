"""The log: a line of text, a row of log.csv, TensorBoard when it is there."""

import csv
import dataclasses
import io
import sys
import types

import pytest

from wsss_lab.config import OutputError, RunConfig
from wsss_lab.train import log
from wsss_lab.train.log import Journal, line, progress_bar, steadfast

RUN = RunConfig(steps=1000, batch=4)
ENTRY = {"step": 99, "loss": 1.25, "tags": 0.5, "lr_factor": 0.5, "images_per_s": 2.0}


def rows(folder):
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_line_tells_step_losses_rate_speed_time_to_go_and_memory():
    text = line(ENTRY, RUN, peak_lr=1e-3)
    assert text.startswith("step   100/1000  loss 1.2500  tags 0.5000  lr 5.0e-04  2 images/s")
    assert "0:30:00 left" in text  # 900 steps of 4 images at 2 images/s
    assert text.endswith(" GB")
    assert 0.01 < float(text.split()[-2]) < 1000


def test_rows_are_appended_and_can_be_read_back(tmp_path):
    journal = Journal(RUN, 1e-3, tmp_path)
    for step in (0, 50):
        journal.count(200)
        journal.enter(step, {"loss": 0.1 + step, "tags": 0.2}, 0.5)
    found = rows(tmp_path)
    assert [float(row["loss"]) for row in found] == [0.1, 50.1]
    assert [entry["step"] for entry in journal.history] == [0, 50]
    assert float(found[1]["images_per_s"]) == journal.history[1]["images_per_s"] > 0


def test_a_term_that_begins_later_gets_a_column(tmp_path):
    journal = Journal(RUN, 1e-3, tmp_path)
    journal.enter(0, {"loss": 1.0}, 0.5)
    journal.enter(1, {"loss": 2.0, "pixels": 3.0}, 0.5)
    journal.enter(2, {"loss": 4.0}, 0.5)
    assert [row["pixels"] for row in rows(tmp_path)] == ["", "3.0", ""]


def test_a_resumed_run_writes_its_history_anew(tmp_path):
    (tmp_path / "log.csv").write_text("step,loss\n0,1\n50,1\n100,")
    Journal(RUN, 1e-3, tmp_path, history=[ENTRY])
    assert [row["step"] for row in rows(tmp_path)] == ["99"]


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = []
    Journal(RUN, 1e-3, log=lines.append).enter(0, {"loss": 1.0}, 0.5)
    assert len(lines) == 1
    assert not list(tmp_path.iterdir())


def test_a_log_that_cannot_be_begun_is_an_output_error(tmp_path):
    (tmp_path / "log.csv").mkdir()
    with pytest.raises(OutputError, match=r"log\.csv: cannot be written"):
        Journal(RUN, 1e-3, tmp_path)


def test_a_log_on_a_full_disk_does_not_end_a_training_and_gets_its_rows_later(tmp_path):
    lines = []
    journal = Journal(RUN, 1e-3, tmp_path, log=lines.append)
    journal.enter(0, {"loss": 1.0}, 0.5)
    (tmp_path / "log.csv").unlink()
    (tmp_path / "log.csv").mkdir()
    for step in (1, 2):
        journal.enter(step, {"loss": 1.0}, 0.5)
    remarks = [line for line in lines if "cannot be written" in line]
    assert len(remarks) == 1
    assert remarks[0].endswith("training goes on")
    (tmp_path / "log.csv").rmdir()
    journal.enter(3, {"loss": 1.0}, 0.5)
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2", "3"]


def test_rows_that_had_no_room_are_written_at_the_end(tmp_path):
    journal = Journal(RUN, 1e-3, tmp_path)
    (tmp_path / "log.csv").unlink()
    (tmp_path / "log.csv").mkdir()
    journal.enter(0, {"loss": 1.0}, 0.5)
    (tmp_path / "log.csv").rmdir()
    journal.close()
    assert [row["step"] for row in rows(tmp_path)] == ["0"]


def test_a_reader_that_leaves_costs_lines_not_the_run(capsys):
    lines = []

    def log(line):
        if len(lines) == 2:
            raise BrokenPipeError(32, "Broken pipe")
        lines.append(line)

    steady = steadfast(log)
    assert steadfast(steady) is steady
    for number in range(5):
        steady(str(number))
    assert lines == ["0", "1"]
    assert capsys.readouterr().err.count("Broken pipe; the run goes on") == 1


def test_other_errors_of_a_log_are_not_hidden():
    with pytest.raises(ValueError, match="a defect"):
        steadfast(lambda line: exec("raise ValueError('a defect')"))("line")


def test_a_progress_bar_outlives_its_terminal(monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys, "stderr", Gone())
    bar = progress_bar(RUN, 0, True)
    bar.update(1)
    bar.close()
    assert bar.n == 1


def test_tensorboard_that_is_not_installed_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    run = dataclasses.replace(RUN, tensorboard=True)
    with pytest.raises(ValueError, match="tensorboard: asked for, but not installed"):
        Journal(run, 1e-3, tmp_path)


def test_tensorboard_gets_every_number_and_forgets_a_killed_run(tmp_path, monkeypatch):
    calls = []

    class Writer:
        def __init__(self, folder, purge_step):
            calls.append((folder, purge_step))

        def add_scalar(self, name, value, step):
            calls.append((name, value, step))

        def close(self):
            calls.append("closed")

    fake = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    run = dataclasses.replace(RUN, tensorboard=True)
    journal = Journal(run, 1e-3, tmp_path, history=[ENTRY])
    journal.enter(100, {"loss": 2.0}, 0.5)
    journal.close()
    assert calls[0] == (str(tmp_path / "tensorboard"), 100)
    assert ("loss", 2.0, 100) in calls
    assert calls[-1] == "closed"


def test_no_progress_bar_unless_asked_for(capsys):
    progress_bar(RUN, 0, shown=False).update(5)
    assert capsys.readouterr().err == ""
    bar = progress_bar(RUN, 10, shown=True)
    bar.update(5)
    bar.close()
    assert "15/1000" in capsys.readouterr().err


def test_memory_is_that_of_this_process():
    assert 0.05 < log.memory() < 500
