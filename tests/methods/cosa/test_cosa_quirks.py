"""One test per quirk of CoSA's released code: off is ours, on as released."""

from dataclasses import astuple, fields, replace

import pytest
import torch
from tiny_cosa import QUIRKS, START, K, batch, make, step

from wsss_lab.cam import fuse_cams, normalize_cam, present_classes
from wsss_lab.cam.fusion import Fusion
from wsss_lab.methods.cosa.config import PRESETS, RELEASED
from wsss_lab.methods.cosa.labels import teacher_cam
from wsss_lab.methods.cosa.losses import swapped_cam_loss
from wsss_lab.methods.cosa.values import NORMALIZATION


def test_released_presets_have_all_quirks_and_no_technique():
    assert astuple(RELEASED) == (True,) * len(QUIRKS)
    for name in ("voc", "coco"):
        ours, released = PRESETS[name], PRESETS[f"{name}-released"]
        assert astuple(ours.quirks) == (False,) * len(QUIRKS)
        assert released.quirks == RELEASED
        changed = {
            f.name for f in fields(ours) if getattr(ours, f.name) != getattr(released, f.name)
        }
        moved = {"beta", "certainty"}  # of the perplexity, not read where it is off
        assert changed == {"quirks", "perplexity", "separation", "search"} | moved
        assert not released.perplexity
        assert (released.beta, released.certainty) == (1.0, "exp")
        assert (ours.alpha, ours.beta, ours.certainty) == (0.8, 1.5, "inverse")
        assert (released.separation, released.search) == ("none", "none")


def test_auxiliary_maps_of_the_last_scale_only():
    torch.manual_seed(0)
    views = [torch.randn(4, K, g, g) for g in (4, 2, 6)]
    index, present = present_classes(torch.ones(2, K))
    args = (index, present, (32, 32), (1.0, 0.5, 1.5))
    last = teacher_cam(views[2:], index, present, (32, 32), (1.5,))
    rule = Fusion((1.0, 0.5, 1.5), fuse_scale="last")
    torch.testing.assert_close(last, normalize_cam(fuse_cams(views, (32, 32), rule), NORMALIZATION))
    assert not torch.allclose(last, teacher_cam(views, *args))
    released, ours = (step(make(aux_last_scale=flag)).panels["labels"] for flag in (True, False))
    assert torch.equal(released[:, 0], ours[:, 0])
    assert not torch.equal(released[:, 1], ours[:, 1])


def test_floor_of_the_cam_loss():
    cam = torch.full((2, K, 3, 3), -5.0, requires_grad=True)
    nothing = torch.zeros(2, K, 3, 3)
    floor = swapped_cam_loss(cam, nothing, floor=True)
    assert floor.item() == pytest.approx(0.6931, abs=1e-4)
    assert torch.autograd.grad(floor, cam)[0].abs().max() == 0
    free = swapped_cam_loss(cam, nothing, floor=False)
    assert free.item() < 0.01
    assert torch.autograd.grad(free, cam)[0].min() > 0
    assert step(make(cam_floor=True)).parts["cam"] > step(make(cam_floor=False)).parts["cam"]


def test_independent_start_differs_in_the_heads_only():
    released, ours = make(independent_start=True), make(independent_start=False)
    for name, fast in released.online.state_dict().items():
        slow = released.assignment.network.state_dict()[name]
        assert torch.equal(slow, fast) == name.startswith("backbone."), name
    for name, fast in ours.online.state_dict().items():
        assert torch.equal(ours.assignment.network.state_dict()[name], fast), name


def test_padding_takes_no_part_unless_the_quirk_is_on():
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
    released, ours = (step(make(use_padding=flag)) for flag in (True, False))
    assert released.parts["cam"] != ours.parts["cam"]


def test_view_of_the_dense_energy(monkeypatch):
    data, seen = batch(), {}
    for view in ("strong", "weak"):
        method = make(energy_on_strong=view == "strong", search="none")
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


def test_warmup_without_the_teacher_trains_the_same():
    weights = []
    for skip in (False, True):
        method = make("voc-released", full_warmup=not skip)
        assert method.config.quirks.full_warmup != skip
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


def test_groups_of_the_optimiser():
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


def test_start_of_the_queue():
    assert make(search="bands", random_queue=True).searches[0].queue.values.sum() > 0
    assert make(search="bands", random_queue=False).searches[0].queue.values.sum() == 0


def test_one_queue_for_all_processes():
    for flag in (True, False):
        searches = make(queue_per_process=flag).searches
        assert len(searches) == 2
        assert all(s.queue.shared != flag for s in searches)
