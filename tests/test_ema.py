import copy

import pytest
import torch
from torch import nn

from wsss_lab.ema import MomentumTeacher


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def test_teacher_starts_as_its_network_and_has_no_parameters():
    student = network()
    teacher = MomentumTeacher(copy.deepcopy(student), 0.9)
    assert list(teacher.parameters()) == []
    assert set(teacher.state_dict()) == {f"network.{key}" for key in student.state_dict()}
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(teacher(x), student.eval()(x))
    assert not teacher(x.requires_grad_()).requires_grad


def test_teacher_follows_by_the_formula():
    student, start = network(0), network(1)
    teacher = MomentumTeacher(copy.deepcopy(start), 0.75)
    for _ in range(3):
        teacher.update(student)
    slow = teacher.network.state_dict()
    fast, old = student.state_dict(), start.state_dict()
    for name, _ in student.named_parameters():
        expected = 0.75**3 * old[name] + (1 - 0.75**3) * fast[name]
        torch.testing.assert_close(slow[name], expected)


def test_teacher_copies_running_statistics_and_stays_in_evaluation_mode():
    student = network()
    teacher = MomentumTeacher(copy.deepcopy(student), 0.9).train()
    assert not any(module.training for module in teacher.modules())
    before = teacher.network[1].running_mean.clone()
    teacher(torch.randn(4, 3, 6, 6))
    assert torch.equal(teacher.network[1].running_mean, before)
    student.train()(torch.randn(4, 3, 6, 6))
    teacher.update(student)
    assert torch.equal(teacher.network[1].running_mean, student[1].running_mean)
    assert not torch.equal(teacher.network[1].running_mean, before)


def test_teacher_does_not_share_memory_with_the_student():
    student = network()
    teacher = MomentumTeacher(copy.deepcopy(student), 0.9)
    before = teacher.network[0].weight.clone()
    with torch.no_grad():
        student[0].weight.add_(1)
    assert torch.equal(teacher.network[0].weight, before)


def test_teacher_refuses_nonsense():
    with pytest.raises(ValueError, match="momentum"):
        MomentumTeacher(network(), 1.5)
    teacher = MomentumTeacher(nn.Linear(2, 2, bias=False), 0.9)
    with pytest.raises(ValueError, match="student has 1 weights"):
        teacher.update(nn.Linear(2, 2))
