from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F

from wsss_lab import IGNORE
from wsss_lab.methods.common.batches import valid_pixels
from wsss_lab.methods.tscd.config import PRESETS, RELEASED, LossWeights, TSCDQuirks
from wsss_lab.methods.tscd.labels import scd_channels
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.released import nan_when_missing
from wsss_lab.methods.tscd.views import (
    Window,
    box_range,
    draw_window,
    sample_points,
    second_view,
    whole_image,
)
from wsss_lab.models.backbones import build_backbone

K, SIDE, START = 4, 64, 10


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
    """A preset made small; quirks by their names among the other changes."""
    small = {"hidden": 16, "warmup": START, "points": 6, "view_scale": 0.5, "scales": (1.0, 1.5)}
    config = PRESETS[preset]
    switched = {key: changes.pop(key) for key in vars(config.quirks) if key in changes}
    quirks = replace(config.quirks, **switched)
    return replace(config, quirks=quirks, **(small | changes))


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


@pytest.mark.parametrize("preset", ["voc-released", "voc"])
def test_loss_is_the_weighted_sum_of_its_parts(preset):
    """Terms as large as here show every weight; the energy of a picture this small does not."""
    method = make(preset)
    names = ("tags", "seg", "energy", "affinity", "scd", *(["er"] if "rel" in preset else []))
    big = {name: torch.tensor(3.0 + 10 * i) for i, name in enumerate(names)}
    method._losses = lambda *_: (big, {})
    weights = method.config.weights
    wanted = big["tags"] + sum(getattr(weights, name) * big[name] for name in names[1:])
    torch.testing.assert_close(step(method).loss, wanted)


# --- quirks --------------------------------------------------------------------------------------


def test_presets_differ_in_quirks_and_crop_only():
    for name in ("voc", "coco"):
        ours, released = PRESETS[name], PRESETS[f"{name}-released"]
        assert ours.quirks == TSCDQuirks()
        assert released.quirks == RELEASED
        assert replace(released, quirks=ours.quirks, crop=ours.crop) == ours
    assert not any(vars(TSCDQuirks()).values())
    assert all(vars(RELEASED).values())


def test_every_quirk_has_a_test():
    tests = [name for name in globals() if name.startswith("test_")]
    for field in fields(TSCDQuirks):
        assert any(name.startswith(f"test_{field.name}") for name in tests), field.name


def test_decoder_in_cam_moves_the_running_statistics():
    both = [make(decoder_in_cam=flag, extra_pass=True) for flag in (True, False)]
    outs = [step(method) for method in both]
    counts = [int(method.network.seg_head.norm.num_batches_tracked) for method in both]
    assert counts[0] - counts[1] == 2 * len(both[0].config.scales)
    norms = [method.network.seg_head.norm for method in both]
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)
    torch.testing.assert_close(outs[0].loss, outs[1].loss)


def test_bn_from_view_adds_statistics_of_the_second_view():
    both = make(bn_from_view=True), make()
    outs = [step(method) for method in both]
    alone = make()
    with torch.no_grad():
        alone.network(alone.normalize(batch()["images"]))
    wanted = alone.network.seg_head.norm
    for method, same in zip(both, (False, True), strict=True):
        norm = method.network.seg_head.norm
        assert torch.allclose(norm.running_mean, wanted.running_mean, atol=1e-6) == same
        assert torch.allclose(norm.running_var, wanted.running_var, atol=1e-6) == same
    torch.testing.assert_close(outs[0].loss, outs[1].loss)


def test_noisy_cam_keeps_stochastic_depth_in_map_passes():
    for noisy in (True, False):
        method = make(drop_path=0.5, noisy_cam=noisy)
        images = method.normalize(batch()["images"])
        torch.manual_seed(1)
        same = torch.equal(method.maps(images), method.maps(images))
        assert same != noisy
        assert all(layer.training for layer in method.modules())


def test_inert_er_is_a_constant():
    out = step(make(inert_er=True))
    assert not out.parts["er"].requires_grad
    assert out.parts["er"] > 0
    plain = step(make(inert_er=False))
    assert "er" not in plain.parts
    weight = LossWeights().er
    torch.testing.assert_close(out.loss.detach(), plain.loss.detach() + weight * out.parts["er"])


def test_truncate_colours_reaches_the_refiner(monkeypatch):
    method, seen = make(truncate_colours=True), []
    real = method.refiner.forward
    monkeypatch.setattr(
        method.refiner, "forward", lambda x, masks: seen.append(x) or real(x, masks)
    )
    step(method)
    method.config = replace(method.config, quirks=TSCDQuirks())
    step(method)
    small = F.interpolate(batch()["images"], (SIDE // 2, SIDE // 2), mode="bilinear")
    torch.testing.assert_close(seen[1], small)
    assert (seen[0] < small - 1e-4).any()
    assert not (seen[0] > small + 1e-4).any()


def test_one_sided_affinity():
    released, ours = (step(make(one_sided_affinity=flag)).panels for flag in (True, False))
    assert not torch.allclose(released["affinity"], released["affinity"].mT, atol=1e-3)
    torch.testing.assert_close(ours["affinity"], ours["affinity"].mT)
    assert torch.equal(released["labels"], ours["labels"])


@pytest.mark.parametrize("label", [0, 1, IGNORE])
def test_nan_when_missing_is_the_loss_without_one_kind_of_pixel(label, monkeypatch):
    labels = torch.full((2, SIDE, SIDE), label)
    monkeypatch.setattr(TSCD, "pseudo_labels", lambda *_: labels)
    released, ours = (make(nan_when_missing=flag) for flag in (True, False))
    assert step(released).parts["seg"].isnan()
    out = step(ours)
    assert out.parts["seg"].isfinite()
    assert (out.parts["seg"] > 0) == (label != IGNORE)
    out.loss.backward()
    assert all(p.grad.isfinite().all() for p in ours.parameters())
    labels[:, 0] = 1 - min(label, 1)
    labels[:, 1] = min(label, 1)
    assert nan_when_missing(labels) == 0
    torch.testing.assert_close(step(released).parts["seg"], step(ours).parts["seg"])


def test_crop_of_the_shipped_launcher():
    assert {name: preset.crop for name, preset in PRESETS.items()} == {
        "voc-released": 320, "coco-released": 512, "voc": 512, "coco": 512, "tiny": 128,
            "toy": 128, "voc-mini": 224,
    }  # fmt: skip


def test_use_padding_lets_it_take_part():
    other = batch()["images"]
    other[1, :, 50:] = 1  # padding of another colour
    masked = make()
    panels = step(masked).panels
    valid = valid_pixels(batch())
    assert (panels["cam"].masked_select(~valid[:, None]) == 0).all()
    assert panels["cam"][1].amax((1, 2)).min() > 0.99  # stretched inside
    low, high = box_range(batch()["boxes"], (SIDE, SIDE))
    for points in (panels["points"], panels["view_points"]):
        inside = (points >= low[:, None, None] - 1e-6) & (points <= high[:, None, None] + 1e-6)
        assert inside.all()
    released = step(make(use_padding=True)).panels
    assert (released["cam"].masked_select(~valid[:, None]) > 0).any()
    assert (released["points"][1, ..., 0] > high[1, 0]).any()
    for found in (panels, released):  # labels never reach into padding
        assert (found["labels"][~valid] == IGNORE).all()


@pytest.mark.parametrize("classes", ["tagged", "background"])
def test_absent_classes_leave_the_correspondence(classes):
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


def test_paired_points_are_the_same_places():
    panels = step(make(paired=True)).panels
    torch.testing.assert_close(panels["points"], panels["view_points"])
    panels = step(make(paired=False)).panels
    assert not torch.allclose(panels["points"], panels["view_points"], atol=0.1)
    # with a window, too: equal places have equal colours
    method = make(paired=True, view_crop=0.6, view_scale=0.9)
    panels = step(method).panels
    first = sample_points(method.normalize(batch()["images"])[:1], panels["points"][:1])
    second = sample_points(panels["view"][:1], panels["view_points"][:1])
    assert (first - second).abs().mean() < 0.1
    assert panels["view_points"].abs().max() <= 1 + 1e-5


def test_window_of_the_second_view():
    g = torch.linspace(-1, 1, 33)
    images = torch.stack([g.expand(33, 33), g[:, None].expand(33, 33)])[None]  # x and y themselves
    window = Window(torch.tensor([[0.25, -0.5]]), 0.5 * torch.eye(2)[None])
    view = second_view(images, 0.5, window)
    assert view.shape == (1, 2, 16, 16)
    torch.testing.assert_close(view[0, :, 0, 0], torch.tensor([-0.25, -1.0]))
    torch.testing.assert_close(view[0, :, -1, -1], torch.tensor([0.75, 0.0]))
    whole = second_view(images, 0.5, whole_image(1))
    torch.testing.assert_close(whole, second_view(images, 0.5), atol=1e-6, rtol=0)
    out = step(make(view_crop=0.5))
    assert out.loss.isfinite()
    assert not torch.allclose(out.panels["view"], step(make()).panels["view"])


@pytest.mark.parametrize("crop", [1.0, 0.4])
def test_a_turned_window_lies_inside_the_image_and_keeps_angles(crop):
    torch.manual_seed(0)
    h, w = 60, 100
    window = draw_window(500, (h, w), crop, 90.0)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]])
    seen = window.centre[:, None] + (window.matrix[:, None] @ corners[None, :, :, None])[..., 0]
    assert seen.abs().max() <= 1 + 1e-5
    pixels = torch.tensor([w / 2, h / 2])
    across, down = (
        window.matrix @ v * pixels for v in (torch.tensor([1.0, 0]), torch.tensor([0, 1.0]))
    )
    assert (across * down).sum(1).abs().max() < 1e-3 * w * h  # a right angle stays one
    torch.testing.assert_close(across.norm(dim=1) / down.norm(dim=1), torch.full((500,), w / h))
    upright = draw_window(500, (h, w), crop)
    torch.testing.assert_close(upright.matrix, (crop * torch.eye(2)).expand(500, 2, 2))


def test_paired_points_of_a_turned_view_show_the_same_places():
    method = make(paired=True, view_turn=40.0, view_crop=0.8, view_scale=0.9)
    panels = step(method).panels
    first = sample_points(method.normalize(batch()["images"])[:1], panels["points"][:1])
    second = sample_points(panels["view"][:1], panels["view_points"][:1])
    assert (first - second).abs().mean() < 0.1
    assert not torch.allclose(panels["points"], panels["view_points"], atol=0.1)


def test_full_warmup_trains_the_same():
    grads = []
    for full in (False, True):
        method = make(full_warmup=full)
        out = step(method, at=START)
        assert set(out.parts) == (
            {"tags", "seg", "energy", "affinity", "scd"} if full else {"tags"}
        )
        torch.testing.assert_close(out.loss.detach(), out.parts["tags"].detach())
        out.loss.backward()
        grads.append({name: p.grad for name, p in method.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], atol=1e-7, rtol=1e-4, msg=name)
    assert step(make(), at=START + 1).loss > step(make(), at=START).loss  # the next step has all


def test_decay_all_groups_of_the_optimiser():
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
    # in the order of the docstring: each in two, but the norms, and the classifier has no vector
    net = method.network
    assert [(g["lr"], g["weight_decay"]) for g in ours] == [
        (6e-5, 0.01), (6e-5, 0.0), (0.0, 0.0), (6e-4, 0.01), (6e-4, 0.0), (6e-4, 0.01), (6e-4, 0.0),
    ]  # fmt: skip
    assert [sum(p.numel() for p in g["params"]) for g in ours[3:5]] == [
        net.tag_head.linear.weight.numel() + net.affinity_head.weight.numel(),
        net.affinity_head.bias.numel(),
    ]
    free = make(freeze_norms=False).param_groups(6e-5, 6e-4, 0.01)
    assert all(g["lr"] > 0 for g in free)
    assert any(g["lr"] == 0 for g in ours)


def test_extra_pass_or_maps_from_the_passes_that_are_trained():
    shared, released = (make(extra_pass=flag) for flag in (False, True))
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
    noisy = step(make(drop_path=0.5)).panels["cam"]
    assert not torch.allclose(noisy, outs[1].panels["cam"], atol=1e-3)


def test_groups_of_mit_b1():
    """Counts of the released code."""
    method = TSCD(build_backbone("mit_b1"), 20, PRESETS["voc-released"])
    sizes = [len(g["params"]) for g in method.param_groups(1.0, 10.0, 0.1)]
    assert sizes == [116, 60, 3, 13]
    assert sum(p.numel() for p in method.parameters()) == 13_692_902
