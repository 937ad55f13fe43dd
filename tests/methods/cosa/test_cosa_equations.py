"""Labels and losses of CoSA against their definitions, and its techniques in the step."""

import math

import pytest
import torch
import torch.nn.functional as F
from tiny_cosa import K, make, step

from wsss_lab import IGNORE
from wsss_lab.cam import cam_to_pseudo_label, fuse_cams, present_classes
from wsss_lab.cam.fusion import Fusion
from wsss_lab.methods.cosa.labels import label_from_cam, sampled_target, soft_target
from wsss_lab.methods.cosa.losses import (
    balanced_mean,
    certain_regions,
    perplexity_weights,
    pixel_entropy,
    separation_infonce,
    separation_margin,
)


def test_perplexity_weights_reach_the_loss():
    with_weights, without = (step(make(perplexity=flag, search="none")) for flag in (True, False))
    assert torch.equal(with_weights.panels["labels"], without.panels["labels"])
    assert with_weights.parts["seg"] != without.parts["seg"]


@pytest.mark.parametrize("form", ["margin", "infonce"])
def test_separation_reaches_the_loss_and_the_maps(form):
    method = make(separation=form, search="none", low=0.4, aux_low=0.4)
    out = step(method)
    assert out.parts["separation"] > 0
    grad = torch.autograd.grad(out.parts["separation"], method.online.tag_head.linear.weight)[0]
    assert grad.abs().sum() > 0
    assert "separation" not in step(make(separation="none")).parts


@pytest.mark.parametrize("how", ["bands", "mixture", "split"])
def test_searched_thresholds_move_and_make_the_labels(how):
    method = make(search=how, random_queue=True)
    start = method.searches[0].thresholds.clone()
    out = step(method)
    assert not torch.equal(method.searches[0].thresholds, start)
    assert out.parts["low_main"] <= out.parts["high_main"]
    if how != "bands":  # one threshold leaves no pixel undecided inside the box
        assert not (out.panels["labels"][0] == IGNORE).any()
    assert len(make(search="none").searches) == 0


def test_searched_thresholds_equal_fixed_ones_at_full_resolution():
    torch.manual_seed(0)
    cam, tags = torch.rand(2, K, 16, 16), torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    index, present = present_classes(tags)
    chosen = (
        cam.gather(1, index[:, :, None, None].expand(-1, -1, 16, 16)) * present[:, :, None, None]
    )
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[1, :4] = False
    low, high = torch.tensor(0.3), torch.tensor(0.6)
    got = label_from_cam(chosen, index, present, low, high, valid)
    assert torch.equal(got, cam_to_pseudo_label(cam, tags, 0.3, 0.6, down_scale=1, valid=valid))
    fixed = label_from_cam(chosen, index, present, 0.3, 0.6, valid)
    assert torch.equal(fixed, cam_to_pseudo_label(cam, tags, 0.3, 0.6, valid=valid))


def test_sampled_target_is_the_full_target_resized():
    torch.manual_seed(0)
    tags = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    index, present = present_classes(tags)
    for size, grids in (
        ((40, 56), ((5, 7), (4, 3), (40, 56), (3, 20), (1, 1))),
        ((9, 9), ((4, 4),)),
    ):
        views = [torch.randn(4, K + 1, *g) for g in ((5, 7), (2, 3), (8, 11))]
        rule = Fusion((1.0, 0.5, 1.5), fuse_flip="sum", relu="none")
        full = soft_target(fuse_cams(views, size, rule), tags, 0.5)[:, 1:]
        for grid in grids:
            expected = F.interpolate(full, grid, mode="bilinear")
            expected = expected.gather(1, index[:, :, None, None].expand(-1, -1, *grid))
            got = sampled_target(views, index, present, size, grid, 0.5)
            torch.testing.assert_close(got, expected * present[:, :, None, None], atol=1e-5, rtol=0)


def test_soft_target_needs_a_temperature():
    with pytest.raises(ValueError, match="temperature"):
        soft_target(torch.zeros(1, 3, 2, 2), torch.ones(1, 2), 0.0)


def test_balanced_mean_by_hand():
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 4)
    labels = torch.randint(0, 3, (2, 4, 4))
    labels[0, 0] = IGNORE
    entropy = pixel_entropy(logits, labels[:, None])[:, 0]
    each = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
    torch.testing.assert_close(entropy, each)
    front = (labels > 0) & (labels != IGNORE)
    expected = 0.7 * each[labels == 0].mean() + 0.3 * each[front].mean()
    torch.testing.assert_close(balanced_mean(entropy, labels, foreground=0.3), expected)


@pytest.mark.parametrize("only", [0, 1, IGNORE])
def test_losses_of_one_kind_of_pixel_are_finite(only):
    labels = torch.full((2, 8, 8), only)
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    score = torch.rand(2, 8, 8)
    weights = perplexity_weights(score, labels, 0.3, 0.6)
    loss = balanced_mean(pixel_entropy(logits, labels[:, None])[:, 0], labels, weights)
    cam, features = torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(2, 5, 4, 4)
    index, present = torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool)
    regions = certain_regions(labels, index, (4, 4))
    separation = separation_margin(cam, *regions, present)
    separation = separation + separation_infonce(cam, features, *regions, present)
    assert separation == 0
    (loss + separation).backward()
    assert loss.isfinite()
    assert (loss == 0) == (only == IGNORE)
    assert logits.grad.isfinite().all()
    assert (cam.grad == 0).all()


def test_inverse_perplexity_is_a_flatter_weight_of_the_same_mean():
    score = torch.linspace(0.05, 0.95, 19).view(1, 1, 19)
    labels = (score > 0.5).long()
    exp, inverse = (
        perplexity_weights(score, labels, 0.5, 0.5, 0.8, 1.5, form) for form in ("exp", "inverse")
    )
    front = labels == 1
    v = score[front]
    wanted = (-(0.8 * (v - 0.5) / 0.5).log()).pow(-1.5)
    torch.testing.assert_close(inverse[front], wanted / wanted.mean())
    for weights in (exp, inverse):
        torch.testing.assert_close(weights[front].mean(), torch.tensor(1.0))
        assert bool((weights[front].diff() > 0).all())
    assert float(exp.max()) > 2 * float(inverse.max())
    with pytest.raises(ValueError, match="form"):
        perplexity_weights(score, labels, 0.5, 0.5, form="log")  # type: ignore[arg-type]


def test_perplexity_weights_by_the_formula():
    torch.manual_seed(0)
    score, xi, alpha, beta = torch.rand(2, 12, 12) * 0.98 + 0.01, 0.4, 0.7, 1.5
    labels = (score > xi).long()
    labels[0, :2] = IGNORE
    got = perplexity_weights(score, labels, xi, xi, alpha, beta, "exp")
    for region, share in (
        (labels == 1, (score - xi) / (1 - xi)),
        (labels == 0, (xi - score) / xi),
    ):
        perplexity = (-(alpha * share[region].double()).log()) ** beta
        raw = (1 / perplexity).exp()
        torch.testing.assert_close(got[region], (raw / raw.mean()).float(), rtol=1e-4, atol=1e-6)
        assert float(got[region].mean()) == pytest.approx(1, abs=1e-5)
        surest, most_doubtful = share[region].argmax(), share[region].argmin()
        assert got[region][surest] == got[region].max()
        assert got[region][most_doubtful] == got[region].min()
    assert (got[labels == IGNORE] == 0).all()


def test_perplexity_refuses_nonsense():
    score, labels = torch.rand(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long)
    for alpha, beta in ((0.0, 1.0), (1.0, 1.0), (0.5, 0.5)):
        with pytest.raises(ValueError, match="alpha"):
            perplexity_weights(score, labels, 0.3, 0.6, alpha, beta)


def rails_under_a_train():
    """Left third: the class. Middle third: its companion, sure background. Right: other ground."""
    labels = torch.zeros(1, 6, 9, dtype=torch.long)
    labels[..., :3] = 1
    features = torch.zeros(1, 3, 6, 9)
    for part in range(3):
        features[:, part, :, 3 * part : 3 * part + 3] = 1
    index, present = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    return features, certain_regions(labels, index, (6, 9)), present


@pytest.mark.parametrize("form", ["margin", "infonce"])
def test_separation_pushes_the_map_off_the_companion(form):
    features, regions, present = rails_under_a_train()

    def loss(cam):
        if form == "margin":
            return separation_margin(cam, *regions, present, margin=0.9)
        return separation_infonce(cam, features, *regions, present)

    tight, wide = torch.full((2, 1, 1, 6, 9), -4.0)
    tight[..., :3] = 4
    wide[..., :6] = 4
    assert loss(tight) < loss(wide)
    wide.requires_grad_()
    (grad,) = torch.autograd.grad(loss(wide), wide)
    assert (grad[..., 3:6] > 0).all()  # descending lowers the map on the companion
    assert (grad[..., :3] < 0).all()  # and raises it on the object


def test_separation_margin_by_hand():
    torch.manual_seed(0)
    cam = torch.randn(2, 2, 5, 5)
    labels = torch.randint(0, 3, (2, 5, 5))
    labels[1][labels[1] == 2] = IGNORE  # image 1 lacks the second class
    index = torch.tensor([[0, 1], [0, 1]])
    present = torch.tensor([[True, True], [True, False]])
    front, back = certain_regions(labels, index, (5, 5))
    gaps = []
    for i, c in ((0, 0), (0, 1), (1, 0)):
        p = cam[i, c].sigmoid()
        gaps.append(F.relu(0.5 - (p[labels[i] == c + 1].mean() - p[labels[i] == 0].mean())))
    torch.testing.assert_close(
        separation_margin(cam, front, back, present), torch.stack(gaps).mean()
    )


def test_separation_infonce_by_hand():
    """A class that lacks a region, or is none of the image's, adds nothing."""
    torch.manual_seed(0)
    cam, features = torch.randn(2, 2, 5, 5), torch.randn(2, 6, 5, 5)
    labels = torch.randint(0, 3, (2, 5, 5))
    labels[1][labels[1] == 2] = IGNORE  # image 1 lacks the second class
    index = torch.tensor([[0, 1], [0, 1]])
    present = torch.tensor([[True, True], [True, True]])
    front, back = certain_regions(labels, index, (5, 5))

    def direction(i, weight):
        return F.normalize((features[i] * weight).sum((1, 2)), dim=0)

    backs = [direction(i, (labels[i] == 0).float()) for i in (0, 1)]
    losses = []
    for i, c in ((0, 0), (0, 1), (1, 0)):
        query = direction(i, cam[i, c].sigmoid())
        good = query @ direction(i, (labels[i] == c + 1).float()) / 0.1
        bad = torch.stack([query @ other / 0.1 for other in backs])
        losses.append(torch.cat([good[None], bad]).logsumexp(0) - good)
    wanted = torch.stack(losses).mean()
    torch.testing.assert_close(separation_infonce(cam, features, front, back, present), wanted)
    fewer = torch.tensor([[True, False], [True, False]])
    wanted = torch.stack([losses[0], losses[2]]).mean()
    torch.testing.assert_close(separation_infonce(cam, features, front, back, fewer), wanted)


@pytest.mark.parametrize("form", ["margin", "infonce"])
def test_a_single_sure_cell_is_a_region(form):
    cam, features = torch.zeros(1, 1, 2, 2), torch.eye(4).view(1, 4, 2, 2)
    front = torch.tensor([[[[True, False], [False, False]]]])
    back = torch.tensor([[[[False, False], [False, True]]]])
    present = torch.tensor([[True]])
    if form == "margin":
        assert separation_margin(cam, front, back, present, margin=0.5) == 0.5
    else:  # both directions are equally near to the map's
        loss = separation_infonce(cam, features, front, back, present)
        assert float(loss) == pytest.approx(math.log(2))
