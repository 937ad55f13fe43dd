import copy
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wsss_lab import IGNORE
from wsss_lab.cam import cam_to_pseudo_label, fuse_cams, present_classes
from wsss_lab.cam.fusion import Fusion
from wsss_lab.methods.cosa import method as cosa
from wsss_lab.methods.cosa.config import PRESETS, CoSAConfig
from wsss_lab.methods.cosa.labels import label_from_cam, sampled_target, soft_target, teacher_cam
from wsss_lab.methods.cosa.losses import (
    balanced_mean,
    certain_regions,
    perplexity_weights,
    pixel_entropy,
    separation_infonce,
    separation_margin,
    swapped_cam_loss,
)
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.methods.cosa.network import CoSANetwork, cosa_backbone
from wsss_lab.models.backbones import build_backbone

K, SIDE, START = 4, 64, 10
KEYS = Path(__file__).parents[2] / "models" / "state_keys" / "cosa.json"


def tiny_backbone():
    return build_backbone(
        "vit_b16",
        levels=(-2,),
        train_pos_embed=False,
        img_size=SIDE,
        embed_dim=48,
        depth=3,
        num_heads=3,
    )


def settings(preset="voc", **changes):
    small = {"hidden": 16, "warmup": START, "queue_rows": 8, "queue_grid": (4, 4), "decay": 0.9}
    return replace(PRESETS[preset], **(small | changes))


def make(preset="voc", seed=0, **changes):
    torch.manual_seed(seed)
    return CoSA(tiny_backbone(), K, settings(preset, **changes)).train()


def batch(b=3, seed=0):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(b, 3, 8, 8, generator=g)
    images = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    tags = torch.zeros(b, K)
    tags[:, 1] = 1
    tags[0, 3] = 1
    boxes = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(b, 1)
    boxes[1] = torch.tensor([8, 50, 0, 40])
    strong = (1 - images).clamp(0, 1)
    return {"images": images, "strong": strong, "tags": tags, "boxes": boxes}


def step(method, at=START + 1, **changes):
    torch.manual_seed(3)
    return method.training_step(batch() | changes, at)


# --- deviations, by number -----------------------------------------------------------------------


def test_released_presets_switch_every_deviation_off():
    for name in ("voc", "coco"):
        ours, released = PRESETS[name], PRESETS[f"{name}-released"]
        changed = {
            f.name for f in fields(ours) if getattr(ours, f.name) != getattr(released, f.name)
        }
        assert len(changed) == 12
        assert {"aux_last_scale", "cam_floor", "independent_start", "decay_all"} <= changed
    for number, name in enumerate(
        ["aux_last_scale", "cam_floor", "independent_start", "perplexity", "separation", "search",
         "mask_padding", "energy_view", "skip_warmup", "decay_all", "queue_start", "queue_shared"],
        1,
    ):  # fmt: skip
        assert f"\n{number}. `{name}`" in (cosa.__doc__ or ""), name


def test_1_auxiliary_maps_of_the_last_scale_only():
    torch.manual_seed(0)
    views = [torch.randn(4, K, g, g) for g in (4, 2, 6)]
    index, present = present_classes(torch.ones(2, K))
    args = (index, present, (32, 32), (1.0, 0.5, 1.5))
    last = teacher_cam(views, *args, last_scale=True)
    alone = teacher_cam(views[2:], index, present, (32, 32), (1.5,))
    torch.testing.assert_close(last, alone)
    assert not torch.allclose(last, teacher_cam(views, *args))
    released, ours = (step(make(aux_last_scale=flag)).panels["labels"] for flag in (True, False))
    assert torch.equal(released[:, 0], ours[:, 0])
    assert not torch.equal(released[:, 1], ours[:, 1])


def test_2_floor_of_the_cam_loss():
    cam = torch.full((2, K, 3, 3), -5.0, requires_grad=True)
    nothing = torch.zeros(2, K, 3, 3)
    floor = swapped_cam_loss(cam, nothing, floor=True)
    assert floor.item() == pytest.approx(0.6931, abs=1e-4)
    assert torch.autograd.grad(floor, cam)[0].abs().max() == 0
    free = swapped_cam_loss(cam, nothing, floor=False)
    assert free.item() < 0.01
    assert torch.autograd.grad(free, cam)[0].min() > 0
    assert step(make(cam_floor=True)).parts["cam"] > step(make(cam_floor=False)).parts["cam"]


def test_3_independent_start_differs_in_the_heads_only():
    released, ours = make(independent_start=True), make(independent_start=False)
    for name, fast in released.online.state_dict().items():
        slow = released.assignment.network.state_dict()[name]
        assert torch.equal(slow, fast) == name.startswith("backbone."), name
    for name, fast in ours.online.state_dict().items():
        assert torch.equal(ours.assignment.network.state_dict()[name], fast), name


def test_4_perplexity_weights_reach_the_loss():
    with_weights, without = (step(make(perplexity=flag, search="none")) for flag in (True, False))
    assert torch.equal(with_weights.panels["labels"], without.panels["labels"])
    assert with_weights.parts["seg"] != without.parts["seg"]


@pytest.mark.parametrize("form", ["margin", "infonce"])
def test_5_separation_reaches_the_loss_and_the_maps(form):
    method = make(separation=form, search="none", low=0.4, aux_low=0.4)
    out = step(method)
    assert out.parts["separation"] > 0
    grad = torch.autograd.grad(out.parts["separation"], method.online.tag_head.linear.weight)[0]
    assert grad.abs().sum() > 0
    assert "separation" not in step(make(separation="none")).parts


@pytest.mark.parametrize("how", ["bands", "mixture", "split"])
def test_6_searched_thresholds_move_and_make_the_labels(how):
    method = make(search=how, queue_start="uniform")
    start = method.searches[0].thresholds.clone()
    out = step(method)
    assert not torch.equal(method.searches[0].thresholds, start)
    assert out.parts["low_main"] <= out.parts["high_main"]
    if how != "bands":  # one threshold leaves no pixel undecided inside the box
        assert not (out.panels["labels"][0] == IGNORE).any()
    assert len(make(search="none").searches) == 0


def test_6_searched_thresholds_equal_fixed_ones_at_full_resolution():
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


def test_7_padding_takes_no_part():
    """In the range of the maps, and in their loss."""
    torch.manual_seed(0)
    views = [torch.randn(2, K, 4, 4)]
    index, present = present_classes(torch.ones(1, K))
    valid = torch.zeros(1, 32, 32, dtype=torch.bool)
    valid[:, :16] = True
    cam = teacher_cam(views, index, present, (32, 32), (1.0,), valid=valid)
    raw = fuse_cams(views, (32, 32), Fusion())[:, :, :16]
    expected = raw - raw.amin((2, 3), keepdim=True)
    expected = expected / (expected.amax((2, 3), keepdim=True) + 1e-5)
    torch.testing.assert_close(cam[:, :, :16], expected)
    assert cam[:, :, 16:].abs().max() == 0
    maps, target = torch.randn(1, K, 2, 2), torch.rand(1, K, 2, 2)
    cells = torch.ones(1, 2, 2, dtype=torch.bool)
    cells[:, 1] = False
    half = swapped_cam_loss(maps, target, valid=cells)
    torch.testing.assert_close(half, swapped_cam_loss(maps[:, :, :1], target[:, :, :1]))
    released, ours = (step(make(mask_padding=flag)) for flag in (False, True))
    assert released.parts["cam"] != ours.parts["cam"]


def test_8_view_of_the_dense_energy(monkeypatch):
    data, seen = batch(), {}
    for view in ("strong", "weak"):
        method = make(energy_view=view, search="none")
        original = method.energy

        def spy(probs, images, valid, labels, view=view, original=original):
            seen[view] = images
            return original(probs, images, valid, labels)

        monkeypatch.setattr(method, "energy", spy)
        assert step(method).parts["energy"] < 0
    assert torch.equal(seen["strong"], 255 * data["strong"])
    assert torch.equal(seen["weak"], 255 * data["images"])
    nothing = replace(PRESETS["voc"].weights, energy=0.0)
    assert "energy" not in step(make(weights=nothing)).parts


def test_9_warmup_without_the_teacher_trains_the_same():
    weights = []
    for skip in (False, True):
        method = make("voc-released", skip_warmup=skip)
        optimizer = torch.optim.AdamW(method.param_groups(1e-3, 1e-2, 0.01))
        for at in (START - 1, START):
            out = step(method, at)
            assert ("seg" in out.parts) != skip
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            method.after_step(at)
        assert "seg" in step(method, START + 1).parts
        weights.append(method.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_10_groups_of_the_optimiser():
    for flag in (True, False):
        method = make(decay_all=flag)
        groups = method.param_groups(1.0, 10.0, 0.01)
        listed = [p for group in groups for p in group["params"]]
        trained = [p for p in method.parameters() if p.requires_grad]
        assert len(listed) == len(trained)
        assert {id(p) for p in listed} == {id(p) for p in trained}
        heads = {id(p) for n, p in method.online.named_parameters() if "_head" in n}
        for group in groups:
            assert group["lr"] == (10.0 if id(group["params"][0]) in heads else 1.0)
        undecayed = [p for g in groups if g["weight_decay"] == 0 for p in g["params"]]
        assert (len(undecayed) == 0) == flag
        assert all(p.ndim == 1 for p in undecayed)
    assert len(make(decay_all=True).param_groups(1.0, 1.0, 0.01)) == 4


def test_11_start_of_the_queue():
    assert make(search="bands", queue_start="uniform").searches[0].queue.values.sum() > 0
    assert make(search="bands", queue_start="empty").searches[0].queue.values.sum() == 0


def test_12_one_queue_for_all_processes():
    for flag in (True, False):
        assert all(s.queue.shared == flag for s in make(queue_shared=flag).searches)


# --- the equations -------------------------------------------------------------------------------


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


def test_perplexity_weights_by_the_formula():
    torch.manual_seed(0)
    score, xi, alpha, beta = torch.rand(2, 12, 12) * 0.98 + 0.01, 0.4, 0.7, 1.5
    labels = (score > xi).long()
    labels[0, :2] = IGNORE
    got = perplexity_weights(score, labels, xi, xi, alpha, beta)
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


# --- the method ----------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_steps(preset):
    method = make(preset)
    out = step(method)
    out.loss.backward()
    assert out.loss.isfinite()
    for name, weight in method.online.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
    assert not any(p.requires_grad for p in method.assignment.parameters())


@pytest.mark.parametrize("preset", ["voc-released", "voc"])
def test_training_step_is_that_written_out(preset):
    """The step against its definition, one image, scale and mirror image at a time."""
    method = make(preset, separation="none", perplexity=False, search="none", skip_warmup=False)
    data, config = batch(), method.config
    out = step(method)
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    images, strong = ((data[name] - mean) / std for name in ("images", "strong"))
    labels, targets = [], []
    for i, tags in enumerate(data["tags"]):
        y0, y1, x0, x1 = data["boxes"][i]
        valid = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        valid[:, y0:y1, x0:x1] = True
        seg, maps = 0, []
        for which in ("cam", "aux_cam"):
            fused = 0
            for scale in config.scales:
                view = F.interpolate(images[i : i + 1], scale_factor=scale, mode="bilinear")
                pair = [method.assignment(view), method.assignment(view.flip(-1))]
                full = [
                    F.interpolate(getattr(s, which), (SIDE, SIDE), mode="bilinear") for s in pair
                ]
                one = torch.maximum(full[0], full[1].flip(-1)).relu()
                fused = one if which == "aux_cam" and config.aux_last_scale else fused + one
                if which == "cam":
                    up = [F.interpolate(s.seg_logits, (SIDE, SIDE), mode="bilinear") for s in pair]
                    seg = seg + up[0] + up[1].flip(-1)
            region = fused[:, :, y0:y1, x0:x1] if config.mask_padding else fused
            fused = fused - region.amin((2, 3), keepdim=True)
            region = fused[:, :, y0:y1, x0:x1] if config.mask_padding else fused
            maps.append(fused / (region.amax((2, 3), keepdim=True) + 1e-5))
        limits = ((config.low, config.high), (config.aux_low, config.aux_high))
        labels.append(
            [
                cam_to_pseudo_label(
                    m * valid if config.mask_padding else m, tags[None], *t, valid=valid
                )
                for m, t in zip(maps, limits, strict=True)
            ]
        )
        soft = soft_target(seg, tags[None], config.temperature)[:, 1:]
        targets.append(F.interpolate(soft, (4, 4), mode="bilinear"))
    student = method.online(strong)
    full = F.interpolate(student.seg_logits, (SIDE, SIDE), mode="bilinear")
    seg_loss = 0
    for which in (0, 1):
        label = torch.cat([pair[which] for pair in labels])
        wrong = (label != out.panels["labels"][:, which]).float().mean()
        assert wrong < 1e-3
        each = F.cross_entropy(full, label, ignore_index=IGNORE, reduction="none")
        front = (label > 0) & (label != IGNORE)
        seg_loss = seg_loss + 0.25 * (each[label == 0].mean() + each[front].mean())
    torch.testing.assert_close(out.parts["seg"], seg_loss, rtol=1e-3, atol=1e-4)
    logits = student.cam.relu() if config.cam_floor else student.cam
    cam_loss = F.binary_cross_entropy_with_logits(logits, torch.cat(targets), reduction="none")
    if config.mask_padding:
        inside = torch.ones(3, 4, 4, dtype=torch.bool)
        centres = torch.arange(4) * 16 + 8
        rows, cols = (centres >= 8) & (centres < 50), centres < 40
        inside[1] = rows[:, None] & cols
        cam_loss = cam_loss.mean(1)[inside]
    torch.testing.assert_close(out.parts["cam"], cam_loss.mean(), rtol=1e-3, atol=1e-4)


def test_labels_and_losses_stay_in_float32_under_autocast():
    exact = step(make())
    with torch.autocast("cpu", torch.bfloat16):
        mixed = step(make())
    for name, value in mixed.parts.items():
        assert value.dtype == torch.float32, name
        torch.testing.assert_close(value, exact.parts[name], rtol=0.1, atol=0.02, msg=name)
    assert mixed.panels["target"].dtype == mixed.panels["cam"].dtype == torch.float32
    mixed.loss.backward()


def test_missing_views_and_boxes_fall_back():
    method, data = make(search="none"), batch()
    plain = {name: data[name] for name in ("images", "tags")}
    full = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(3, 1)
    explicit = plain | {"strong": data["images"], "boxes": full, "max_tags": 2}
    torch.testing.assert_close(
        method.training_step(plain, START + 1).loss, method.training_step(explicit, START + 1).loss
    )


def test_image_without_tags_is_background():
    data = batch()
    data["tags"][2] = 0
    out = make(search="none").training_step(data, START + 1)
    assert (out.panels["labels"][2] == 0).all()
    assert out.loss.isfinite()


def test_a_resumed_run_goes_on_bit_for_bit():
    def train(method, optimizer, steps):
        for at in steps:
            optimizer.zero_grad()
            method.training_step(batch(seed=at), at).loss.backward()
            optimizer.step()
            method.after_step(at)

    def optim(method):
        return torch.optim.AdamW(method.param_groups(1e-3, 1e-2, 0.01))

    whole = make()
    one = optim(whole)
    train(whole, one, range(START, START + 2))
    saved = copy.deepcopy((whole.state_dict(), one.state_dict()))
    train(whole, one, range(START + 2, START + 4))
    resumed = make(seed=5)
    other = optim(resumed)
    resumed.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    train(resumed, other, range(START + 2, START + 4))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert any(name.startswith("assignment.network.") for name in saved[0])
    assert any(name.endswith("queue.values") for name in saved[0])


def test_one_batch_can_be_learned():
    method = make(warmup=0, decay=0.8)
    optimizer = torch.optim.AdamW(method.param_groups(1e-3, 3e-3, 0.0))
    first = last = None
    for at in range(25):
        out = method.training_step(batch(), at)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        method.after_step(at)
        last = out.parts["tags"].item() + out.parts["aux_tags"].item()
        first = first or last
    assert last < 0.3 * first


@torch.no_grad()
def test_prediction_is_the_teacher_s():
    method = make(independent_start=True)
    images = batch()["images"]
    out = method.eval().predict(images)
    assert out.logits.shape == (3, K + 1, 4, 4)
    assert out.cam.shape == (3, K, 4, 4)
    method.online.seg_head.classify.weight.zero_()
    assert torch.equal(out.logits, method.predict(images, torch.ones(3, K)).logits)


def test_released_checkpoint_fits_strictly():
    """All 157 names and shapes of the released VOC file, without its 370 MB of numbers."""
    shapes = json.loads(KEYS.read_text())
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in shapes.items()}
        classes = shapes["classifier.weight"][0]
        network = CoSANetwork(cosa_backbone(PRESETS["voc-released"], "random"), classes)
        network.load_released(state)
        broken = {name: value for name, value in state.items() if name != "aux_classifier.weight"}
        with pytest.raises(ValueError, match="missing"):
            network.load_released(broken)
        with pytest.raises(ValueError, match="not known"):
            network.load_released(state | {"extra": torch.empty(1)})


def test_released_checkpoint_reaches_both_networks():
    method = make()
    other = make(seed=9)
    names = {
        "backbone.net.": "encoder.",
        "seg_head.conv1": "decoder.conv6",
        "seg_head.conv2": "decoder.conv7",
        "seg_head.classify": "decoder.conv8",
        "tag_head.linear": "classifier",
        "aux_head.linear": "aux_classifier",
    }
    state = {}
    for name, value in other.online.state_dict().items():
        old = next(name.replace(new, old, 1) for new, old in names.items() if name.startswith(new))
        state[old] = value[:, :, None, None] if old.endswith("classifier.weight") else value
    method.load_released(state)
    for name, value in other.online.state_dict().items():
        assert torch.equal(method.online.state_dict()[name], value)
        assert torch.equal(method.assignment.network.state_dict()[name], value)


def test_toy_backbones_fit():
    method = CoSA(cosa_backbone(PRESETS["toy"], "random"), K, settings("toy"))
    out = method.training_step(batch(), START + 1)
    assert out.panels["student_cam"].shape == (3, K, 8, 8)
    method = CoSA(build_backbone("toy_cnn"), K, settings("toy"))
    assert method.training_step(batch(), START + 1).loss.isfinite()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="low, high"):
        CoSAConfig(low=0.8, high=0.7)
    with pytest.raises(ValueError, match="separation"):
        CoSAConfig(separation="strong")
    with pytest.raises(ValueError, match="energy_view"):
        CoSAConfig(energy_view="both")
    with pytest.raises(ValueError, match="how"):
        make(search="guess")
    with pytest.raises(ValueError, match="two maps"):
        CoSANetwork(build_backbone("vit_b16", embed_dim=48, depth=1, num_heads=3), K)
