"""Heads: pooling, activation maps, decoders."""

import copy

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import DilatedHead, LargeFOV, SegFormerHead, TagHead


def test_gap_logits_are_the_mean_of_the_activation_map():
    features = torch.randn(2, 6, 5, 7)
    for bias in (False, True):
        head = TagHead(6, 4, pool="gap", bias=bias)
        cam = head.cam(features, with_bias=bias)
        assert cam.shape == (2, 4, 5, 7)
        torch.testing.assert_close(head(features), cam.mean(dim=(2, 3)))


def test_gmp_takes_the_maximum_of_channels_not_of_the_map():
    features = torch.randn(2, 6, 5, 7)
    head = TagHead(6, 4, pool="gmp")
    pooled = torch.stack([torch.stack([c.max() for c in image]) for image in features])
    torch.testing.assert_close(head(features), pooled @ head.linear.weight.T)
    assert not torch.allclose(head(features), head.cam(features).amax(dim=(2, 3)))


def test_activation_map_leaves_the_bias_out_unless_asked():
    head = TagHead(3, 2, bias=True)
    features = torch.randn(1, 3, 2, 2)
    difference = head.cam(features, with_bias=True) - head.cam(features)
    torch.testing.assert_close(difference, head.linear.bias.view(1, 2, 1, 1).expand(1, 2, 2, 2))
    head.cam(features).sum().backward()
    assert head.linear.weight.grad.abs().sum() > 0


def test_large_fov_is_three_convolutions_without_bias():
    head = LargeFOV(6, 5, hidden=8, dilation=3)
    features = torch.randn(1, 6, 9, 11)
    x = F.relu(F.conv2d(features, head.conv1.weight, padding=3, dilation=3))
    x = F.relu(F.conv2d(x, head.conv2.weight, padding=3, dilation=3))
    torch.testing.assert_close(head(features), F.conv2d(x, head.classify.weight))
    assert all(p.ndim == 4 for p in head.parameters())
    # the published sizes: 768 -> 512 -> 512 -> 21
    assert sum(p.numel() for p in LargeFOV(768, 21).parameters()) == 512 * (768 * 9 + 512 * 9 + 21)


def test_dilated_head_has_the_published_size():
    with torch.device("meta"):
        assert sum(p.numel() for p in DilatedHead(4096, 21).parameters()) == 18_971_669
    assert DilatedHead(6, 5, 8)(torch.randn(1, 6, 9, 11)).shape == (1, 5, 9, 11)


def test_segformer_head_has_the_published_size():
    with torch.device("meta"):
        head = SegFormerHead((64, 128, 320, 512), 21)
    assert sum(p.numel() for p in head.parameters()) == 531_221


@pytest.mark.parametrize("name", ["toy_cnn", "toy_mit2", "toy_vit2"])
def test_segformer_head_takes_any_number_of_maps(name):
    backbone = build_backbone(name).eval()
    head = SegFormerHead(backbone.widths, 11, hidden=16).eval()
    with torch.no_grad():
        pyramid = backbone(torch.randn(2, 3, 64, 96)).pyramid
        logits = head(pyramid)
    assert logits.shape == (2, 11, *pyramid[0].shape[2:])
    with pytest.raises(ValueError, match="channels"):
        head(pyramid[:1])


def written(head, pyramid):
    """SegFormer's decoder in the order of its paper."""
    size = pyramid[0].shape[2:]
    lifted = [lateral(m) for lateral, m in zip(head.lateral, pyramid, strict=True)]
    lifted = [F.interpolate(x, size, mode="bilinear", align_corners=False) for x in lifted]
    x = head.fuse(torch.cat(lifted[::-1], dim=1))
    return head.classify(head.dropout(F.relu(head.norm(x))))


@pytest.mark.parametrize("training", [False, True])
def test_segformer_head_is_the_one_written(training):
    torch.manual_seed(0)
    head = SegFormerHead((8, 16, 20, 32), 5, hidden=16, dropout=0.0).train(training)
    sizes = [(13, 18), (7, 9), (4, 5), (4, 5)]
    pyramid = [torch.randn(2, w, *s) for w, s in zip(head.widths, sizes, strict=True)]
    plain = copy.deepcopy(head)
    pairs = (plain, written(plain, pyramid)), (head, head(pyramid))
    torch.testing.assert_close(pairs[1][1], pairs[0][1], atol=1e-5, rtol=1e-4)
    one, two = (
        torch.autograd.grad(logits.square().sum(), list(module.parameters()))
        for module, logits in pairs
    )
    for ours, expected in zip(two, one, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-2, rtol=1e-3)
    for name, value in plain.named_buffers():
        torch.testing.assert_close(head.get_buffer(name), value, msg=name)


def test_bad_heads():
    with pytest.raises(ValueError, match="'gap' or 'gmp'"):
        TagHead(3, 2, pool="max")
    with pytest.raises(ValueError, match="at least one map"):
        SegFormerHead((), 3)
