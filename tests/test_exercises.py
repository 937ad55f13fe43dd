"""The exercise mechanism, and every registered exercise: right answers in, wrong ones out."""

import importlib
import pkgutil

import pytest

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
