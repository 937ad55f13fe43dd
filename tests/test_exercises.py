"""The exercise mechanism, and every registered exercise: right answers in, wrong ones out."""

import importlib
import json
import pkgutil
from pathlib import Path

import pytest
import torch

from wsss_lab import exercises


def registered():
    for module in pkgutil.iter_modules(exercises.__path__):
        importlib.import_module(f"{exercises.__name__}.{module.name}")
    return sorted(exercises.REGISTRY)


@pytest.mark.parametrize("name", registered())
def test_every_exercise_tells_right_from_wrong(name):
    exercise = exercises.find(name)
    assert exercises.accepted(exercise, exercise.right())
    assert not exercises.accepted(exercise, exercise.wrong())
    assert not exercises.accepted(exercise, None)
    assert len(exercise.hint.split()) >= 4


# answers as the solutions in the chapters print them; whoever types one of these is right
STATED = {
    "acr-1": ("2", "1", "0"),
    "acr-3": ("0.0035",),
    "acr-5": ("399", "159\\,201"),
    "acr-6": ("0.333",),
    "acr-7": ("0.138",),
    "asdt-1": ("320", "120"),
    "asdt-3": ("5", "0.909"),
    "asdt-5": ("0.081", "0.285"),
    "asdt-6": ("0.167",),
    "asdt-7": ("0.204",),
    "cam-1": ("0.75", "1"),
    "cam-3": ("0.194",),
    "cam-7": ("0.00009",),
    "cam-8": ("8",),
    "cosa-1": ("1155", "0.165"),
    "cosa-3": ("0.679", "0"),
    "cosa-6": ("49",),
    "cosa-7": ("0.340",),
    "data-1": ("42\\,915\\,650",),
    "data-4": ("0.8", "0.5", "0.65"),
    "mix-1": ("0.833", "0.0167"),
    "mix-4": ("111", "0.00139"),
    "refine-1": ("1.105", "0.904"),
    "refine-3": ("0.728", "0.689"),
    "refine-6": ("35",),
    "refine-7": ("0.21",),
    "start-1": ("18 000", "1 501"),
    "start-2": ("1",),
    "start-3": ("180",),
    "start-5": ("0.50", "0.55"),
    "start-7": ("3",),
    "tscd-1": ("0.707",),
    "tscd-4": ("-0.125", "0", "0.05", "0"),
    "tscd-5": ("0.04", "0.64", "0.32", "0.000625"),
    "tscd-7": ("0.48", "0.88"),
    "tscd-8": ("0.5",),
}
BOOK = Path(__file__).parents[1] / "book"


def solution_of(name):
    """Text of a solution in its chapter."""
    notebook = json.loads((BOOK / f"{name.rpartition('-')[0]}.ipynb").read_text())
    texts = ["".join(cell["source"]) for cell in notebook["cells"]]
    (text,) = [text for text in texts if f"{{solution-start}} {name}\n" in text]
    return text


@pytest.mark.parametrize("name", list(STATED))
def test_the_value_that_a_solution_prints_is_accepted(name):
    text, values = solution_of(name), STATED[name]
    if name != "acr-1":  # there the solution describes the order
        assert all(value in text for value in values), text
    numbers = [float(value.replace("\\,", "").replace(" ", "")) for value in values]
    answer = [2, 1, 0, 5, 4, 3] if name == "acr-1" else numbers
    assert exercises.accepted(exercises.find(name), answer[0] if len(answer) == 1 else answer)


def test_every_number_to_find_is_stated():
    """An exercise whose right answer is a number or a few of them is in the list above."""
    for name in registered():
        try:
            right = torch.as_tensor(exercises.find(name).right(), dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            continue  # a function, letters
        assert name in STATED or right.numel() > 6 or name in ("cam-4", "data-6", "start-4"), name


@pytest.fixture
def sample(monkeypatch):
    monkeypatch.setattr(exercises, "REGISTRY", {})
    exercises.register(
        "sample-1",
        accepts=lambda answer: answer[0] == 4,
        hint="Count the cells of the grid once more.",
        right=lambda: [4],
        wrong=lambda: [16],
    )


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([4], "sample-1: correct."),
        ([16], "Hint: Count the cells"),
        (4, "Hint: Count the cells"),  # a kind the check cannot read
        ([], "Hint: Count the cells"),
        (..., "not answered yet"),
    ],
)
def test_check_prints(answer, words, capsys):
    exercises.check("sample-1", answer)
    assert words in capsys.readouterr().out


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize("name", ["sample-2", "nochapter-1", "sample", ""])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match=r"no exercise .*sample-1"):
        exercises.check(name, 1)


@pytest.mark.usefixtures("sample")
@pytest.mark.parametrize(("name", "words"), [("sample-1", "registered already"), ("x", "expected")])
def test_register_refuses(name, words):
    kind = {"accepts": bool, "hint": "", "right": lambda: 1, "wrong": lambda: 0}
    with pytest.raises(ValueError, match=words):
        exercises.register(name, **kind)
