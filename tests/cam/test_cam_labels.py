"""From maps to labels: brute force, properties, bad input."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.cam import box_to_valid, cam_to_label, cam_to_pseudo_label


def scene(b=3, k=6, h=9, w=11):
    cam = (torch.rand(b, k, h, w) * 20).round() / 20  # many ties and exact thresholds
    tags = (torch.rand(b, k) < 0.5).float()
    tags[0] = 0
    return cam, tags


def label_by_hand(cam, tags, threshold, band):
    out = torch.zeros(cam.shape[0], *cam.shape[2:], dtype=torch.int64)
    limits = torch.tensor([threshold, *(band or (0, 0))])  # float32, as the maps are
    for i, y, x in itertools.product(*map(range, out.shape)):
        best, name = -1.0, 0
        for c in range(cam.shape[1]):
            if tags[i, c] > 0 and cam[i, c, y, x] > best:
                best, name = cam[i, c, y, x], c + 1
        if best <= limits[0]:
            name = 0
        if band is not None and best <= limits[2]:
            name = 255
        if band is not None and best <= limits[1]:
            name = 0
        out[i, y, x] = name
    return out


@pytest.mark.parametrize("band", [None, (0.35, 0.55), (0.5, 0.5)])
@pytest.mark.parametrize("threshold", [0.0, 0.45, 1.0])
def test_label_by_hand(threshold, band):
    cam, tags = scene()
    expected = label_by_hand(cam, tags, threshold, band)
    assert torch.equal(cam_to_label(cam, tags, threshold, band=band), expected)


def test_label_is_the_argmax_with_a_constant_background_channel():
    """ACR's formulation: background at index 0 of an argmax, so that it wins ties."""
    cam, tags = scene()
    scores = torch.cat([torch.full_like(cam[:, :1], 0.4), cam * tags[:, :, None, None]], dim=1)
    assert torch.equal(cam_to_label(cam, tags, 0.4), scores.argmax(1))


def test_absent_classes_never_win_and_tags_may_be_left_out():
    cam, tags = scene()
    label = cam_to_label(cam, tags, 0.0)
    for i in range(len(cam)):
        allowed = {0, *(tags[i].nonzero().flatten() + 1).tolist()}
        assert set(label[i].unique().tolist()) <= allowed
    assert torch.equal(cam_to_label(cam, None, 0.3), cam_to_label(cam, torch.ones_like(tags), 0.3))


def test_permuting_classes_permutes_labels():
    cam = torch.rand(2, 5, 8, 8)
    tags = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]).float()
    order = torch.randperm(5)
    name = torch.cat([torch.zeros(1, dtype=torch.long), order + 1])
    for make in (
        lambda c, t: cam_to_label(c, t, 0.5),
        lambda c, t: cam_to_pseudo_label(c, t, 0.3, 0.6, down_scale=1),
    ):
        plain, permuted = make(cam, tags), make(cam[:, order], tags[:, order])
        back = torch.where(permuted == 255, 255, name[permuted.clamp(max=5)])
        assert torch.equal(back, plain)


def pseudo_by_hand(cam, tags, low, high, down, refine=None, images=None):
    """Image by image with the present channels only."""
    h, w = cam.shape[-2:]
    out = []
    for i in range(len(cam)):
        keep = tags[i].nonzero().flatten()
        names = torch.cat([torch.zeros(1, dtype=torch.long), keep + 1])
        found = []
        for t in (high, low):
            x = torch.cat([torch.full((1, h, w), t), cam[i, keep]])[None]
            if down > 1:
                x = F.interpolate(x, (h // down, w // down), mode="bilinear")
            x = x.softmax(1)
            if refine is not None:
                small = F.interpolate(images[i : i + 1], x.shape[-2:], mode="bilinear")
                x = refine(small, x)
            if down > 1:
                x = F.interpolate(x, (h, w), mode="bilinear")
            found.append(names[x.argmax(1)[0]])
        sure, loose = found
        out.append(torch.where(sure != 0, sure, torch.where(loose == 0, 0, 255)))
    return torch.stack(out)


def blur(images, masks):
    """A refinement that acts on each channel alone and depends on the image."""
    weight = images.mean(1, keepdim=True)
    smooth = F.avg_pool2d(masks, 3, stride=1, padding=1)
    return weight * masks + (1 - weight) * smooth


@pytest.mark.parametrize("down", [1, 2, 3])
@pytest.mark.parametrize("refine", [None, blur])
def test_pseudo_label_by_hand(down, refine):
    cam, images = torch.rand(4, 6, 24, 31), torch.rand(4, 3, 24, 31)
    tags = (torch.rand(4, 6) < 0.4).float()
    tags[0] = 0
    label = cam_to_pseudo_label(cam, tags, 0.3, 0.7, images=images, refine=refine, down_scale=down)
    assert torch.equal(label, pseudo_by_hand(cam, tags, 0.3, 0.7, down, refine, images))


def test_pseudo_label_without_refinement_is_the_band():
    cam, tags = torch.rand(3, 4, 16, 16), torch.tensor([[1.0, 0, 1, 0]]).expand(3, -1)
    label = cam_to_pseudo_label(cam, tags, 0.3, 0.7, down_scale=1)
    assert torch.equal(label, cam_to_label(cam, tags, 0.3, band=(0.3, 0.7)))


def test_pseudo_label_refines_once_and_only_present_classes():
    calls = []

    def spy(images, masks):
        calls.append((tuple(images.shape), tuple(masks.shape)))
        return masks

    tags = torch.zeros(2, 20)
    tags[0, [3, 8]] = 1
    tags[1, 5] = 1
    cam, images = torch.rand(2, 20, 16, 20), torch.rand(2, 3, 16, 20)
    cam_to_pseudo_label(cam, tags, 0.3, 0.7, images=images, refine=spy)
    assert calls == [((2, 3, 8, 10), (2, 6, 8, 10))]


def test_a_sure_and_a_doubtful_and_an_empty_pixel():
    cam = torch.tensor([0.9, 0.5, 0.1]).view(1, 1, 1, 3)
    label = cam_to_pseudo_label(cam, torch.ones(1, 1), 0.3, 0.7, down_scale=1)
    assert label.tolist() == [[[1, 255, 0]]]


def test_box_to_valid_follows_python_slices():
    boxes = torch.tensor([[0, 5, 0, 7], [1, 99, 2, 4], [0, -1, -3, 99], [3, 3, 0, 7]])
    valid = box_to_valid(boxes.short(), (5, 7))
    for got, (top, bottom, left, right) in zip(valid, boxes.tolist(), strict=True):
        expected = torch.zeros(5, 7, dtype=torch.bool)
        expected[top:bottom, left:right] = True
        assert torch.equal(got, expected)


def test_padding_is_ignored():
    cam, tags = scene()
    valid = torch.rand(3, 9, 11) < 0.5
    for label in (
        cam_to_label(cam, tags, 0.4, valid=valid),
        cam_to_pseudo_label(cam, tags, 0.3, 0.6, valid=valid),
    ):
        assert (label[~valid] == 255).all()
    assert (cam_to_label(cam, tags, 0.4, valid=valid)[valid] != 255).all()


def test_bad_arguments():
    cam, tags = scene()
    with pytest.raises(ValueError, match="tags must be"):
        cam_to_label(cam, tags[:, :-1], 0.4)
    with pytest.raises(ValueError, match="cam must be"):
        cam_to_label(cam[0], None, 0.4)
    with pytest.raises(ValueError, match="valid must be"):
        cam_to_label(cam, tags, 0.4, valid=torch.ones(3, 9, 10, dtype=torch.bool))
    with pytest.raises(ValueError, match="low <= high"):
        cam_to_label(cam, tags, 0.4, band=(0.6, 0.4))
    with pytest.raises(ValueError, match="low must not exceed high"):
        cam_to_pseudo_label(cam, tags, 0.6, 0.4)
    with pytest.raises(ValueError, match="images must be given"):
        cam_to_pseudo_label(cam, tags, 0.3, 0.6, refine=blur)
    with pytest.raises(ValueError, match="boxes must be"):
        box_to_valid(torch.zeros(4, dtype=torch.long), (5, 5))
