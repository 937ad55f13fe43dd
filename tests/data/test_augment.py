import torch

from wsss_lab import IGNORE
from wsss_lab.data.augment import augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_mask_moves_with_the_image():
    images = torch.rand(16, 3, 20, 24)
    masks = (images[:, 0] > 0.5).long()
    moved, moved_masks = augment(images, masks, generator=generator(), shift=5, jitter=0)
    seen = moved_masks != IGNORE
    assert torch.equal((moved[:, 0] > 0.5).long()[seen], moved_masks[seen])
    assert seen.float().mean() < 1  # something was shifted in from outside
    assert not torch.equal(moved, images)


def test_nothing_to_do_changes_nothing():
    images, masks = torch.rand(3, 3, 8, 8), torch.randint(0, 5, (3, 8, 8))
    moved, moved_masks = augment(
        images, masks, generator=generator(), shift=0, flip=False, jitter=0
    )
    assert torch.equal(moved, images)
    assert torch.equal(moved_masks, masks)


def test_flip_is_a_mirror_for_about_half():
    images = torch.rand(200, 3, 4, 6)
    moved, _ = augment(images, generator=generator(), shift=0, jitter=0)
    mirrored = (moved == images.flip(-1)).all((1, 2, 3))
    assert torch.equal(moved[~mirrored], images[~mirrored])
    assert 70 < mirrored.sum() < 130


def test_same_generator_state_same_result():
    images = torch.rand(4, 3, 16, 16)
    first, _ = augment(images, generator=generator(7))
    second, _ = augment(images, generator=generator(7))
    assert torch.equal(first, second)
    assert first.min() >= 0
    assert first.max() <= 1
