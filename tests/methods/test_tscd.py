import copy
import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wsss_lab import IGNORE
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.engine.fit import fit
from wsss_lab.methods import tscd
from wsss_lab.methods.tscd import TSCD
from wsss_lab.methods.tscd_config import PRESETS, LossWeights, TSCDConfig
from wsss_lab.methods.tscd_losses import (
    box_range,
    correspondence,
    draw_points,
    er_loss,
    lobes,
    recentre,
    sample_points,
    scd_channels,
    scd_loss,
    second_view,
    segmentation_loss,
    spread,
    truncate_colours,
)
from wsss_lab.methods.tscd_network import (
    TSCDNetwork,
    affinity_logits,
    decode,
    keep_statistics,
    tscd_backbone,
    without_noise,
)
from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone

K, SIDE, START = 4, 64, 10
KEYS = Path(__file__).parents[1] / "models" / "state_keys" / "tscd.json"


def tiny_backbone(drop_path=0.0):
    return build_backbone(
        "mit_b1",
        embed_dims=(8, 16, 20, 32),
        depths=(1, 1, 1, 2),
        num_heads=(1, 2, 5, 8),
        sr_ratios=(4, 2, 2, 1),
        mlp_ratios=(2, 2, 2, 2),
        drop_path=drop_path,
    )


def settings(preset="voc", **changes):
    small = {"hidden": 16, "warmup": START, "points": 6, "view_scale": 0.5, "scales": (1.0, 1.5)}
    return replace(PRESETS[preset], **(small | changes))


def make(preset="voc", drop_path=0.0, **changes):
    torch.manual_seed(0)
    method = TSCD(tiny_backbone(drop_path), K, settings(preset, **changes)).train()
    method.network.seg_head.dropout.p = 0.0
    return method


def batch(b=2):
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(b, 3, 8, 8, generator=g)
    images = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    images = (images * 255).round() / 255
    tags = torch.zeros(b, K)
    tags[:, 1] = 1
    tags[0, 3] = 1
    boxes = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(b, 1)
    boxes[1] = torch.tensor([8, 50, 0, 40])
    images[1, :, :8] = images[1, :, 50:] = images[1, :, :, 40:] = 0
    return {"images": images, "tags": tags, "boxes": boxes}


def step(method, at=START + 1, **changes):
    torch.manual_seed(3)
    return method.training_step(batch() | changes, at)


# --- deviations, by number -----------------------------------------------------------------------

DEVIATIONS = [
    "decoder_in_cam", "bn_updates", "noisy_cam", "inert_er", "truncate_colours",
    "symmetric_affinity", "nan_when_missing", "crop", "mask_padding", "scd_classes", "paired",
    "view_crop", "skip_warmup", "decay_all", "share_pass",
]  # fmt: skip


def test_presets_differ_in_the_listed_deviations_only():
    for number, name in enumerate(DEVIATIONS, 1):
        assert f"\n{number}. `{name}`" in (tscd.__doc__ or ""), name
    studies = {"scd_classes", "paired", "view_crop"}
    for name, same in (("voc", studies), ("coco", studies | {"crop"})):
        ours, released = PRESETS[name], PRESETS[f"{name}-released"]
        changed = {
            f.name for f in fields(ours) if getattr(ours, f.name) != getattr(released, f.name)
        }
        assert changed == set(DEVIATIONS) - same


def test_1_decoder_in_map_passes_moves_the_running_statistics():
    both = [make(decoder_in_cam=flag, share_pass=False) for flag in (True, False)]
    outs = [step(method) for method in both]
    counts = [int(method.network.seg_head.norm.num_batches_tracked) for method in both]
    assert counts[0] - counts[1] == 2 * len(both[0].config.scales)
    norms = [method.network.seg_head.norm for method in both]
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)
    torch.testing.assert_close(outs[0].loss, outs[1].loss)


def test_2_statistics_of_the_second_view():
    both = make(bn_updates="all"), make(bn_updates="main")
    outs = [step(method) for method in both]
    alone = make()
    with torch.no_grad():
        alone.network(tscd.normalize(batch()["images"]))
    wanted = alone.network.seg_head.norm
    for method, same in zip(both, (False, True), strict=True):
        norm = method.network.seg_head.norm
        assert torch.allclose(norm.running_mean, wanted.running_mean, atol=1e-6) == same
        assert torch.allclose(norm.running_var, wanted.running_var, atol=1e-6) == same
    torch.testing.assert_close(outs[0].loss, outs[1].loss)


def test_3_stochastic_depth_in_map_passes():
    images = tscd.normalize(batch()["images"])
    for noisy in (True, False):
        method = make(drop_path=0.5, noisy_cam=noisy)
        torch.manual_seed(1)
        same = torch.equal(method.maps(images), method.maps(images))
        assert same != noisy
        assert all(layer.training for layer in method.modules())


def test_4_the_er_term_is_a_constant():
    out = step(make(inert_er=True))
    assert not out.parts["er"].requires_grad
    assert out.parts["er"] > 0
    plain = step(make(inert_er=False))
    assert "er" not in plain.parts
    weight = LossWeights().er
    torch.testing.assert_close(out.loss.detach(), plain.loss.detach() + weight * out.parts["er"])


def test_5_truncated_colours_reach_the_refiner(monkeypatch):
    method, seen = make(truncate_colours=True), []
    real = method.refiner.forward
    monkeypatch.setattr(
        method.refiner, "forward", lambda x, masks: seen.append(x) or real(x, masks)
    )
    step(method)
    method.config = replace(method.config, truncate_colours=False)
    step(method)
    small = F.interpolate(batch()["images"], (SIDE // 2, SIDE // 2), mode="bilinear")
    torch.testing.assert_close(seen[1], small)
    assert (seen[0] < small - 1e-4).any()
    assert not (seen[0] > small + 1e-4).any()


def test_6_symmetric_affinity():
    released, ours = (step(make(symmetric_affinity=flag)).panels for flag in (False, True))
    assert not torch.allclose(released["affinity"], released["affinity"].mT, atol=1e-3)
    torch.testing.assert_close(ours["affinity"], ours["affinity"].mT)
    assert torch.equal(released["labels"], ours["labels"])


@pytest.mark.parametrize("label", [0, 1, IGNORE])
def test_7_loss_of_a_batch_without_one_kind_of_pixel(label):
    logits = torch.randn(1, K + 1, 6, 6, requires_grad=True)
    labels = torch.full((1, 6, 6), label)
    assert segmentation_loss(logits, labels, nan_when_missing=True).isnan()
    loss = segmentation_loss(logits, labels)
    assert loss.isfinite()
    assert (loss > 0) == (label != IGNORE)
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()
    labels[0, 0] = 1 - min(label, 1)
    labels[0, 1] = min(label, 1)
    torch.testing.assert_close(
        segmentation_loss(logits, labels, True), segmentation_loss(logits, labels)
    )


def test_8_crop_of_the_shipped_launcher():
    assert {name: preset.crop for name, preset in PRESETS.items()} == {
        "voc-released": 320, "coco-released": 512, "voc": 512, "coco": 512, "toy": 128,
    }  # fmt: skip


def test_9_padding_takes_no_part():
    other = batch()["images"]
    other[1, :, 50:] = 1  # padding of another colour
    masked = make(mask_padding=True)
    panels = step(masked).panels
    valid = tscd.box_to_valid(batch()["boxes"], (SIDE, SIDE))
    assert (panels["cam"].masked_select(~valid[:, None]) == 0).all()
    assert panels["cam"][1].amax((1, 2)).min() > 0.99  # stretched inside
    low, high = box_range(batch()["boxes"], (SIDE, SIDE))
    for points in (panels["points"], panels["view_points"]):
        inside = (points >= low[:, None, None] - 1e-6) & (points <= high[:, None, None] + 1e-6)
        assert inside.all()
    released = step(make(mask_padding=False)).panels
    assert (released["cam"].masked_select(~valid[:, None]) > 0).any()
    assert (released["points"][1, ..., 0] > high[1, 0]).any()
    for found in (panels, released):  # labels never reach into padding
        assert (found["labels"][~valid] == IGNORE).all()


@pytest.mark.parametrize("classes", ["tagged", "background"])
def test_10_absent_classes_leave_the_correspondence(classes):
    data = batch()
    cam = torch.rand(2, K, 8, 8)
    changed = cam.clone()
    changed[:, 0] = torch.rand(2, 8, 8)  # absent in both
    args = data["tags"], classes
    assert torch.equal(scd_channels(cam, *args), scd_channels(changed, *args))
    assert not torch.equal(
        scd_channels(cam, data["tags"], "all"), scd_channels(changed, data["tags"], "all")
    )
    if classes == "background":
        found = scd_channels(cam, *args)
        torch.testing.assert_close(found[1, 0], 1 - cam[1, 1])
    ours, released = step(make(scd_classes=classes)), step(make(scd_classes="all"))
    assert ours.parts["scd"] != released.parts["scd"]
    assert ours.parts["seg"] == released.parts["seg"]


def test_11_paired_points_are_the_same_places():
    panels = step(make(paired=True)).panels
    torch.testing.assert_close(panels["points"], panels["view_points"])
    panels = step(make(paired=False)).panels
    assert not torch.allclose(panels["points"], panels["view_points"], atol=0.1)
    # with a window, too: equal places have equal colours
    panels = step(make(paired=True, view_crop=0.6, view_scale=0.9)).panels
    first = sample_points(tscd.normalize(batch()["images"])[:1], panels["points"][:1])
    second = sample_points(panels["view"][:1], panels["view_points"][:1])
    assert (first - second).abs().mean() < 0.1
    assert panels["view_points"].abs().max() <= 1 + 1e-5


def test_12_window_of_the_second_view():
    g = torch.linspace(-1, 1, 33)
    images = torch.stack([g.expand(33, 33), g[:, None].expand(33, 33)])[None]  # x and y themselves
    centre = torch.tensor([[0.25, -0.5]])
    view = second_view(images, 0.5, centre, 0.5)
    assert view.shape == (1, 2, 16, 16)
    torch.testing.assert_close(view[0, :, 0, 0], torch.tensor([-0.25, -1.0]))
    torch.testing.assert_close(view[0, :, -1, -1], torch.tensor([0.75, 0.0]))
    whole = second_view(images, 0.5, torch.zeros(1, 2), 1.0)
    torch.testing.assert_close(whole, second_view(images, 0.5), atol=1e-6, rtol=0)
    out = step(make(view_crop=0.5))
    assert out.loss.isfinite()
    assert not torch.allclose(out.panels["view"], step(make()).panels["view"])


def test_13_warm_up_trains_the_same_with_and_without_the_rest():
    grads = []
    for skip in (True, False):
        method = make(skip_warmup=skip)
        out = step(method, at=START)
        assert set(out.parts) == (
            {"tags"} if skip else {"tags", "seg", "energy", "affinity", "scd"}
        )
        torch.testing.assert_close(out.loss.detach(), out.parts["tags"].detach())
        out.loss.backward()
        grads.append({name: p.grad for name, p in method.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], atol=1e-7, rtol=1e-4, msg=name)
    assert step(make(), at=START + 1).loss > step(make(), at=START).loss  # the next step has all


def test_14_groups_of_the_optimiser():
    method = make("voc-released")
    groups = method.param_groups(6e-5, 6e-4, 0.01)
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [
        (6e-5, 0.01), (0.0, 0.0), (6e-4, 0.01), (6e-4, 0.01),
    ]  # fmt: skip
    ours = make().param_groups(6e-5, 6e-4, 0.01)
    assert all(g["weight_decay"] == 0 for g in ours for p in g["params"] if p.ndim <= 1)
    assert all(g["weight_decay"] > 0 for g in ours for p in g["params"] if p.ndim > 1)
    for some in (groups, ours):
        found = [id(p) for g in some for p in g["params"]]
        assert len(found) == len(set(found)) == len(list(method.parameters()))
    free = make(freeze_norms=False).param_groups(6e-5, 6e-4, 0.01)
    assert all(g["lr"] > 0 for g in free)
    assert any(g["lr"] == 0 for g in ours)


def test_15_maps_from_the_passes_that_are_trained():
    shared, released = (make(share_pass=flag) for flag in (True, False))
    calls = {}
    for method in (shared, released):
        found = calls[method] = []
        method.network.backbone.register_forward_hook(
            lambda _, args, __, found=found: found.append(tuple(args[0].shape))
        )
    outs = [step(method) for method in (shared, released)]
    images = [sum(shape[0] for shape in calls[method]) for method in (shared, released)]
    b, views = 2, 2
    assert images[1] - images[0] == b * views
    assert images[1] == b * views * (1 + 2 * len(released.config.scales))
    for name, part in outs[1].parts.items():  # without noise it is the same
        torch.testing.assert_close(outs[0].parts[name], part, atol=1e-6, rtol=1e-5)
    noisy = step(make(share_pass=True, drop_path=0.5)).panels["cam"]
    assert not torch.allclose(noisy, outs[1].panels["cam"], atol=1e-3)


def test_groups_of_mit_b1():
    """Counts of the released code."""
    method = TSCD(build_backbone("mit_b1"), 20, PRESETS["voc-released"])
    sizes = [len(g["params"]) for g in method.param_groups(1.0, 10.0, 0.1)]
    assert sizes == [116, 60, 3, 13]
    assert sum(p.numel() for p in method.parameters()) == 13_692_902


# --- equations by hand ---------------------------------------------------------------------------


def test_correspondence_and_loss_by_hand():
    torch.manual_seed(0)
    f1, f2, s1, s2 = (torch.randn(2, 3, n) for n in (4, 5, 4, 5))
    f1[0, :, 2] = 0
    total, pairs, target = 0.0, 0, torch.zeros(2, 4, 5)

    def cosine(a, b):
        return float(a @ b / max(float(a.norm()), 1e-10) / max(float(b.norm()), 1e-10))

    for n in range(2):
        for p in range(4):
            for q in range(5):
                target[n, p, q] = cosine(f1[n, :, p], f2[n, :, q])
    torch.testing.assert_close(correspondence(f1, f2), target)
    mean = target.mean()
    for n in range(2):
        for p in range(4):
            for q in range(5):
                centred = target[n, p, q] - target[n, p].mean() + mean
                total -= max(cosine(s1[n, :, p], s2[n, :, q]), 0.0) * float(centred)
                pairs += 1
    loss = scd_loss(correspondence(f1, f2), correspondence(s1, s2))
    assert loss.item() == pytest.approx(total / pairs, abs=1e-6)


def test_recentring_and_lobes():
    target = torch.rand(2, 5, 7)
    centred = recentre(target)
    torch.testing.assert_close(centred.mean(2), target.mean().expand(2, 5))
    torch.testing.assert_close(recentre(centred), centred)  # a second one changes nothing
    attract, repel = lobes(centred)
    torch.testing.assert_close(attract - repel, centred)
    assert (attract * repel == 0).all()
    assert lobes(target)[1].max() == 0
    assert repel.max() > 0
    student = torch.randn(2, 5, 7)
    both = (student.clamp(min=0) * repel).mean() - (student.clamp(min=0) * attract).mean()
    torch.testing.assert_close(scd_loss(target, student), both)


def test_scd_gradient_reaches_the_student_only():
    target, student = torch.rand(1, 4, 4, requires_grad=True), torch.randn(1, 4, 4)
    student.requires_grad_()
    scd_loss(target, student).backward()
    assert target.grad is None
    assert (student.grad[student <= 0] == 0).all()
    torch.testing.assert_close(
        student.grad, -(student > 0).float() * recentre(target.detach()) / student.numel()
    )


def test_sampling_swaps_the_axes_of_the_points_and_hits_pixel_centres():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.zeros(1, 2, 2, 2)
    points[0, 0, 1] = torch.tensor([1.0, -1.0])  # x right, y top: value 3
    points[0, 1, 0] = torch.tensor([-1.0, 1.0])  # x left, y bottom: value 8
    found = sample_points(maps, points)[0, 0]
    assert found.tolist() == [5.5, 8.0, 3.0, 5.5]


def test_points_are_uniform_and_fill_the_box():
    points = draw_points(3, 50)
    assert points.shape == (3, 50, 50, 2)
    assert points.abs().max() <= 1
    assert points.mean().abs() < 0.05
    low, high = box_range(torch.tensor([[2, 5, 0, 99], [0, 1, 3, 4], [-3, 9, 1, 2]]), (9, 5))
    torch.testing.assert_close(low[0], torch.tensor([-1.0, -0.5]))
    torch.testing.assert_close(high[0], torch.tensor([1.0, 0.0]))
    squeezed = spread(points, low, high)
    torch.testing.assert_close(squeezed[1], low[1].expand(50, 50, 2))
    torch.testing.assert_close(squeezed[2, ..., 1], points[2, ..., 1], atol=1e-6, rtol=0)


def test_er_loss_by_hand():
    cam, view = torch.rand(1, 3, 9, 9, requires_grad=True), torch.rand(1, 3, 5, 5)
    wanted = (cam[:, 1:, ::2, ::2] - view[:, 1:]).abs().mean()
    found = er_loss(cam, view)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad


def test_truncation_loses_a_level_here_and_there():
    grey = torch.arange(256.0).expand(1, 3, 1, 256) / 255
    lost = (255 * (grey - truncate_colours(grey))).round()
    assert set(lost.unique().tolist()) == {0.0, 1.0}
    assert 0 < lost.mean() < 0.05


# --- network -------------------------------------------------------------------------------------


def test_decoder_and_affinity_in_another_order_than_written():
    torch.manual_seed(0)
    for symmetric in (False, True):
        net = TSCDNetwork(tiny_backbone(), K, 16, symmetric).train()
        net.seg_head.dropout.p = 0.0
        images = torch.randn(2, 3, 50, 70)
        with record_attention(net.backbone, layers=(-2, -1), what="logits") as record:
            pyramid = net.backbone(images).pyramid
        maps = torch.cat(record.maps, dim=1)
        if symmetric:
            maps = maps + maps.mT
        found = net(images)
        affinity = net.affinity_head(maps).sigmoid()[:, 0]
        torch.testing.assert_close(found.affinity, affinity, atol=1e-5, rtol=1e-5)
        plain = copy.deepcopy(net.seg_head)
        torch.testing.assert_close(found.seg_logits, plain(pyramid), atol=1e-5, rtol=1e-4)
        grads = []
        for head, logits in (
            (plain, plain(pyramid)),
            (net.seg_head, decode(net.seg_head, pyramid)),
        ):
            grads.append(
                torch.autograd.grad(
                    logits.square().sum(), list(head.parameters()), retain_graph=True
                )
            )
        for one, two in zip(*grads, strict=True):
            torch.testing.assert_close(one, two, atol=1e-2, rtol=1e-3)
        weight = net.affinity_head.weight
        one, two = (
            torch.autograd.grad(a.sum(), weight, retain_graph=True)[0]
            for a in (affinity, found.affinity)
        )
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-3)


def test_affinity_by_hand():
    head = torch.nn.Conv2d(2, 1, 1)
    q, k = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    weight, bias = head.weight.flatten(), head.bias
    wanted = sum(
        weight[i] * q[0, :, 2 * i : 2 * i + 2] @ k[0, :, 2 * i : 2 * i + 2].T for i in (0, 1)
    )
    torch.testing.assert_close(affinity_logits([(q, k, 2)], head, False)[0], wanted + bias)
    torch.testing.assert_close(
        affinity_logits([(q, k, 2)], head, True)[0], wanted + wanted.T + bias
    )


def test_modes_and_momentum_are_restored():
    net = TSCDNetwork(tiny_backbone(0.3), K, 16).train()
    net.backbone.net.stages[0].eval()
    before = [m.training for m in net.modules()]
    with without_noise(net):
        assert not any(m.training for m in net.modules())
    assert [m.training for m in net.modules()] == before
    with pytest.raises(ValueError, match="sides"), without_noise(net):
        net(torch.rand(1, 3, 2, 2))
    assert [m.training for m in net.modules()] == before
    norm = net.seg_head.norm
    with keep_statistics(norm):
        norm(torch.randn(2, 16, 4, 4))
    with pytest.raises(ValueError, match="expected 4D"), keep_statistics(norm):
        norm(torch.randn(2))
    assert norm.momentum == 0.1
    assert norm.running_mean.abs().max() == 0


def released_state(net, prefix=""):
    """A state with the released names and shapes."""
    shapes = json.loads(KEYS.read_text())
    g = torch.Generator().manual_seed(0)
    return {f"{prefix}{key}": torch.rand(shape, generator=g) for key, shape in shapes.items()}


def test_released_checkpoints_load_strictly():
    method = TSCD(build_backbone("mit_b1"), 20, PRESETS["voc-released"])
    state = released_state(method.network, "module.")
    method.load_released(state)
    own = method.network.state_dict()
    assert torch.equal(own["affinity_head.weight"], state["module.attn_proj.weight"])
    assert torch.equal(own["tag_head.linear.weight"], state["module.classifier.weight"][:, :, 0, 0])
    assert torch.equal(
        own["backbone.net.stages.2.blocks.1.attn.kv.weight"],
        state["module.encoder.block3.1.attn.kv.weight"],
    )
    missing = dict(state)
    del missing["module.attn_proj.bias"]
    with pytest.raises(ValueError, match="missing"):
        method.load_released(missing)
    with pytest.raises(ValueError, match="not known"):
        method.load_released(state | {"module.extra.weight": torch.zeros(1)})
    state["module.classifier.weight"] = torch.zeros(80, 512, 1, 1)
    with pytest.raises(ValueError, match="needs"):
        method.load_released(state)


# --- the step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", list(PRESETS))
def test_step_of_every_preset(preset):
    method = make(preset)
    out = step(method)
    assert out.loss.isfinite()
    out.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    assert not any(panel.requires_grad for panel in out.panels.values())


def test_gradients_go_where_they_should():
    method = make()
    out = step(method)
    net = method.network
    reach = {
        "tags": {"backbone", "tag_head"},
        "seg": {"backbone", "seg_head"},
        "energy": {"backbone", "seg_head"},
        "scd": {"backbone", "seg_head"},
        "affinity": {"backbone", "affinity_head"},
    }
    for part, wanted in reach.items():
        names, weights = zip(*net.named_parameters(), strict=True)
        grads = torch.autograd.grad(out.parts[part], weights, retain_graph=True, allow_unused=True)
        found = {
            name.split(".")[0]
            for name, grad in zip(names, grads, strict=True)
            if grad is not None and grad.abs().max() > 0
        }
        assert found == wanted, part


def test_a_few_steps_lower_the_loss_and_state_is_complete():
    method = make("toy", warmup=2, hidden=16)
    optimizer = torch.optim.AdamW(method.param_groups(1e-3, 3e-3, 0.01))
    losses = []
    for at in range(8):
        out = step(method, at)
        losses.append(out.parts["tags"].item())
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    twin = make("toy", warmup=2, hidden=16)
    twin.load_state_dict(method.state_dict())
    torch.testing.assert_close(step(twin).loss, step(method).loss, rtol=0, atol=0)


def test_step_takes_odd_and_oblong_crops_and_a_bound_of_tags():
    data = batch()
    odd = {
        "images": data["images"][:, :, :61, :53],
        "tags": data["tags"],
        "boxes": data["boxes"].clamp(max=53),
    }
    method = make(scales=(1.0, 1.5), view_scale=0.7)
    torch.manual_seed(3)
    one = method.training_step(odd, START + 1)
    torch.manual_seed(3)
    two = method.training_step(odd | {"max_tags": 3}, START + 1)
    torch.testing.assert_close(one.loss, two.loss)
    del odd["boxes"]
    assert method.training_step(odd, START + 1).loss.isfinite()


def test_bfloat16_step_stays_close():
    with torch.autocast("cpu", torch.bfloat16):
        rough = step(make())
    exact = step(make())
    for name, part in exact.parts.items():
        assert rough.parts[name].dtype == torch.float32
        assert rough.parts[name].item() == pytest.approx(part.item(), rel=0.2, abs=0.02)


def test_prediction_and_walked_maps():
    method, data = make().eval(), batch()
    out = method.predict(data["images"])
    told = method.predict(data["images"], data["tags"])
    assert torch.equal(out.logits, told.logits)
    assert out.logits.shape == (2, K + 1, SIDE // 4, SIDE // 4)
    assert out.cam.shape == (2, K, SIDE // 16, SIDE // 16)
    assert out.tag_logits.shape == (2, K)
    with torch.no_grad():
        walked = method.walked_maps(
            data["images"], method.maps(tscd.normalize(data["images"])), data["tags"]
        )
    assert walked.shape == (2, K + 1, SIDE // 16, SIDE // 16)
    assert (walked[:, 1:][data["tags"] == 0] == 0).all()
    assert (walked >= 0).all()


def test_backbone_of_the_settings():
    backbone = tscd_backbone(PRESETS["toy"], weights="toy")
    assert backbone.name == "toy_mit"
    assert backbone.weight_tag != "random"
    assert TSCD(backbone, 3, PRESETS["toy"]).predict(torch.rand(1, 3, 64, 64)).logits.shape[1] == 4


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"low": 0.6}, "low, high"),
        ({"view_scale": 0.0}, "view_scale"),
        ({"view_crop": 1.5}, "view_crop"),
        ({"points": 0}, "points"),
        ({"refiner": "crf"}, "refiner"),
        ({"scd_classes": "none"}, "scd_classes"),
        ({"bn_updates": "no"}, "bn_updates"),
        ({"decoder_in_cam": True}, "share_pass"),
    ],
)
def test_wrong_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        TSCDConfig(**changes)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="two attention blocks"):
        TSCD(build_backbone("toy_cnn"), K)
    with pytest.raises(ValueError, match="target and student"):
        scd_loss(torch.rand(1, 2, 2), torch.rand(1, 2, 3))
    with pytest.raises(ValueError, match="scale"):
        second_view(torch.rand(1, 3, 2, 2), 0.3)
    with pytest.raises(ValueError, match="sides must be at least"):
        make(view_scale=0.1).training_step(batch(), START + 1)


@pytest.mark.parametrize("size", range(6))
def test_every_mit_fits(size):
    """On the meta device: shapes, no numbers."""
    with torch.device("meta"):
        net = TSCDNetwork(build_backbone(f"mit_b{size}"), 20)
        seg_logits, cam = net.segment(torch.rand(1, 3, 75, 101))
    assert seg_logits.shape == (1, 21, 19, 26)
    assert cam.shape == (1, 20, 5, 7)
    assert net.affinity_head.weight.shape == (1, 16, 1, 1)


def test_a_broken_run_goes_on_bit_for_bit(tmp_path):
    run = RunConfig(steps=4, batch=2, save_every=2, log_every=0, accelerator="cpu")

    def train(folder, on_step=None):
        method = make("voc", drop_path=0.3, warmup=0)
        method.network.seg_head.dropout.p = 0.1
        fit(method, lambda _: batch(), run, OptimConfig(), out=folder, log=None, on_step=on_step)
        return method.state_dict()

    def stop(at, _):
        if at == 2:
            raise KeyboardInterrupt

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "broken", stop)
    torch.manual_seed(99)
    for name, value in train(tmp_path / "broken").items():
        assert torch.equal(value, whole[name]), name
