import pickle

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as v2

from wsss_lab.data.config import DataConfig
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.transform import (
    STRONG_OPS,
    TrainingTransform,
    blur,
    jitter,
    squash,
    strong,
    strong_released,
)


@pytest.fixture
def image():
    noise = torch.randint(0, 256, (3, 6, 8)).float()
    smooth = torch.nn.functional.interpolate(noise[None], (40, 60), mode="bicubic")[0]
    return smooth.clamp(20, 235).to(torch.uint8)


def sample(image, **more):
    return {"image": image, "tags": torch.ones(2), "name": "a", **more}


def made(image, seed=0, step=0, mask=None, **settings):
    views = TrainingTransform(DataConfig(**{"crop": 32, "scale": (0.5, 2.0), **settings}))
    more = {} if mask is None else {"mask": mask}
    return views(
        sample(image, **more), np.random.default_rng(seed), np.random.default_rng(1000 + step)
    )


@pytest.mark.parametrize("name", STRONG_OPS)
@pytest.mark.parametrize("magnitude", [1, 5, 9])
def test_both_forms_of_a_strong_operation_agree(image, name, magnitude):
    pillow = strong_released(image, name, magnitude).int()
    assert (strong(image, name, magnitude).int() - pillow).abs().max() <= 1


def test_strong_operations_on_a_batch(image):
    batch = torch.stack([image, image.flip(-1)])
    assert torch.equal(strong(batch, "posterize", 5)[0], strong(image, "posterize", 5))


@pytest.mark.parametrize("function", [strong, strong_released])
def test_unknown_strong_operations(image, function):
    with pytest.raises(ValueError, match=r"name: expected one of identity, .*got 'rotate'"):
        function(image, "rotate", 1)
    with pytest.raises(ValueError, match=r"magnitude: expected 1\.\.9, got 10"):
        function(image, "color", 10)


def test_blur_keeps_flat_colours_and_the_mean(image):
    flat = torch.full((3, 20, 20), 77, dtype=torch.uint8)
    assert torch.equal(blur(flat, 2.0), flat)
    blurred = blur(image, 2.0).float()
    assert blurred.std() < image.float().std()
    assert (blurred.mean() - image.float().mean()).abs() < 2


@pytest.mark.parametrize(
    "factors", [(1, 1, 1), (1.2, 1, 1), (1, 0.7, 1), (1, 1, 1.3), (1, 1, 0), (0.8, 0.9, 1.1)]
)
def test_jitter_against_torchvision_one_by_one(image, factors):
    expected = v2.adjust_brightness(image / 255, factors[0])
    expected = v2.adjust_contrast(expected, factors[1])
    expected = v2.adjust_saturation(expected, factors[2])
    found = jitter(image, np.array(factors, dtype=float))
    assert (found - expected * 255).abs().max() < 2.5  # cut off once, not three times


def test_paired_views_share_their_geometry(image):
    found = [made(image, seed, strong=True) for seed in range(200)]
    assert all(one["strong"].shape == one["image"].shape == (3, 32, 32) for one in found)
    same = sum(torch.equal(one["strong"], one["image"]) for one in found)
    assert 5 < same < 60  # the identity is one of nine
    for one in found:
        y0, y1, x0, x1 = one["box"]
        inner = one["image"][:, y0:y1, x0:x1].float().mean(0).flatten()
        other = one["strong"][:, y0:y1, x0:x1].float().mean(0).flatten()
        assert inner.shape == other.shape


def test_strong_does_not_change_the_first_view(image):
    for seed in range(10):
        plain, paired = made(image, seed), made(image, seed, strong=True)
        assert torch.equal(plain["image"], paired["image"])
        assert "strong" not in plain


def test_one_setting_does_not_move_another(image):
    for seed in range(10):
        boxes = {made(image, seed, **s)["box"] for s in ({}, {"jitter": 0.3}, {"blur": 1.0})}
        assert len(boxes) == 1


def test_mask_moves_along(image):
    height, width = image.shape[1:]
    mask = (image[0] > 128).long()
    binary = (255 * mask).to(torch.uint8).expand(3, -1, -1)
    for form in ("ours", "released"):
        for seed in range(20):
            found = made(binary, seed, mask=mask, form=form)
            y0, y1, x0, x1 = found["box"]
            inner = found["mask"][y0:y1, x0:x1]
            assert set(inner.unique().tolist()) <= {0, 1}
            agree = (found["image"][0, y0:y1, x0:x1] > 127) == (inner == 1)
            assert agree.float().mean() > 0.93
            assert (found["mask"] == 255).sum() == 32 * 32 - inner.numel()
    assert height != width  # a transposed axis would show


def test_forms_agree(image):
    for seed in range(20):
        ours, released = made(image, seed), made(image, seed, form="released")
        assert ours["box"] == released["box"]
        assert (ours["image"].int() - released["image"].int()).float().abs().mean() < 12


def test_scale_of_a_step_is_shared(image):
    boxes = [made(image, seed, step=3, scale_per="batch", crop=200)["box"] for seed in range(6)]
    sizes = {(y1 - y0, x1 - x0) for y0, y1, x0, x1 in boxes}
    assert len(sizes) == 1 < len(set(boxes))
    other = made(image, 0, step=4, scale_per="batch", crop=200)["box"]
    assert (other[1] - other[0], other[3] - other[2]) not in sizes


@pytest.mark.parametrize("form", ["ours", "released"])
def test_long_side_rule(image, form):
    sides = set()
    for seed in range(100):
        scale = (0.9, 1 / 0.875)
        views = made(image, seed, resize="long_side", scale=scale, crop=64, form=form, pad="mean")
        y0, y1, x0, x1 = views["box"]
        sides.add(x1 - x0)
        assert y1 - y0 == min(64, round(40 * (x1 - x0) / 60)) or x1 - x0 == 64
    assert min(sides) == 57  # int(0.9 * 64)
    assert max(sides) == 64


def test_mirror_probability(image):
    half = image.clone()
    half[:, :, :30] = 0
    flat = {"crop": 60, "scale": (1.0, 1.0)}
    for flip, least, most in ((0.0, 0, 0), (1.0, 100, 100), (0.5, 35, 65)):
        found = [made(half, seed, flip=flip, **flat)["image"][:, :, 0] for seed in range(100)]
        assert least <= sum(bool(column.any()) for column in found) <= most


def test_views_travel_to_spawned_workers(image):
    views = TrainingTransform(DataConfig(crop=16, strong=True, blur=0.5))
    copy = pickle.loads(pickle.dumps(views))
    a, b = (v(sample(image), *map(np.random.default_rng, (1, 2))) for v in (views, copy))
    assert torch.equal(a["strong"], b["strong"])


def test_asdts_released_form_also_gives_whole_images(image):
    """Neither cut, nor mirrored, nor padded; and nobody else pays for them."""
    settings = {"form": "released", "scale_per": "batch", "pad": "mean"}
    for seed in range(3):
        whole = made(image, seed, **settings)["squashed"]
        assert torch.equal(whole, squash(image, 32))
    rows = [int((i + 0.5) * 40 / 32) for i in range(32)]  # within a pixel of plain sampling
    columns = [int((i + 0.5) * 60 / 32) for i in range(32)]
    assert (whole.int() - image[:, rows][:, :, columns].int()).float().abs().mean() < 12
    for other in ({"form": "ours"}, {"scale_per": "image"}):
        assert "squashed" not in made(image, **{**settings, **other})

    photos = [sample(image) | {"name": name} for name in "ab"]
    views = TrainingTransform(DataConfig(crop=48, scale=(0.5, 0.5), **settings))  # padded crops
    with StepLoader(photos, 2, 0, views) as loader:
        batch = loader(0)
    assert not batch["valid"].all()
    wanted = squash(image, 48).float() / 255
    assert torch.equal(batch["squashed"][1], wanted)  # the padding of the crop leaves no trace
