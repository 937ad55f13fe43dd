"""Runs an example inside the tests' process: what a fresh one would only add is its imports.

The baseline's example runs in a process of its own, as a reader starts it.
"""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def printed_by(monkeypatch, capsys):
    """`printed_by("cosa.py", "--steps", "2")` -> standard output; an error comes through."""

    def run(name, *words):
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run
