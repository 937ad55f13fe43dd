"""The transformer on Lite0: stem, projection, maps, grids, attention."""

import pytest
import torch

from wsss_lab.data.open_photos import open_photos
from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import count_parameters
from wsss_lab.models.lite0 import lite0_classifier
from wsss_lab.models.lite0_vit import Lite0Stem, class_axes
from wsss_lab.models.weights import pretrained_backbone

STEM_PARAMETERS = 3_371_008


def test_stem_is_lite0_itself_at_stride_16():
    backbone = pretrained_backbone("lite0_vit", stem_levels=True).eval()
    cnn = pretrained_backbone("lite0", output_stride=16).eval()
    image = torch.rand(1, 3, 75, 101) * 2 - 1
    with torch.no_grad():
        own = backbone.net.patch_embed.backbone.levels(image)
        finer, other = backbone(image).pyramid[:3], cnn(image).pyramid
    for a, b in zip(own, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(own[:3], finer, strict=True))
    assert backbone.widths == (24, 40, 112, 192)
    assert backbone.strides == (4, 8, 16, 16)


def test_tokens_begin_along_the_directions_of_the_classes():
    backbone = pretrained_backbone("lite0_vit")
    classifier = lite0_classifier()
    photos = [photo.image()[None, :, :160, :160] * 2 - 1 for photo in open_photos()[:6]]
    stem = backbone.net.patch_embed.backbone(torch.cat(photos))
    tokens = backbone.net.patch_embed.proj(stem)
    assert 0.5 < tokens.square().mean().item() < 2
    logits = classifier(stem.permute(0, 2, 3, 1).flatten(0, 2))
    logits = logits - logits.mean(1, keepdim=True)
    kept = tokens.permute(0, 2, 3, 1).flatten(0, 2)
    # distances of cells in 192 numbers are, nearly, those in 1,000 logits
    one, other = torch.pdist(kept[::7]), torch.pdist(logits[::7])
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.98


def test_axes_keep_distances_of_centred_logits():
    classifier = lite0_classifier()
    a, b = torch.rand(2, 5, 1280)
    logits = classifier(a) - classifier(b)
    centred = (logits - logits.mean(1, keepdim=True)).square().sum(1)
    along = ((a - b) @ class_axes(classifier, 1000)).square().sum(1)
    assert torch.allclose(along, centred, rtol=1e-3)
    fewer = ((a - b) @ class_axes(classifier, 192)).square().sum(1)
    assert (fewer < along).all()
    axes = class_axes(classifier, 8).T
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()


def test_blocks_add_less_at_the_start_with_a_smaller_residual():
    torch.manual_seed(0)
    usual = build_backbone("lite0_vit").eval()
    torch.manual_seed(0)
    small = build_backbone("lite0_vit", residual=0.1).eval()
    tokens = torch.randn(1, 10, 192)
    for one, other in zip(usual.net.blocks, small.net.blocks, strict=True):
        for part in ("attn", "mlp"):
            a, b = (getattr(block, part)(tokens) for block in (one, other))
            torch.testing.assert_close(b, 0.1 * a)


@pytest.mark.parametrize("source", ["imagenet", "pip:efficientnet-lite0"])
def test_both_names_of_the_weights_load_the_same(source):
    backbone = pretrained_backbone("lite0_vit", source)
    cnn = pretrained_backbone("lite0")
    stem = backbone.net.patch_embed.backbone
    assert torch.equal(stem.blocks[6][0].conv_pwl.weight, cnn.net.blocks[6][0].conv_pwl.weight)
    assert backbone.weight_tag == "pip:efficientnet-lite0"


def test_blocks_stay_as_they_were_drawn():
    torch.manual_seed(3)
    drawn = build_backbone("lite0_vit", depth=2, width=96).net.blocks.state_dict()
    torch.manual_seed(3)
    loaded = pretrained_backbone("lite0_vit", depth=2, width=96).net.blocks.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in drawn.items())


def test_size():
    backbone = build_backbone("lite0_vit")
    assert count_parameters(Lite0Stem()) == STEM_PARAMETERS
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    assert trained == count_parameters(backbone) - STEM_PARAMETERS == 2_953_536
    assert (backbone.input_mean, backbone.input_std) == ((0.5,) * 3, (0.5,) * 3)


def test_stem_is_frozen_unless_asked_for():
    image = torch.rand(2, 3, 64, 64)
    frozen = build_backbone("lite0_vit", freeze_norm=False).train()
    frozen(image).cls.sum().backward()
    stem = frozen.net.patch_embed.backbone
    assert all(p.grad is None for p in stem.parameters())
    assert stem.bn1.num_batches_tracked == 0
    trained = build_backbone("lite0_vit", train_stem=True, freeze_norm=False).train()
    trained(image).cls.sum().backward()
    stem = trained.net.patch_embed.backbone
    assert all(p.grad is not None for p in stem.parameters())
    assert stem.bn1.num_batches_tracked == 1


def test_frozen_and_trained_stem_compute_the_same():
    image = torch.rand(2, 3, 64, 96) * 2 - 1
    torch.manual_seed(0)
    frozen = pretrained_backbone("lite0_vit").train()
    torch.manual_seed(0)
    trained = pretrained_backbone("lite0_vit", train_stem=True).train()
    torch.testing.assert_close(frozen(image).cls, trained(image).cls, atol=1e-4, rtol=1e-4)


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
