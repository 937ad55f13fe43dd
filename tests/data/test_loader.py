import pytest
import torch

from wsss_lab.data.loader import StepSampler


def test_an_epoch_sees_every_image_once():
    sampler = StepSampler(12, 4, seed=3)
    epoch = torch.cat([sampler[step] for step in range(3)])
    assert sorted(epoch.tolist()) == list(range(12))


def test_any_step_is_known_without_replay():
    forwards = StepSampler(10, 3, seed=1)
    walked = [forwards[step].tolist() for step in range(9)]
    jumped = [StepSampler(10, 3, seed=1)[step].tolist() for step in (8, 0, 5)]
    assert jumped == [walked[8], walked[0], walked[5]]


def test_epochs_and_seeds_differ():
    sampler = StepSampler(50, 50)
    assert sampler[0].tolist() != sampler[1].tolist()
    assert sampler[0].tolist() != StepSampler(50, 50, seed=1)[0].tolist()


def test_too_few_images():
    with pytest.raises(ValueError, match="at least one batch of 8 images, got 5"):
        StepSampler(5, 8)
