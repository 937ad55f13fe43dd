"""Every method gives its backbone images normalised as that backbone declares."""

from dataclasses import replace

import pytest
import torch

from wsss_lab.cam import Fusion
from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD
from wsss_lab.data.config import DataConfig
from wsss_lab.data.loader import StepLoader
from wsss_lab.data.transform import TrainingTransform
from wsss_lab.evaluate.inference import LOGIT_FUSIONS, MultiScale, multi_scale_predict
from wsss_lab.methods import acr, asdt, cosa, tscd
from wsss_lab.methods.acr.plugin import ConsistencyConfig, WithConsistency
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
from wsss_lab.methods.common.affinity_net import AffinityNetwork
from wsss_lab.methods.common.deeplab import DeepLabV2
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone

SIDE, K, STEP = 64, 3, 6  # of ASDT, a step inside a pulse
COLOUR = (0.2, 0.4, 0.9)
HALF = (0.5, 0.5, 0.5)
BY_HALF = [(value - 0.5) / 0.5 for value in COLOUR]
BY_IMAGENET = [(c - m) / s for c, m, s in zip(COLOUR, IMAGENET_MEAN, IMAGENET_STD, strict=True)]


def halved(name):
    """A toy network that declares what `lite0` does, for methods that cannot take `lite0`."""
    backbone = build_backbone(name)
    backbone.input_mean = backbone.input_std = HALF
    return backbone


def make_cosa(backbone):
    config = replace(cosa.PRESETS["toy"], warmup=0, scales=(1.0, 0.5), queue_rows=16)
    return cosa.CoSA(backbone, K, config)


def make_tscd(backbone):
    return tscd.TSCD(backbone, K, replace(tscd.PRESETS["toy"], warmup=0, scales=(1.0, 1.5)))


def make_asdt(backbone):
    config = replace(asdt.PRESETS["toy"], warmup=0, period=6, scales=(1.0, 0.5))
    return asdt.ASDT(backbone, K, config)


MAKERS = {
    "tags": (lambda b: TagClassifier(b, K), "lite0", "toy_cnn"),
    "decoder": (lambda b: SegNetwork(b, K + 1), "lite0", "toy_cnn"),
    "deeplab": (lambda b: DeepLabV2(b, K + 1), "lite0", "toy_cnn"),
    "affinity": (lambda b: AffinityNetwork(b, (8, 8)), "lite0", "toy_cnn"),
    "asdt": (make_asdt, "lite0", "toy_cnn"),
    "cosa": (make_cosa, "lite0", "toy_cnn"),
    "acr": (lambda b: acr.ACR(b, K), "lite0_vit", "toy_vit2"),
    "tscd": (make_tscd, None, "toy_mit2"),
    "plugin": (
        lambda b: WithConsistency(make_tscd(b), ConsistencyConfig(alpha=1.0)), None, "toy_mit2"
    ),
}  # fmt: skip


CASES = [
    case
    for name, (make, own, toy) in MAKERS.items()
    for case in (
        pytest.param(
            make, build_backbone if own else halved, own or toy, BY_HALF, HALF,
            id=f"{name}-{own or 'half'}",
        ),
        pytest.param(make, build_backbone, toy, BY_IMAGENET, IMAGENET_MEAN, id=f"{name}-{toy}"),
    )
]  # fmt: skip


def batch():
    images = torch.tensor(COLOUR)[None, :, None, None].expand(2, 3, SIDE, SIDE).contiguous()
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.int64)
    masks[:, 20:40] = 1
    return {"images": images, "strong": images.clone(), "tags": tags, "masks": masks}


class Seen:
    """Remembers the inputs of every backbone of a method."""

    def __init__(self, method):
        self.inputs = []
        for module in method.modules():
            if isinstance(module, Backbone):
                module.register_forward_pre_hook(lambda _, args: self.inputs.append(args[0]))

    def check(self, colour):
        assert self.inputs
        expected = torch.tensor(colour)[None, :, None, None]
        for images in self.inputs:  # of any scale: a constant stays one
            torch.testing.assert_close(images, expected.expand_as(images), atol=2e-6, rtol=1e-5)
        self.inputs.clear()


@pytest.mark.parametrize(("make", "build", "backbone", "colour", "mean"), CASES)
def test_backbones_get_what_they_declare(make, build, backbone, colour, mean):
    torch.manual_seed(0)
    method = make(build(backbone)).train()
    seen, data = Seen(method), batch()
    assert method.input_mean == mean
    method.training_step(data, STEP)
    seen.check(colour)
    method.eval()
    views = MultiScale(LOGIT_FUSIONS["mean"], Fusion(scales=(1.0, 1.5)), min_side=1)
    with torch.no_grad():
        if isinstance(method, acr.ACR):
            method.localise(data["images"], data["tags"])
            seen.check(colour)
            method.patch_cam(data["images"])
        elif isinstance(method, AffinityNetwork):
            method.propagate(data["images"], torch.rand(2, 3, 8, 8), steps=1)
        else:
            multi_scale_predict(method.predict, data["images"][:1], views)
    seen.check(colour)
    if isinstance(method, tscd.TSCD):
        method.propagated_cam(data["images"], torch.rand(2, K, 8, 8), data["tags"])
        seen.check(colour)


class White:
    """White images that are smaller than the crop."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = torch.full((3, 40, 40), 255, dtype=torch.uint8)
        return {"image": image, "tags": torch.ones(K), "name": str(index)}


@pytest.mark.parametrize(("build", "mean"), [(halved, HALF), (build_backbone, IMAGENET_MEAN)])
def test_padding_by_the_mean_is_0_for_the_network(build, mean):
    method = TagClassifier(build("toy_cnn"), K)
    settings = DataConfig(crop=SIDE, scale=(1.0, 1.0), pad="mean")
    made = StepLoader(White(), 2, 0, TrainingTransform(settings, method.input_mean))(0)
    seen = method.backbone.normalize(made["images"])
    outside = ~made["valid"]
    assert outside.any()
    assert (seen.movedim(1, -1)[outside] == 0).all()
    white = (1 - torch.tensor(mean)) / torch.tensor(method.backbone.input_std)
    torch.testing.assert_close(seen.movedim(1, -1)[~outside][0], white)
