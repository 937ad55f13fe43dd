"""Views of an image and how they are joined, against loops written out."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from joined_logits import multi_scale_logits
from pixels import Pixels

from wsss_lab.cam import FUSIONS, Fusion, normalize_cam
from wsss_lab.evaluate.inference import (
    LOGIT_FUSIONS,
    MultiScale,
    multi_scale_predict,
    scaled,
)
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
from wsss_lab.methods.common.base import Method
from wsss_lab.methods.cosa import values as cosa
from wsss_lab.methods.tscd import values as tscd
from wsss_lab.models.backbones import build_backbone
from wsss_lab.runs.recipe import find_views

LOGITS = {
    "mean": LOGIT_FUSIONS["mean"],
    "tscd": tscd.LOGIT_FUSION,
    "cosa": cosa.EVAL_LOGIT_FUSION,
}


def resize(x, size):
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def images(h=40, w=56, b=2):
    return torch.rand(b, 3, h, w, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
@pytest.mark.parametrize("rule", sorted(LOGITS))
def test_logits_are_those_of_a_loop_over_views(rule):
    method, x, fusion = Pixels(), images(), LOGITS[rule]
    per_scale = []
    for scale in fusion.scales:
        view = resize(x, (int(40 * scale), int(56 * scale)))
        plain = resize(method.predict(view).logits, (40, 56))
        mirrored = resize(method.predict(view.flip(-1)).logits, (40, 56)).flip(-1)
        both = plain + mirrored
        per_scale.append(both if fusion.fuse_flip == "sum" else both / 2)
    stacked = torch.stack(per_scale)
    expected = {"mean": stacked.mean(0), "tscd": stacked.amax(0), "cosa": stacked.sum(0)}[rule]
    joined = multi_scale_logits(lambda v: method.predict(v).logits, x, fusion)
    torch.testing.assert_close(joined, expected, atol=1e-5, rtol=1e-5)
    views = MultiScale(logits=fusion, cam=FUSIONS["single"], min_side=1)
    torch.testing.assert_close(multi_scale_predict(method.predict, x, views).logits, joined)


@torch.no_grad()
def test_one_pass_serves_two_rules_with_different_scales_and_flips():
    calls = []

    class Counting(Pixels):
        def predict(self, images, tags=None):
            calls.append(tuple(images.shape))
            return super().predict(images, tags)

    method, x = Counting(), images()
    views = MultiScale(LOGIT_FUSIONS["single"], FUSIONS["multi_scale"], "min_max", min_side=1)
    output = multi_scale_predict(method.predict, x, views)
    assert [shape[0] for shape in calls] == [4, 4, 4]  # three scales with mirrored copies
    torch.testing.assert_close(output.logits, resize(method.predict(x).logits, (40, 56)))
    cam = 0
    for scale in (1.0, 0.5, 1.5):
        view = resize(x, (int(40 * scale), int(56 * scale)))
        plain = resize(method.predict(view).cam, (40, 56))
        mirrored = resize(method.predict(view.flip(-1)).cam, (40, 56)).flip(-1)
        cam = cam + torch.maximum(plain, mirrored).relu()
    torch.testing.assert_close(output.cam, normalize_cam(cam, "min_max"), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_tag_logits_are_the_mean_over_views():
    method, x = Pixels(), images()
    rows = [
        method.predict(v).tag_logits
        for scale in (1.0, 0.5)
        for v in scaled(x, scale, True).chunk(2)
    ]
    views = MultiScale(cam=Fusion(scales=(1.0, 0.5)), min_side=1)
    found = multi_scale_predict(method.predict, x, views).tag_logits
    torch.testing.assert_close(found, torch.stack(rows).mean(0))


@torch.no_grad()
def test_a_mirrored_image_gives_mirrored_output():
    method, x = Pixels(), images(48, 64)
    views = MultiScale(LOGIT_FUSIONS["mean"], FUSIONS["multi_scale"])
    one = multi_scale_predict(method.predict, x, views)
    other = multi_scale_predict(method.predict, x.flip(-1), views)
    torch.testing.assert_close(other.logits.flip(-1), one.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(other.cam.flip(-1), one.cam, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_resizing_first_still_answers_at_image_size():
    method, x = Pixels(), images(30, 70)
    for views in (
        replace(find_views("cosa-test"), side=32),
        replace(find_views("tscd-test"), side=64),
        MultiScale(resize="long", side=35),
    ):
        output = multi_scale_predict(method.predict, x, views)
        assert output.logits.shape == (2, 4, 30, 70)
        assert output.cam.shape == (2, 3, 30, 70)
    assert find_views("tscd-test").size_of(375, 500) == (384, 512)
    assert find_views("cosa-test").size_of(375, 500) == (448, 448)


@torch.no_grad()
def test_true_tags_reach_the_method_once_per_view_and_only_if_given():
    seen = []

    class Told(Pixels):
        def predict(self, images, tags=None):
            seen.append(None if tags is None else tags.shape)
            return super().predict(images, tags)

    tags = torch.ones(2, 3)
    views = MultiScale(cam=FUSIONS["multi_scale"])
    multi_scale_predict(Told().predict, images(), views)
    assert seen == [None] * 3
    multi_scale_predict(Told().predict, images(), views, tags)
    assert seen[3:] == [(4, 3)] * 3


@torch.no_grad()
def test_the_baselines_predict():
    x = torch.rand(2, 3, 64, 80)
    classifier = TagClassifier(build_backbone("toy_cnn"), 10).eval()
    said = classifier.predict(x)
    torch.testing.assert_close(said.cam, classifier.raw_cam(x))
    torch.testing.assert_close(said.tag_logits, classifier(x))
    assert said.logits is None
    network = SegNetwork(build_backbone("toy_cnn"), 11).eval()
    torch.testing.assert_close(network.predict(x).logits, network(x))
    with pytest.raises(TypeError, match="Method has no prediction"):
        Method().predict(x)


@torch.no_grad()
def test_small_images_are_enlarged_and_answered_at_their_size():
    sizes = []

    class Picky(Pixels):
        def predict(self, images, tags=None):
            sizes.append(tuple(images.shape[-2:]))
            return super().predict(images, tags)

    views = MultiScale(LOGIT_FUSIONS["mean"], FUSIONS["multi_scale"])
    output = multi_scale_predict(Picky().predict, images(20, 50), views)
    assert sizes == [(32, 80), (32, 80), (32, 80)]
    assert output.logits.shape[-2:] == output.cam.shape[-2:] == (20, 50)
    sizes.clear()
    multi_scale_predict(Picky().predict, images(64, 64), views)
    assert sizes == [(64, 64), (32, 32), (96, 96)]


def test_bad_views():
    with pytest.raises(ValueError, match="at least one pixel"):
        scaled(images(8, 8), 0.1, True)
    with pytest.raises(ValueError, match='relu="none"'):
        MultiScale(logits=FUSIONS["multi_scale"])
    with pytest.raises(ValueError, match="resize: expected one of none, long, squash"):
        MultiScale(resize="wide", side=3)
    with pytest.raises(ValueError, match="side must be given"):
        MultiScale(resize="long")
