"""The two transformers with more convolutions in front: shapes, sizes, attention, training."""

import pytest
import torch
from torch import nn

from wsss_lab.models.attention import record_attention
from wsss_lab.models.base import count_parameters
from wsss_lab.models.toynets import toy_mit2, toy_vit2

NETS = pytest.mark.parametrize("build", [toy_mit2, toy_vit2])


@NETS
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 160), (97, 70), (128, 128)])
def test_maps_have_the_declared_widths_and_strides(build, size):
    backbone = build().eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, *size))
    assert len(features.pyramid) == len(backbone.widths)
    for x, d, s in zip(features.pyramid, backbone.widths, backbone.strides, strict=True):
        assert tuple(x.shape) == (1, d, -(-size[0] // s), -(-size[1] // s))
        assert torch.isfinite(x).all()
    assert backbone.stride == 8


@NETS
def test_half_precision_fits_two_and_a_half_megabytes(build):
    backbone = build()
    assert 0.8e6 <= count_parameters(backbone) <= 1.2e6
    stored = sum(value.numel() for value in backbone.net.state_dict().values())
    assert 2 * stored <= 2.5e6


@NETS
def test_every_parameter_gets_a_gradient(build):
    backbone = build()
    features = backbone(torch.randn(2, 3, 64, 64))
    sum((x * torch.randn_like(x)).sum() for x in features.pyramid).backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    # residual branches start at zero: what feeds only them gets a gradient from step 2
    assert all("conv1" in n or "conv2" in n or "bn1" in n for n in without), without


@NETS
def test_eight_images_are_learned_by_heart(build):
    torch.manual_seed(0)
    backbone = build()
    classify = nn.Linear(backbone.width, 4)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    optimiser = torch.optim.AdamW([*backbone.parameters(), *classify.parameters()], lr=2e-3)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(classify(backbone(images).last.mean(dim=(2, 3))), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_attention_has_the_shapes_of_the_family():
    mit, vit, image = toy_mit2().eval(), toy_vit2().eval(), torch.randn(1, 3, 128, 128)
    with torch.no_grad(), record_attention(mit) as by_stage, record_attention(vit) as by_block:
        mit(image)
        vit(image)
    shapes = [tuple(m.shape[1:]) for m in by_stage.maps]
    # stages 1 to 3 reduce the keys, stage 4, which TSCD reads, does not
    assert shapes == [(1, 1024, 64), (2, 256, 64), (2, 256, 64), (4, 256, 256), (4, 256, 256)]
    assert tuple(by_block.stack().shape) == (1, 4, 4, 257, 257)
    for layer in [*by_stage.maps, *by_block.maps]:
        torch.testing.assert_close(layer.sum(-1), torch.ones_like(layer[..., 0]))
