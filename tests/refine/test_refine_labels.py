"""Refining present classes and real pixels only."""

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.refine import PAR, VARM, refine_in_box, refine_present

TAGS = torch.tensor([[0, 1, 0, 1, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]).float()


@pytest.fixture
def scene():
    return torch.rand(3, 3, 12, 10), torch.rand(3, 5, 6, 5)


@pytest.mark.parametrize("background", [False, True])
def test_present_one_image_at_a_time(scene, background):
    images, masks = scene
    if background:
        masks = torch.cat([torch.rand(3, 1, 6, 5), masks], dim=1)
    keep = F.pad(TAGS, (int(background), 0), value=1.0)
    refined = refine_present(PAR(), images, masks, TAGS)
    assert refined.shape == (3, masks.shape[1], 12, 10)
    for i in range(3):
        for c in range(masks.shape[1]):
            if keep[i, c]:
                alone = PAR()(images[i : i + 1], masks[i : i + 1, c : c + 1])
                torch.testing.assert_close(refined[i : i + 1, c : c + 1], alone)
            else:
                assert not refined[i, c].any()


def test_present_refines_few_channels(scene):
    images, masks = scene
    seen = []

    def spy(images, masks):
        seen.append(masks.shape[1])
        return PAR()(images, masks)

    free = refine_present(spy, images, masks, TAGS)
    bound = refine_present(spy, images, masks, TAGS, max_present=3)
    assert seen == [2, 3]
    torch.testing.assert_close(bound, free)


def test_present_passes_gradients_to_present_classes(scene):
    images, masks = scene
    masks.requires_grad_()
    refine_present(VARM(), images, masks, TAGS).sum().backward()
    assert torch.equal(masks.grad.flatten(2).any(dim=2), TAGS > 0)


def test_present_bad_input(scene):
    images, masks = scene
    with pytest.raises(ValueError, match="masks must have k = 3"):
        refine_present(PAR(), images, masks, TAGS[:, :3])
    with pytest.raises(ValueError, match="masks must be"):
        refine_present(PAR(), images, masks, TAGS[:2])
    with pytest.raises(ValueError, match="max_present"):
        refine_present(PAR(), images, masks, TAGS, max_present=1)
    with pytest.raises(ValueError, match="tags must name"):
        refine_present(PAR(), images, masks, TAGS * 0)


@pytest.mark.parametrize("down", [1, 2])
def test_box_cuts_padding_off(down):
    images, masks = torch.rand(2, 3, 16, 14), torch.rand(2, 3, 16, 14)
    boxes = torch.tensor([[0, 16, 0, 14], [3, 12, 2, 99]], dtype=torch.int16)
    refined = refine_in_box(PAR(), images, masks, boxes, down)
    changed = images.clone()
    changed[1, :, :3] = 0.9  # padding must not matter
    assert torch.equal(refine_in_box(PAR(), changed, masks, boxes, down), refined)
    assert not refined[1, :, :3].any()
    assert not refined[1, :, 12:].any()
    assert not refined[1, :, :, :2].any()
    assert (refined[1, :, 3:12, 2:] > 0).all()
    if down == 1:
        torch.testing.assert_close(refined[:1], PAR()(images[:1], masks[:1]))
        inner = PAR()(images[1:, :, 3:12, 2:], masks[1:, :, 3:12, 2:])
        torch.testing.assert_close(refined[1:, :, 3:12, 2:], inner)


def test_box_passes_gradients():
    masks = torch.rand(1, 2, 8, 8, requires_grad=True)
    refine_in_box(
        PAR(), torch.rand(1, 3, 8, 8), masks, torch.tensor([[0, 6, 2, 8]])
    ).sum().backward()
    assert masks.grad[..., :6, 2:].any()
    assert not masks.grad[..., 6:, :].any()


def test_box_bad_input():
    images, masks, boxes = (
        torch.rand(1, 3, 8, 8),
        torch.rand(1, 2, 8, 8),
        torch.tensor([[0, 8, 0, 8]]),
    )
    with pytest.raises(ValueError, match="masks must be"):
        refine_in_box(PAR(), images, masks[..., :4], boxes)
    with pytest.raises(ValueError, match="boxes must be"):
        refine_in_box(PAR(), images, masks, boxes[0])
    with pytest.raises(ValueError, match="boxes must hold"):
        refine_in_box(PAR(), images, masks, torch.tensor([[0, 1, 0, 8]]))
    with pytest.raises(ValueError, match="down_scale"):
        refine_in_box(PAR(), images, masks, boxes, 0)


@pytest.mark.parametrize(
    ("kind", "result"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_results_are_float32_or_double_as_the_masks(kind, result):
    images, masks = torch.rand(3, 3, 12, 10), torch.rand(3, 5, 12, 10)
    assert refine_present(PAR(), images, masks.to(kind), TAGS).dtype == result
    boxes = torch.tensor([[0, 12, 0, 10]]).repeat(3, 1)
    assert refine_in_box(PAR(), images, masks.to(kind), boxes).dtype == result
