"""Oracle teachers: whose label becomes the truth, where, and what stays as it was."""

import pytest
import torch
from tiny_asdt import PULSE, QUIET, SIDE, K, batch, make, settings, step, toward_b

from wsss_lab import IGNORE
from wsss_lab.methods.asdt.arms import ARMS, ORACLES, arm
from wsss_lab.methods.asdt.labels import TeacherLabel
from wsss_lab.methods.asdt.losses import hard_distillation
from wsss_lab.methods.asdt.oracle import Lesson, oracle_lesson
from wsss_lab.ranges import SettingError

A = torch.tensor([[[0, 1, IGNORE, IGNORE]]])
B = torch.tensor([[[0, 0, 0, 2]]])
TRUTH = torch.tensor([[[1, 1, 2, IGNORE]]])


def teacher(label):
    return TeacherLabel(label, torch.full((1, 2, 1, 4), 0.5), torch.tensor([[0, 1]]))


def labels(oracle, background=True):
    lesson = oracle_lesson(oracle, Lesson(teacher(A), teacher(B)), TRUTH, background)
    return lesson.a.label[0, 0].tolist(), lesson.b.label[0, 0].tolist()


def test_truth_goes_where_the_name_says():
    a, b = A[0, 0].tolist(), B[0, 0].tolist()
    assert labels("none") == (a, b)
    assert labels("a") == ([1, 1, IGNORE, IGNORE], b)
    assert labels("b") == (a, [1, 1, 2, IGNORE])
    assert labels("silence") == (a, [IGNORE, IGNORE, 2, IGNORE])


def test_without_background_values_are_classes():
    assert labels("b", background=False)[1] == [0, 0, 1, IGNORE]


def test_a_step_without_teacher_b_has_none():
    lesson = oracle_lesson("b", Lesson(teacher(A), None), TRUTH)
    assert lesson.b is None
    assert torch.equal(lesson.a.label, A)


def masks(seed=1):
    return torch.randint(0, K + 1, (3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("oracle", ["a", "b", "silence"])
def test_only_the_students_lesson_changes(oracle):
    at = QUIET if oracle == "a" else PULSE
    plain = step(toward_b(), at=at)
    told = step(toward_b(oracle=oracle), at=at, masks=masks())
    mine = "student_ce" if oracle == "a" else "student_kd"
    for name, value in plain.parts.items():
        assert torch.equal(value, told.parts[name]) == (name != mine), name
    assert torch.equal(plain.panels["a_label"], told.panels["a_label"])


def test_the_pulse_of_oracle_b_is_cross_entropy_with_the_truth():
    truth = masks()
    out = step(toward_b(oracle="b"), masks=truth)
    wanted = hard_distillation(out.panels["student_logits"], truth)
    torch.testing.assert_close(out.parts["student_kd"], wanted)


def test_an_oracle_without_truth_says_what_is_missing():
    with pytest.raises(ValueError, match="masks: expected pixel truth in the batch"):
        step(make(oracle="b"))
    assert "masks" not in batch()


def test_oracle_arms_change_one_teacher_of_a_known_arm():
    for name, changes in ORACLES.items():
        bare = {key: value for key, value in changes.items() if key != "oracle"}
        assert bare in ARMS.values(), name
        assert arm(name, settings()).oracle != "none"


@pytest.mark.parametrize("changes", [{"kd": "soft_kl"}, {"selection": "soft_mean"}])
def test_an_oracle_of_probabilities_is_refused(changes):
    with pytest.raises(SettingError, match="hard label of one teacher"):
        settings(oracle="b", **changes)
