"""PAMR, PAR and VARM: against loops over pixels, and what must hold for any image."""

import math

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.refine import (
    DILATIONS,
    PAMR,
    PAR,
    VARM,
    LocalKernel,
    dilated_offsets,
    local_affinity,
    propagate,
)
from wsss_lab.refine import neighbours as core
from wsss_lab.refine.local import PAMR_KERNEL, PAR_KERNEL, VARM_KERNEL

REFINERS = [PAMR, PAR, VARM]
GROWTH = {PAMR: 1.0, PAR: 1.01, VARM: 0.99}
KERNELS = [PAMR_KERNEL, PAR_KERNEL, VARM_KERNEL]


def scene(h=13, w=11, k=3, b=2):
    images = torch.rand(b, 3, h, w)
    images[0, :, :4, :5] = 0.5  # a flat patch: its spread is zero
    return images, torch.rand(b, k, h, w).softmax(dim=1)


def softmax(values):
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def deviation(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def neighbours_by_hand(dilations):
    return [
        (dy * d, dx * d)
        for d in dilations
        for dy, dx in [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    ]


def weights_by_hand(image, dilations, method):
    """One image (3, h, w), a pixel and a neighbour at a time, straight from the table."""
    _, h, w = image.shape
    values = image.double().tolist()
    offsets = neighbours_by_hand(dilations)

    def at(c, y, x):
        return values[c][min(max(y, 0), h - 1)][min(max(x, 0), w - 1)]

    def logit(y, x, dy, dx, spread):
        total = 0.0
        for c in range(3):
            gap = abs(at(c, y + dy, x + dx) - at(c, y, x))
            if method is PAMR:
                total += gap / (0.1 * spread[c] + 1e-8)
            elif method is PAR:
                total += (gap / (spread[c] + 1e-8) / 0.3) ** 2
            else:
                total += (4 * gap / (spread[c] + 1e-8)) ** 2
        return -total / 3

    def variation(y, x, dy, dx):
        total = 0.0
        for c in range(3):
            here = at(c, y + dy, x + dx)
            if y < h - 1:
                total += (at(c, y + 1 + dy, x + dx) - here) ** 2
            if x < w - 1:
                total += (at(c, y + dy, x + 1 + dx) - here) ** 2
        return total / 3

    distance = [math.hypot(dy, dx) for dy, dx in offsets]
    position = softmax([-((d / (deviation(distance) + 1e-8) / 0.3) ** 2) for d in distance])
    weights = torch.zeros(len(offsets), h, w, dtype=torch.float64)
    for y in range(h):
        for x in range(w):
            spread = []
            for c in range(3):
                around = [at(c, y + dy, x + dx) for dy, dx in offsets]
                around += [at(c, y, x)] * len(dilations) if method is PAMR else []
                spread.append(deviation(around))
            share = softmax([logit(y, x, dy, dx, spread) for dy, dx in offsets])
            if method is PAR:
                share = [s + 0.01 * p for s, p in zip(share, position, strict=True)]
            if method is VARM:
                varied = softmax([variation(y, x, dy, dx) for dy, dx in offsets])
                share = [s - 0.01 * v for s, v in zip(share, varied, strict=True)]
            weights[:, y, x] = torch.tensor(share)
    return weights


def propagate_by_hand(mask, weights, dilations, iterations):
    """One mask (h, w)."""
    h, w = mask.shape
    for _ in range(iterations):
        new = torch.zeros_like(mask)
        for y in range(h):
            for x in range(w):
                for n, (dy, dx) in enumerate(neighbours_by_hand(dilations)):
                    yy, xx = min(max(y + dy, 0), h - 1), min(max(x + dx, 0), w - 1)
                    new[y, x] += weights[n, y, x] * mask[yy, xx]
        mask = new
    return mask


@pytest.mark.parametrize("method", REFINERS)
@pytest.mark.parametrize("dilations", [(1, 3), (2, 7)])
def test_refinement_by_hand(method, dilations):
    images, masks = scene(6, 5, k=1)
    refined = method(dilations, 2)(images, masks)
    for image, mask, ours in zip(images, masks, refined, strict=True):
        weights = weights_by_hand(image, dilations, method)
        by_hand = propagate_by_hand(mask[0].double(), weights, dilations, 2)
        torch.testing.assert_close(ours[0].double(), by_hand, atol=1e-5, rtol=1e-5)


def test_offsets():
    assert dilated_offsets((1, 4)) == neighbours_by_hand((1, 4))
    assert len(dilated_offsets()) == 8 * len(DILATIONS) == 48


@pytest.mark.parametrize("method", REFINERS)
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (30, 20)])
def test_sizes_below_the_largest_dilation(method, size):
    images, masks = torch.rand(1, 3, *size), torch.rand(1, 2, *size)
    refined = method()(images, masks)
    assert refined.shape == masks.shape
    assert refined.isfinite().all()


def test_one_pixel_refines_to_itself():
    images, masks = torch.rand(1, 3, 1, 1), torch.rand(1, 2, 1, 1)
    torch.testing.assert_close(PAMR(iterations=3)(images, masks), masks)


@pytest.mark.parametrize("method", REFINERS)
def test_weights_sum(method):
    images, _ = scene()
    total = local_affinity(images, method.kernel).sum(dim=1)
    torch.testing.assert_close(total, torch.full_like(total, GROWTH[method]))


@pytest.mark.parametrize("method", REFINERS)
def test_probabilities_keep_their_sum_up_to_growth(method):
    images, masks = scene()
    total = method(iterations=10)(images, masks).sum(dim=1)
    torch.testing.assert_close(total, torch.full_like(total, GROWTH[method] ** 10))


@pytest.mark.parametrize("method", [PAMR, VARM])
def test_constant_image_has_uniform_weights(method):
    weights = local_affinity(torch.full((1, 3, 9, 8), 0.3), method.kernel)
    torch.testing.assert_close(weights, torch.full_like(weights, GROWTH[method] / 48))


def test_constant_image_leaves_par_the_distance():
    """Near neighbours weigh more, by a hundredth of a softmax; diagonals are further away."""
    weights = local_affinity(torch.full((1, 3, 5, 6), 0.3), PAR_KERNEL, (1, 2))
    distance = torch.tensor([math.hypot(y, x) for y, x in neighbours_by_hand((1, 2))])
    second = torch.softmax(-((distance / distance.std() / 0.3) ** 2), dim=0)
    expected = (1 / 16 + 0.01 * second)[None, :, None, None].expand_as(weights)
    torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)
    assert weights[0, 1, 0, 0] > weights[0, 0, 0, 0]


def test_varm_without_variation_is_par_at_another_contrast():
    images, _ = scene()
    varm = local_affinity(images, LocalKernel(contrast=4.0))
    par = local_affinity(images, LocalKernel(contrast=1 / 0.25))
    assert torch.equal(varm, par)
    assert not torch.equal(local_affinity(images, VARM_KERNEL), varm)


@pytest.mark.parametrize("method", REFINERS)
def test_classes_are_independent(method):
    images, masks = scene(k=4)
    order = torch.tensor([2, 0, 3, 1])
    refined = method()(images, masks)
    assert torch.equal(method()(images, masks[:, order]), refined[:, order])
    torch.testing.assert_close(method()(images, masks[:, 1:2]), refined[:, 1:2])


@pytest.mark.parametrize("method", REFINERS)
def test_images_are_independent(method):
    images, masks = scene(b=3)
    refined = method()(images, masks)
    torch.testing.assert_close(method()(images[1:2], masks[1:2]), refined[1:2])


@pytest.mark.parametrize("method", [PAMR, PAR])
@pytest.mark.parametrize("side", [-1, -2])
def test_mirrored(method, side):
    images, masks = scene()
    refined = method()(images, masks)
    mirrored = method()(images.flip(side), masks.flip(side))
    torch.testing.assert_close(mirrored.flip(side), refined, atol=1e-5, rtol=1e-5)


def test_varm_looks_one_way():
    """Forward differences: mirroring changes VARM, but no more than its variation term can."""
    images, masks = scene()
    gap = (VARM()(images.flip(-1), masks.flip(-1)).flip(-1) - VARM()(images, masks)).abs().max()
    assert 0 < gap < 0.1
    assert not torch.equal(
        local_affinity(images.mT, VARM_KERNEL)[:, [1, 3]].mT,
        local_affinity(images, VARM_KERNEL)[:, [1, 3]],
    )


def test_pamr_and_par_ignore_the_scale_of_colours():
    images, masks = scene()
    torch.testing.assert_close(
        PAMR()(images * 255, masks), PAMR()(images, masks), rtol=1e-4, atol=1e-4
    )
    wide = local_affinity(images * 255, PAR_KERNEL)
    torch.testing.assert_close(wide, local_affinity(images, PAR_KERNEL), rtol=1e-4, atol=1e-4)


def test_sharpens_towards_the_colour_edge():
    """A mask that bleeds over a colour edge by two pixels is pulled back to it."""
    images = torch.rand(1, 3, 24, 24) * 0.02 + 0.2
    images[..., 12:] += 0.6
    mask = torch.zeros(1, 1, 24, 24)
    mask[..., 10:] = 1
    for method in REFINERS:
        refined = method((1, 2, 4), 10)(images, mask)[0, 0, 12]
        assert refined[:12].max() < 0.5 < refined[12:].min(), method.__name__


def test_masks_are_resized_with_aligned_corners():
    images = torch.rand(1, 3, 12, 10)
    small = torch.rand(1, 2, 5, 4)
    large = F.interpolate(small, (12, 10), mode="bilinear", align_corners=True)
    assert torch.equal(PAR()(images, small), PAR()(images, large))
    assert torch.equal(PAR(iterations=0)(images, small), large)


@pytest.mark.parametrize("path", ["index", "shift"])
def test_both_ways_of_reading_neighbours(path):
    """CPU and accelerator read neighbours differently; both run here, both must agree."""
    images, masks = scene(9, 30, k=5)
    weights = local_affinity(images).contiguous()
    run = {"index": core._by_index, "shift": core._by_shift}[path]
    offsets = dilated_offsets()
    expected = masks
    for _ in range(3):
        padded = F.pad(expected, (24,) * 4, mode="replicate")
        stack = torch.stack([padded[..., 24 + y : 33 + y, 24 + x : 54 + x] for y, x in offsets], 2)
        expected = (stack * weights[:, None]).sum(dim=2)
    torch.testing.assert_close(run(masks, weights, offsets, 3), expected)


@pytest.mark.parametrize("kernel", KERNELS)
def test_blocks_of_rows_do_not_show(kernel, monkeypatch):
    images, _ = scene(17, 9)
    whole = local_affinity(images, kernel)
    monkeypatch.setattr("wsss_lab.refine.local._BLOCK", 2 * 9 * 5)  # five rows at a time
    torch.testing.assert_close(local_affinity(images, kernel), whole)


@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_gradcheck_of_masks(iterations):
    images = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    weights = local_affinity(images, PAR_KERNEL, (1, 2, 6))
    masks = torch.rand(2, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda m: propagate(m, weights, (1, 2, 6), iterations), masks)


def test_gradient_reaches_small_masks():
    masks = torch.rand(1, 2, 4, 4, requires_grad=True)
    PAR()(torch.rand(1, 3, 8, 8), masks).sum().backward()
    # weights sum to 1.01 and aligned resizing spreads every value; nothing is lost
    torch.testing.assert_close(masks.grad.sum(), torch.tensor(2 * 64 * 1.01**10))


@pytest.mark.parametrize("method", REFINERS)
def test_autocast_changes_nothing(method):
    images, masks = scene()
    plain = method()(images, masks)
    with torch.autocast("cpu", torch.bfloat16):
        cast = method()(images, masks)
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)
    assert method()(images, masks.bfloat16()).dtype == torch.float32


def test_memory_layout_does_not_matter():
    images, masks = scene()
    plain = PAR()(images, masks)
    last = (x.to(memory_format=torch.channels_last) for x in (images, masks))
    assert torch.equal(PAR()(*last), plain)
    turned = (x.mT.contiguous().mT for x in (images, masks))
    assert torch.equal(PAR()(*turned), plain)


def test_inputs_stay_as_they_were():
    images, masks = scene()
    before = images.clone(), masks.clone()
    VARM()(images, masks)
    assert torch.equal(images, before[0])
    assert torch.equal(masks, before[1])


def test_module_says_its_settings():
    assert "iterations=4" in repr(PAR((1, 2), 4))
    assert not list(PAR().parameters())
    assert not PAR().state_dict()


NAN = float("nan")
IMAGES, MASKS = torch.full((1, 3, 4, 4), 0.5), torch.full((1, 2, 4, 4), 0.5)
BAD = {
    "uint8 image": ((IMAGES * 255).byte(), MASKS, "images must be float"),
    "grey image": (IMAGES[:, :1], MASKS, "images must be"),
    "one image": (IMAGES[0], MASKS, "images must be"),
    "empty image": (IMAGES[..., :0], MASKS, "images must be"),
    "0..255": (IMAGES * 255, MASKS, r"images must be finite and in 0\.\.1"),
    "normalised": (IMAGES - 1, MASKS, "images must be finite"),
    "NaN image": (IMAGES * NAN, MASKS, "images must be finite"),
    "other batch": (IMAGES, MASKS.repeat(2, 1, 1, 1), "masks must come one set per image"),
    "no class": (IMAGES, MASKS[:, :0], "at least one class"),
    "flat masks": (IMAGES, MASKS[:, 0], r"masks must be \(b, k, h, w\)"),
    "labels": (IMAGES, MASKS.long(), "masks must be float"),
    "negative masks": (IMAGES, -MASKS, "masks must be finite"),
    "NaN masks": (IMAGES, MASKS * NAN, "masks must be finite"),
    "infinite masks": (IMAGES, MASKS * torch.inf, "masks must be finite"),
}


@pytest.mark.parametrize(("images", "masks", "message"), BAD.values(), ids=BAD)
@pytest.mark.parametrize("method", [PAR, VARM])
def test_bad_input(method, images, masks, message):
    with pytest.raises(ValueError, match=message):
        method()(images, masks)


def test_value_checks_can_be_left_out():
    assert VARM()(IMAGES, -MASKS, check=False).max() < 0
    with pytest.raises(ValueError, match="images must be finite"):
        PAMR()(-IMAGES, MASKS)


@pytest.mark.parametrize("dilations", [(), (0,), (-1, 2), (1.5,)])
def test_bad_dilations(dilations):
    with pytest.raises(ValueError, match="dilations must be positive"):
        PAR(dilations)


def test_bad_propagation():
    weights = local_affinity(IMAGES, dilations=(1, 2))
    with pytest.raises(ValueError, match="weights must be"):
        propagate(MASKS, weights, (1,))
    with pytest.raises(ValueError, match="weights must be"):
        propagate(MASKS[..., :3], weights, (1, 2))
    with pytest.raises(ValueError, match="weights must not require"):
        propagate(MASKS, weights.clone().requires_grad_(), (1, 2))
    with pytest.raises(ValueError, match="iterations"):
        propagate(MASKS, weights, (1, 2), -1)
    with pytest.raises(ValueError, match="iterations"):
        PAR(iterations=-1)


@pytest.mark.parametrize("method", REFINERS)
def test_planes_one_after_the_other_give_the_same(method):
    """Layout of the weights, values and gradients; only sums are rounded in another order."""
    images, masks = scene(17, 14, k=2)
    one, other = masks.clone().requires_grad_(), masks.clone().requires_grad_()
    usual = method((1, 3), 4)(images, one)
    planes = method((1, 3), 4, by_plane=True)(images, other)
    torch.testing.assert_close(planes, usual, rtol=1e-5, atol=1e-6)
    assert planes.is_contiguous()
    factor = torch.rand_like(usual)
    (usual * factor).sum().backward()
    (planes * factor).sum().backward()
    torch.testing.assert_close(other.grad, one.grad, rtol=1e-5, atol=1e-6)
    usual, planes = (local_affinity(images, method.kernel, (1, 3), way) for way in (False, True))
    assert torch.equal(usual, planes)
    assert planes.is_contiguous()
    assert usual.permute(0, 2, 3, 1).is_contiguous()
