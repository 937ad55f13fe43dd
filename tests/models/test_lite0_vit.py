"""The transformer on Lite0's early stages: maps, grids, attention, stem."""

import pytest
import torch

from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import count_parameters
from wsss_lab.models.lite0_vit import Lite0Stem, load_stem
from wsss_lab.models.weights import pretrained_backbone


def test_stem_is_lite0s_own_third_map():
    backbone = build_backbone("lite0_vit", stem_levels=True).eval()
    load_stem(backbone)
    cnn = pretrained_backbone("lite0").eval()
    image = torch.rand(1, 3, 75, 101) * 2 - 1
    with torch.no_grad():
        own, other = backbone(image).pyramid, cnn(image).pyramid
    for a, b in zip(own[:3], other[:3], strict=True):
        assert torch.equal(a, b)
    assert backbone.widths == (24, 40, 112, 192)
    assert backbone.strides == (4, 8, 16, 16)


def test_size():
    backbone = build_backbone("lite0_vit")
    assert count_parameters(Lite0Stem()) == 700768
    assert count_parameters(backbone) - 700768 == 2729280
    assert (backbone.input_mean, backbone.input_std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("size", [(32, 32), (75, 101), (224, 224), (240, 320)])
def test_positions_are_resized_to_every_grid(size):
    backbone = build_backbone("lite0_vit", levels=(-2,)).eval()
    grid = tuple(-(-s // 16) for s in size)
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, *size))
    assert [tuple(x.shape) for x in features.pyramid] == [(1, 192, *grid)] * 2
    assert features.tokens.shape == (1, grid[0] * grid[1], 192)
    assert features.cls.shape == (1, 192)


def test_attention_of_all_blocks_is_recorded():
    backbone = build_backbone("lite0_vit").eval()
    with torch.no_grad(), record_attention(backbone) as record:
        backbone(torch.randn(2, 3, 64, 80))
    maps = record.stack()
    assert maps.shape == (2, 6, 3, 21, 21)
    assert torch.allclose(maps.sum(-1), torch.ones(()), atol=1e-5)


def test_tokens_of_the_stem_are_those_of_the_image():
    backbone = build_backbone("lite0_vit", levels=(1,)).eval()
    image = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        maps, x = backbone.tokens_of(backbone.net.patch_embed.backbone(image))
        features = backbone(image)
    assert torch.equal(x[:, 1:], features.tokens)
    assert all(torch.equal(a, b) for a, b in zip(maps, features.pyramid, strict=True))


def test_statistics_of_the_stem_stay():
    backbone = build_backbone("lite0_vit").train()
    backbone(torch.rand(2, 3, 64, 64))
    assert backbone.net.patch_embed.backbone.bn1.num_batches_tracked == 0
