"""Class activation maps, Grad-CAM and normalisation."""

import pytest
import torch
from paper_values import ALL_NORMALIZATIONS
from torch import nn

from wsss_lab.cam import (
    Normalization,
    class_activation_map,
    grad_cam,
    normalize_cam,
    present_classes,
)

B, D, K, GH, GW = 3, 8, 5, 4, 6


@pytest.fixture
def features():
    return torch.randn(B, D, GH, GW)


def test_cam_is_the_linear_head_at_every_cell(features):
    head = nn.Linear(D, K)
    cam = class_activation_map(features, head.weight)
    for i in range(GH):
        for j in range(GW):
            expected = features[:, :, i, j] @ head.weight.T
            torch.testing.assert_close(cam[:, :, i, j], expected)
    logits = head(features.mean((2, 3)))
    torch.testing.assert_close(cam.mean((2, 3)) + head.bias, logits)


def test_bad_widths(features):
    with pytest.raises(ValueError, match=r"weight \(k, d\)"):
        class_activation_map(features, torch.randn(K, D + 1))
    with pytest.raises(ValueError, match=r"flatten\(1\)"):
        class_activation_map(features, torch.randn(K, D, 1, 1))


@pytest.mark.parametrize("batched", [False, True])
def test_grad_cam_of_a_pooled_linear_head_is_the_cam_per_cell(features, batched):
    features.requires_grad_()
    weight = torch.randn(K, D)
    logits = features.mean((2, 3)) @ weight.T
    maps = grad_cam(features, logits, batched=batched)
    assert not maps.requires_grad
    cam = class_activation_map(features.detach(), weight)
    torch.testing.assert_close(maps, cam / (GH * GW))


@pytest.mark.parametrize("batched", [False, True])
def test_grad_cam_of_a_deep_head_against_one_backward_per_class(features, batched):
    features.requires_grad_()
    head = nn.Sequential(nn.Conv2d(D, 7, 3), nn.GELU(), nn.Flatten(), nn.LazyLinear(K))
    logits = head(features)
    tags = torch.tensor([[1, 0, 1, 0, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).float()
    maps = grad_cam(features, logits, tags, batched=batched, retain_graph=True)
    for i in range(B):
        for c in range(K):
            if tags[i, c] == 0:
                assert (maps[i, c] == 0).all()
                continue
            (gradient,) = torch.autograd.grad(logits[i, c], features, retain_graph=True)
            alpha = gradient[i].mean((1, 2))
            expected = torch.einsum("d,dhw->hw", alpha, features[i].detach())
            torch.testing.assert_close(maps[i, c], expected)


def test_grad_cam_runs_as_many_backwards_as_the_largest_number_of_tags(features):
    features.requires_grad_()
    calls = []
    middle = features * 1.0
    middle.register_hook(lambda grad: calls.append(1))
    logits = middle.mean((2, 3)) @ torch.randn(D, K)
    tags = torch.zeros(B, K)
    tags[0, [1, 3]] = 1
    tags[1, 2] = 1
    grad_cam(features, logits, tags)
    assert len(calls) == 2


def test_grad_cam_needs_a_graph(features):
    with pytest.raises(ValueError, match="requires_grad_"):
        grad_cam(features, torch.randn(B, K))


def test_present_classes_are_ascending_and_padded():
    tags = torch.tensor([[0, 1, 0, 1.0], [0, 0, 1, 0], [0, 0, 0, 0]])
    index, present = present_classes(tags)
    assert index[0].tolist() == [1, 3]
    assert index[1, 0] == 2
    assert present.tolist() == [[True, True], [True, False], [False, False]]
    assert present_classes(tags, 3)[0].shape == (3, 3)


def test_bad_bound_that_would_drop_classes():
    with pytest.raises(ValueError, match="max_present"):
        present_classes(torch.ones(1, 4), 3)
    with pytest.raises(ValueError, match="max_present"):
        present_classes(torch.zeros(1, 4), 0)
    with pytest.raises(ValueError, match="tags must be"):
        present_classes(torch.ones(4))


@pytest.mark.parametrize("how", sorted(ALL_NORMALIZATIONS))
def test_normalised_maps_against_loops(how):
    rule = ALL_NORMALIZATIONS[how]
    cam = torch.randn(2, 3, 5, 7) * 4
    if not rule.relu:
        cam = cam.relu()
    out = normalize_cam(cam, rule)
    for i in range(2):
        for c in range(3):
            x = cam[i, c].clamp(min=0)
            scope = x if rule.over == "class" else cam[i].clamp(min=0)
            low = scope.min() if rule.subtract_min else 0.0
            torch.testing.assert_close(out[i, c], (x - low) / (scope.max() - low + rule.eps))
    assert out.min() >= 0
    assert out.max() <= 1


@pytest.mark.parametrize("how", sorted(ALL_NORMALIZATIONS))
def test_a_map_of_zeros_stays_zero(how):
    assert (normalize_cam(torch.zeros(1, 2, 3, 3), ALL_NORMALIZATIONS[how]) == 0).all()


def test_normalisation_is_float32_under_autocast():
    cam = torch.rand(1, 2, 8, 8).bfloat16()
    out = normalize_cam(cam, "min_max")
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, normalize_cam(cam.float(), "min_max"))


def test_plain_normalisation_does_not_depend_on_scale():
    cam = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(normalize_cam(cam * 37), normalize_cam(cam))


def test_global_normalisation_keeps_classes_comparable():
    cam = torch.tensor([4.0, 1.0]).view(1, 2, 1, 1) * torch.rand(1, 2, 6, 6)
    out = normalize_cam(cam, ALL_NORMALIZATIONS["cosa.IMAGE_NORMALIZATION"])
    assert out[0, 1].max() < 0.3
    assert out[0, 0].max() > 0.99


def test_own_rule_and_bad_arguments():
    rule = Normalization(relu=True, subtract_min=False, eps=1.0, over="class", source="here")
    assert normalize_cam(torch.ones(1, 1, 2, 2), rule).max() == 0.5
    with pytest.raises(ValueError, match="how must be one of"):
        normalize_cam(torch.ones(1, 1, 2, 2), "minmax")
    with pytest.raises(ValueError, match="cam must be"):
        normalize_cam(torch.ones(2, 2))


@pytest.mark.parametrize("keep", [False, True])
def test_grad_cam_keeps_the_graph_only_if_asked(keep):
    features = torch.rand(2, 3, 4, 4, requires_grad=True)
    logits = features.square().mean((2, 3))
    first = grad_cam(features, logits, retain_graph=keep)
    if keep:
        assert torch.equal(grad_cam(features, logits), first)
    else:
        with pytest.raises(RuntimeError, match="second time"):
            grad_cam(features, logits)
