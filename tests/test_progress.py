"""Progress: lines with the time left, numbered headings, and bars that no line collides with."""

import io
import sys

import pytest

from wsss_lab import progress
from wsss_lab.config import RunConfig
from wsss_lab.progress import Countdown, Headings, above_bars, close_bars, open_bar
from wsss_lab.train.log import line, steadfast


class Terminal(io.StringIO):
    def isatty(self):
        return True


def ticking(*seconds):
    return iter(seconds).__next__


def test_lines_come_every_ten_seconds_and_at_the_end():
    lines = []
    counter = Countdown("labels", 40, lines.append, clock=ticking(0, 5, 10, 12, 20))
    for _ in range(4):
        counter.add(10)
    assert lines == [
        "labels: 20/40 images  2 images/s  0:00:10 left",
        "labels: 40/40 images  2 images/s  0:00:00 left",
    ]


def test_a_brief_one_is_silent_where_it_is_quick():
    lines = []
    counter = Countdown("eval", 20, lines.append, brief=True, clock=ticking(0, 1, 2))
    counter.add(10)
    counter.add(10)
    assert lines == []


def test_headings_are_numbered_and_name_what_a_stage_leaves():
    lines = []
    headings = Headings(lines.append, 2)
    headings.open("tags", "a network learns", "tags/model.safetensors")
    headings.open("evaluate", "scores", "metrics.json")
    assert lines[0] == "\n1/2 tags: a network learns\n    leaves tags/model.safetensors"
    assert lines[1].startswith("\n2/2 evaluate: ")


def test_there_is_no_bar_outside_of_a_terminal(capsys):
    Countdown("labels", 4, print, clock=ticking(0, 1)).add(4)
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    assert not progress.in_terminal()


def test_a_line_stands_above_the_bar_in_a_terminal(monkeypatch):
    screen = Terminal()  # both streams of one terminal
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr(sys, "stdout", screen)
    counter = Countdown("labels", 4, print, clock=ticking(0, 1, 2))
    counter.add(2)
    assert "labels" in screen.getvalue()
    steadfast(print)("a line")
    before, _, after = screen.getvalue().partition("a line\n")
    assert before.rpartition("\r")[2] == ""  # the bar's row is empty where the line begins
    assert set(before.split("\r")[-2]) == {" "}
    assert after.startswith("\r")
    assert "labels" in after  # and the bar is drawn again below
    counter.add(2)
    assert screen.getvalue().endswith("0:00:00 left\n") or "\r" in screen.getvalue()
    assert not [bar for bar in progress._OPEN if not bar.disable]


def test_bars_go_before_the_last_words(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = open_bar(5, 1, "step", shown=True)
    assert not bar.disable
    close_bars()
    assert bar.disable
    with above_bars():
        pass


@pytest.mark.parametrize(("speed", "text"), [(0.123, "0.12"), (2.0, "2"), (34.6, "35")])
def test_slow_speeds_are_not_rounded_to_nothing(speed, text):
    assert progress.speed_text(speed) == text


def test_the_only_term_of_a_loss_is_not_printed_twice():
    entry = {"step": 0, "loss": 1.25, "tags": 1.25, "lr_factor": 1.0, "images_per_s": 0.5}
    text = line(entry, RunConfig(steps=10, batch=4), 1e-3)
    assert "loss 1.2500  lr" in text
    assert len(text) <= 80
    assert "tags 0.5000" in line({**entry, "tags": 0.5}, RunConfig(steps=10, batch=4), 1e-3)
