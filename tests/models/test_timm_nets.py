"""Networks of timm as backbones: maps, sizes, input range, attention, weights, refusals."""

import pytest
import timm
import torch

from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.timm_nets import TRIED
from wsss_lab.models.weights import load_backbone_weights

VIT = "timm:vit_tiny_patch16_224"


@pytest.mark.parametrize("name", TRIED)
def test_tried_networks_take_any_size_and_keep_their_word(name):
    backbone = build_backbone(f"timm:{name}").eval()
    assert backbone.name == f"timm:{name}"
    for h, w in [(64, 96), (75, 101)]:
        with torch.no_grad():
            features = backbone(torch.randn(2, 3, h, w))
        assert len(features.pyramid) == len(backbone.widths)
        for x, d, s in zip(features.pyramid, backbone.widths, backbone.strides, strict=True):
            assert x.shape[:2] == (2, d)
            assert x.shape[2] in (h // s, -(-h // s))
            assert x.shape[3] in (w // s, -(-w // s))
            assert torch.isfinite(x).all()
        if features.tokens is not None:
            assert torch.equal(features.last.flatten(2).mT, features.tokens)
            assert features.cls.shape == (2, backbone.width)


def test_there_are_cnns_and_transformers_among_the_tried():
    built = {build_backbone(f"timm:{name}").plain for name in ("resnet10t", "vit_tiny_patch16_224")}
    assert built == {True, False}
    assert all(timm.is_model(name) for name in TRIED)


def test_mean_and_deviation_are_those_of_the_networks_own_configuration():
    images = torch.rand(1, 3, 32, 32)
    half = build_backbone(VIT)
    assert (half.input_mean, half.input_std) == ((0.5,) * 3, (0.5,) * 3)
    assert torch.allclose(half.normalize(images), images * 2 - 1)
    imagenet = build_backbone("timm:resnet10t")
    assert imagenet.input_mean == build_backbone("resnet18").input_mean == (0.485, 0.456, 0.406)


def test_last_map_is_timms_own_output_at_its_own_size():
    backbone = build_backbone(VIT, levels=(-3,)).eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        features = backbone(image)
        own = backbone.net.forward_features(image)
    assert torch.allclose(features.tokens, own[:, 1:], atol=1e-5)
    assert torch.allclose(features.cls, own[:, 0], atol=1e-5)
    assert [tuple(x.shape) for x in features.pyramid] == [(1, 192, 14, 14)] * 2
    assert not torch.allclose(*features.pyramid)


def test_attention_is_recorded_and_gradients_reach_it():
    backbone = build_backbone(VIT)
    with record_attention(backbone, layers=(-1,)) as record:
        last = backbone(torch.randn(1, 3, 64, 32)).last
    assert record.stack().shape == (1, 1, 3, 9, 9)
    (gradient,) = torch.autograd.grad(last.sum(1).square().sum(), record.maps)
    assert gradient.abs().sum() > 0


def test_output_stride_is_passed_on():
    backbone = build_backbone("timm:resnet10t", output_stride=16)
    assert backbone.strides == (2, 4, 8, 16, 16)
    assert backbone(torch.randn(1, 3, 64, 64)).last.shape[2:] == (4, 4)


@pytest.mark.parametrize("name", ["resnet10t", "tf_efficientnet_lite0", "convnext_atto"])
def test_files_with_timms_classifier_load_strictly(name, tmp_path):
    donor = timm.create_model(name)
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    backbone = load_backbone_weights(build_backbone(f"timm:{name}"), tmp_path / "w.pth")
    own = backbone.net.state_dict()
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in own.items())
    assert backbone.weight_tag == "file:w.pth"


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("timm:resnet19", {}, "has no network 'resnet19'; near it: "),
        ("timm:mixer_s16_224", {}, "images of one size only"),
        ("timm:resnet10t", {"levels": (1,)}, "levels is for plain transformers"),
        ("timm:vit_tiny_patch16_224", {"levels": (12,)}, r"\[-12, 11\]"),
        ("timm:resnet10t", {"colour": 1}, "options .*colour.* do not all fit"),
        ("resnet19", {}, "or timm:NAME, got 'resnet19'"),
    ],
)
def test_refusals(name, options, match):
    with pytest.raises(ValueError, match=match):
        build_backbone(name, **options)
