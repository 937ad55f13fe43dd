import random

import numpy as np
import pytest
import torch
from PIL import Image
from released_crops import asdt_offsets, tscd_box, tscd_offsets

from wsss_lab.data.crops import (
    Window,
    cut,
    draw_window,
    inside,
    long_side_size,
    scaled_size,
    view,
    view_mask,
    view_plain,
    view_released,
)

SIZES = [(20, 30), (30, 20), (9, 9), (16, 40), (50, 17)]


def windows(side=16, factor=None, count=4):
    """Windows on images of several sizes, with the sizes before scaling."""
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        for _ in range(count):
            scale = factor or float(rng.uniform(0.5, 2.0))
            size = scaled_size(height, width, scale)
            yield (height, width), draw_window(size, side, rng.random(3))


def picture(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def smooth(height, width):
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([3 * x, 4 * y, 2 * (x + y)]).clamp(max=255).to(torch.uint8)


def brute_cut(image, window, fill):
    """Pixel by pixel."""
    out = np.full((image.shape[0], window.side, window.side), fill, dtype=image.numpy().dtype)
    for y in range(window.side):
        for x in range(window.side):
            from_y, from_x = y + window.top, x + window.left
            if 0 <= from_y < window.height and 0 <= from_x < window.width:
                column = window.width - 1 - from_x if window.flip else from_x
                out[:, y, x] = image[:, from_y, column]
    return out


@pytest.mark.parametrize("fill", [0, 7])
def test_cut_against_a_loop_over_pixels(fill):
    for (height, width), window in windows(factor=1.0):
        image = picture(height, width)
        np.testing.assert_array_equal(cut(image, window, fill), brute_cut(image, window, fill))


def test_box_is_where_the_image_is():
    for _, window in windows():
        ones = torch.ones(1, window.height, window.width, dtype=torch.bool)
        valid = inside(torch.tensor([window.box]), window.side, window.side)
        assert torch.equal(cut(ones, window), valid)
        y0, y1, x0, x1 = tscd_box(window)
        probe = torch.zeros(window.side, window.side, dtype=torch.bool)
        probe[y0:y1, x0:x1] = True
        assert torch.equal(probe, valid[0])


def test_released_view_is_pillow_then_flip_then_cut():
    for (height, width), window in windows():
        image = picture(height, width)
        photo = Image.fromarray(image.permute(1, 2, 0).numpy())
        scaled = photo.resize((window.width, window.height), Image.Resampling.BILINEAR)
        scaled = torch.from_numpy(np.array(scaled)).permute(2, 0, 1)
        np.testing.assert_array_equal(view_released(image, window), brute_cut(scaled, window, 0))


def test_our_view_without_scaling_is_the_cut():
    for (height, width), window in windows(factor=1.0):
        image = picture(height, width)
        assert torch.equal(view(image, window), cut(image, window))


def test_our_view_lies_within_half_a_source_pixel_of_the_released_one():
    # the picture climbs by 2..4 a source pixel, on both axes, so that a shift shows as a difference
    for _, window in windows(side=24):
        height, width = 40, 60
        factor = 1 + (window.height % 3) / 3
        size = scaled_size(height, width, factor)
        moved = Window(*size, size[0] // 5, size[1] // 4, 24, window.flip)
        found = view(smooth(height, width), moved).int()
        expected = view_released(smooth(height, width), moved).int()
        assert (found - expected).abs().max() <= 4


def test_our_view_pads_where_the_released_one_pads():
    for (height, width), window in windows():
        white = torch.full((3, height, width), 255, dtype=torch.uint8)
        assert torch.equal(view(white, window), view_released(white, window))


def test_mask_follows_the_image():
    for (height, width), window in windows():
        mask = torch.randint(0, 21, (height, width))
        mask[0, 0] = 255
        found = view_mask(mask, window)
        assert found.dtype == mask.dtype
        scaled = Image.fromarray(mask.byte().numpy()).resize(
            (window.width, window.height), Image.Resampling.NEAREST
        )
        whole = torch.from_numpy(np.array(scaled).astype(np.int64))[None]
        expected = brute_cut(whole, window, 255)[0]
        np.testing.assert_array_equal(view_mask(mask, window, whole=True), expected)
        assert set(found.unique().tolist()) <= set(mask.unique().tolist()) | {255}
        valid = inside(torch.tensor([window.box]), window.side, window.side)[0]
        assert (found[~valid] == 255).all()


def test_mask_and_image_agree_where_a_pixel_becomes_a_block():
    mask = torch.arange(12).view(3, 4)
    image = mask.to(torch.uint8).expand(3, -1, -1) * 20
    for flip in (False, True):
        window = Window(27, 36, 0, 0, 27, flip)
        seen = view_mask(mask, window)
        middle = (slice(4, None, 9), slice(4, None, 9))
        assert torch.equal(seen[middle] * 20, view(image, window)[0][middle].long())


def test_plain_view_has_no_wider_filter():
    stripes = torch.zeros(3, 8, 8)
    stripes[:, :, ::4] = 1  # a quarter is white: the mean of every part is 0.25 when filtered
    found = view_plain(stripes, Window(8, 2, 0, 0, 2))
    assert torch.equal(found, torch.zeros(3, 2, 2))


def test_windows_reach_all_places_alike():
    rng = np.random.default_rng(0)
    drawn = [draw_window((10, 20), 12, rng.random(3)) for _ in range(4000)]
    for values, count in (([w.top for w in drawn], 3), ([w.left for w in drawn], 9)):
        places, hits = np.unique(values, return_counts=True)
        assert len(places) == count
        assert hits.min() > 0.75 * 4000 / count
    assert 0.45 < np.mean([w.flip for w in drawn]) < 0.55
    assert draw_window((10, 20), 12, np.array([0.99999999999999999] * 3)).left <= 8


def test_released_orders_draw_even_where_there_is_no_choice():
    python, legacy = random.Random(0), np.random.RandomState(0)
    assert tscd_offsets(8, 8, 8, python, legacy) == (0, 0)
    other = random.Random(0)
    assert asdt_offsets(8, 8, 8, other) == (0, 0)
    assert python.random() == other.random() != random.Random(0).random()


def test_sizes():
    assert scaled_size(375, 500, 0.5) == (187, 250)
    assert scaled_size(1, 1000, 0.5) == (1, 500)
    assert long_side_size(375, 500, 438) == (328, 438)
    assert long_side_size(500, 375, 438) == (438, 328)
    assert long_side_size(1, 5000, 100) == (1, 100)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 10, 0, 0, 0), "side: expected a window of at least 1 px, got 0"),
        ((0, 10, 0, 0, 4), "height, width: expected at least 1 px, got 0 x 10"),
        ((10, 10, 10, 0, 4), "shows nothing"),
        ((10, 10, 0, -4, 4), "shows nothing"),
    ],
)
def test_bad_windows(arguments, message):
    with pytest.raises(ValueError, match=message):
        Window(*arguments)


def test_cut_wants_the_scaled_image():
    with pytest.raises(ValueError, match="expected 10 x 12 px, got 5 x 6; scale the image first"):
        cut(torch.zeros(3, 5, 6), Window(10, 12, 0, 0, 4))
