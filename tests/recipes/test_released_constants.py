"""Constants of the released codes that no preset holds, each with its source.

Sources are sections of the methods' specifications, `../shared/methods`. Tables are reached through
what reads them, so that they may move.
"""

import dataclasses

import pytest
import torch

from wsss_lab import IGNORE
from wsss_lab.config import IMAGENET_MEAN, IMAGENET_STD
from wsss_lab.refine import PAMR, PAR, VARM, DenseCRF, DenseEnergyLoss
from wsss_lab.runs.recipe import find_crf, find_preset, find_recipe, find_views


def crf(name):
    """(iterations, (sigma, weight), (sigma_xy, sigma_rgb, weight), clip, normalised)."""
    found = find_crf(name)
    assert isinstance(found, DenseCRF)
    near = (found.spatial_sigma, found.spatial_weight)
    far = (found.bilateral_sigma_xy, found.bilateral_sigma_rgb, found.bilateral_weight)
    return found.iterations, near, far, found.clip, found.normalised


@pytest.mark.parametrize(
    ("name", "numbers", "source"),
    [
        ("tscd-eval", (10, (3, 3), (64, 5, 4), 1e-5, True), "TSCD 6, AFA's test script"),
        ("tscd-cam", (10, (3, 3), (80, 13, 10), 1e-5, True), "TSCD golden dense_crf, released"),
        ("tscd-label", (10, (3, 3), (50, 5, 10), 1e-5, True), "TSCD golden dense_crf, released"),
        ("cosa-eval", (1, (1, 1), (121, 5, 4), 1e-5, True), "CoSA 5, released"),
        ("cosa-helper", (10, (4, 3), (83, 5, 3), 1e-5, True), "CoSA 5, released, not called"),
        ("acr-cam", (10, (3, 3), (80, 13, 10), 1e-5, False), "ACR 6, released"),
        ("acr-seg", (10, (3, 3), (83, 5, 4), 1e-5, True), "ACR 6, released, not called"),
        ("acr-label", (10, (3, 3), (50, 5, 10), 1e-5, True), "ACR 6, released, not called"),
        ("asdt-cam", (10, (3, 3), (80, 13, 10), 1e-5, False), "ASDT 1.4 step 3, released"),
        ("asdt-seg", (10, (3, 3), (83, 5, 4), 1e-5, False), "ASDT 1.6 and 1.8, released"),
    ],
)
def test_dense_crf_of_the_papers(name, numbers, source):
    assert source
    assert crf(name) == numbers


def fusion(rule):
    return rule.scales, rule.flip, rule.fuse_flip, rule.fuse_scale, rule.relu, rule.align_corners


THREE, FIVE = (1.0, 0.5, 1.5), (1.0, 0.5, 1.5, 0.75, 1.25)


@pytest.mark.parametrize(
    ("method", "logits", "cam", "frame", "source"),
    [
        (
            "tscd",
            ((1.0, 0.5, 0.75), True, "mean", "max", "none", False),
            (THREE, True, "max", "sum", "after_flip", False),
            ((False, True, 1e-5, "class"), "long", 512, "grid"),
            "TSCD 6 (AFA's test script) and 4.1",
        ),
        (
            "cosa",
            (FIVE, True, "sum", "sum", "none", False),
            (FIVE, True, "max", "sum", "after_flip", False),
            ((False, True, 1e-5, "class"), "squash", 448, "image"),
            "CoSA 5",
        ),
        (
            "asdt",
            ((1.0,), False, "max", "sum", "none", False),
            ((1.0,), False, "max", "sum", "after_flip", False),
            ("plain", "none", 0, "image"),
            "ASDT 1.8: a single scale, the whole image",
        ),
        (
            "acr",
            ((1.0, 0.5, 0.75, 1.25, 1.5), True, "max", "max", "none", False),
            ((1.0,), False, "max", "sum", "after_flip", False),
            ("plain", "none", 0, "image"),
            "DeepLabV2's paper: maximum over scales",
        ),
    ],
)
def test_views_of_the_released_evaluations(method, logits, cam, frame, source):
    assert source
    views = find_views(find_preset(method, "voc-released").test.views)
    assert fusion(views.logits) == logits
    assert fusion(views.cam) == cam
    rule = views.cam_norm
    if not isinstance(rule, str):  # (ReLU first, minimum subtracted, epsilon, extremes over)
        rule = (rule.relu, rule.subtract_min, rule.eps, rule.over)
    assert (rule, views.resize, views.side, views.join_at) == frame


def build(method, preset="voc-released", classes=20):
    config = find_preset(method, preset)
    with torch.device("meta"):
        return find_recipe(method).build(config, classes, False), config


def test_maps_of_training():
    """TSCD 4.1, ASDT 1.4 step 1."""
    tscd, _ = build("tscd")
    assert fusion(tscd.fusion) == (THREE, True, "max", "sum", "after_flip", False)
    asdt, _ = build("asdt")
    four = (1.0, 0.5, 1.5, 2.0)
    assert fusion(asdt.network.fusion) == (four, False, "max", "mean", "before", False)


@pytest.mark.parametrize("method", ["tscd", "cosa", "asdt"])
def test_dense_energy(method):
    """TSCD 3.5, CoSA 3 item 4, ASDT 1.5; halves are sampled by the ratio of sizes in ASDT only."""
    energy = build(method)[0].energy
    wanted = DenseEnergyLoss(
        weight=1e-7,
        sigma_rgb=15,
        sigma_xy=100,
        scale=0.5,
        gradient="released",
        old_resize=method == "asdt",
    )
    assert dataclasses.asdict(energy) == dataclasses.asdict(wanted)


def test_refiners():
    """TSCD 3.1 (VARM), 3.2 (PAR), 3.3 and golden pamr_default (PAMR)."""
    for refiner, contrast, power, eps, centre, position, variation in (
        (VARM, 4.0, 2, 1e-8, False, 0.0, 0.01),
        (PAR, 1 / 0.3, 2, 1e-8, False, 0.01, 0.0),
        (PAMR, 10.0, 1, 1e-7, True, 0.0, 0.0),
    ):
        found = refiner()
        assert (found.dilations, found.iterations) == ((1, 2, 4, 8, 12, 24), 10)
        kernel = tuple(vars(found.kernel).values())
        assert kernel == (contrast, power, eps, centre, position, variation)
    assert isinstance(build("tscd")[0].refiner, VARM)


def test_slow_averages():
    """CoSA 1 (teacher 0.9994), 3 item 5 (thresholds 0.99, values above 0.05)."""
    config = find_preset("cosa", "voc-released")
    small = dataclasses.replace(config.method, backbone="toy_cnn", hidden=8, search="bands")
    config = dataclasses.replace(config, method=small, weights="random")
    method = find_recipe("cosa").build(config, 3, False)
    assert method.assignment.momentum == 0.9994
    for search, starts in zip(method.searches, ((0.20, 0.70), (0.25, 0.70)), strict=True):
        assert (search.momentum, search.least) == (0.99, 0.05)
        torch.testing.assert_close(search.thresholds, torch.tensor(starts))
        assert search.queue.values.shape == (200, 28 * 28)


@pytest.mark.parametrize(
    ("method", "groups", "source"),
    [
        (
            "cosa",
            [(99, 6e-5, 0.01), (50, 6e-5, 0.01), (2, 6e-4, 0.01), (3, 6e-4, 0.01)],
            "CoSA 4: encoder (there 102: with the unused head and the fixed positions), its norms, "
            "classifiers, decoder",
        ),
        (
            "tscd",
            [(116, 6e-5, 0.01), (60, 0.0, 0.0), (3, 6e-4, 0.01), (13, 6e-4, 0.01)],
            "TSCD 5: encoder, its frozen norms, classifier and affinity, decoder",
        ),
        (
            "asdt",
            [(None, 7e-4, 1e-5), (0, 1.4e-3, 0.0), (5, 7e-3, 1e-5), (4, 1.4e-2, 0.0)],
            "ASDT 1.8: rates times 1, 2, 10, 20; no decay of vectors",
        ),
    ],
)
def test_parameter_groups_of_the_released_codes(method, groups, source):
    assert source
    built, config = build(method)
    optim = config.optim
    found = built.param_groups(optim.lr, optim.lr * optim.head_lr_factor, optim.weight_decay)
    assert len(found) == len(groups)
    for group, (count, rate, decay) in zip(found, groups, strict=True):
        assert count is None or len(list(group["params"])) == count
        assert (group["lr"], group["weight_decay"]) == pytest.approx((rate, decay))


def test_acr_trains_everything_at_one_rate():
    """ACR 4: one group, no decay in the released form."""
    built, config = build("acr")
    optim = config.optim
    groups = built.param_groups(optim.lr, optim.lr * optim.head_lr_factor, optim.weight_decay)
    assert {group["lr"] for group in groups} == {0.05}
    assert {group["weight_decay"] for group in groups} == {0.0}


def test_colours_and_labels():
    """ImageNet's mean and deviation (TSCD 5, CoSA 4, ACR 4, ASDT 1.8), 255 for no label."""
    assert IGNORE == 255
    assert IMAGENET_MEAN == (0.485, 0.456, 0.406)
    assert IMAGENET_STD == (0.229, 0.224, 0.225)
