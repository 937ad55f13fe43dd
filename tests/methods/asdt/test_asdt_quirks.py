"""Every quirk of the released code, switched on alone."""

from dataclasses import astuple, fields, replace

import pytest
import torch
import torch.nn.functional as F
from tiny_asdt import SIDE, batch, make, step, toward_b
from torch import nn

from wsss_lab import IGNORE
from wsss_lab.methods.asdt.config import OPTIM, PRESETS, RELEASED, RUNS, ASDTQuirks
from wsss_lab.methods.asdt.losses import first_part, two_part_ce
from wsss_lab.models.modes import DROPOUT


def quirk(name, **others):
    return {"quirks": ASDTQuirks(**{name: True}, **others)}


def test_the_released_preset_has_all_quirks_and_nothing_else():
    ours, released = PRESETS["voc"], PRESETS["voc-released"]
    assert released == replace(ours, quirks=RELEASED)
    assert ours.quirks == ASDTQuirks()
    assert set(astuple(RELEASED)) == {True}
    assert set(astuple(ASDTQuirks())) == {False}
    tested = {name.removeprefix("test_quirk_") for name in globals()}
    assert {f.name for f in fields(ASDTQuirks)} <= tested
    assert OPTIM.momentum == 1e-5
    assert RUNS["voc-released"].steps == OPTIM.decay_steps + 1


def test_quirk_ignore_pulse():
    """The released step is arm R1 in pulses too, although signal and label are computed."""
    released = {**quirk("ignore_pulse"), "selection": "pulse"}
    outs = [step(toward_b(**c)) for c in (released, {"selection": "a"}, {"selection": "pulse"})]
    assert "b_label" in outs[0].panels
    assert "b_label" not in outs[1].panels
    assert outs[0].loss == outs[1].loss
    assert outs[0].parts["student_kd"] == 0
    assert outs[2].loss != outs[1].loss
    assert outs[2].parts["share"] == 1


def test_quirk_squashed_crf_image():
    squashed = batch()["images"].flip(-1)
    ours, released = toward_b(), toward_b(**quirk("squashed_crf_image"))
    aligned = step(ours, squashed=squashed).panels["b_label"]
    other = step(released, squashed=squashed).panels["b_label"]
    assert not torch.equal(aligned, other)
    same = step(released, squashed=batch()["images"]).panels["b_label"]
    assert torch.equal(aligned, same)
    with pytest.raises(ValueError, match="squashed"):
        step(released)
    unused = toward_b(**quirk("squashed_crf_image", ignore_pulse=True))
    assert "b_label" not in step(unused).panels


def test_quirk_label_padding():
    data = batch()
    y0, y1, x0, x1 = data["boxes"][-1].tolist()
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    ours = step(toward_b()).panels["b_label"][-1]
    assert (ours[outside] == IGNORE).all()
    assert not (ours[~outside] == IGNORE).any()
    released = step(toward_b(**quirk("label_padding"))).panels["b_label"]
    assert not (released == IGNORE).any()
    valid = ~outside.expand(3, -1, -1)
    assert torch.equal(step(toward_b(), valid=valid).panels["b_label"][-1], ours)


def test_quirk_absent_classes():
    method = toward_b()
    with torch.no_grad():
        method.network.seg_head.conv2.bias[1] += 50.0  # class 0, which no image has
    ours = step(method).panels["b_label"]
    assert set(ours[1].unique().tolist()) <= {0, 2, IGNORE}
    released = toward_b(**quirk("absent_classes"))
    released.load_state_dict(method.state_dict())
    assert (step(released).panels["b_label"][0] == 1).all()


def test_quirk_nan_on_empty():
    logits, labels = torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    first = first_part(3, background=True)
    loss = two_part_ce(logits, labels, first)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    assert two_part_ce(logits, labels, first, nan_on_empty=True).isnan()
    never = {"cam_floor": 1.0, "background_floor": 1.0}
    assert step(make(**never), at=0).loss.isfinite()
    assert step(make(**quirk("nan_on_empty"), **never), at=0).loss.isnan()


def test_quirk_old_resize():
    images = F.interpolate(batch()["images"], (65, 65))
    data = {"images": images, "boxes": torch.tensor([[0, 65, 0, 65]] * 3)}
    new, old = (step(make(**changes), at=0, **data) for changes in ({}, quirk("old_resize")))
    assert new.parts["energy"] != old.parts["energy"]
    assert new.parts["ce"] == old.parts["ce"]


def test_quirk_truncate_images():
    ours, released = make(), make(**quirk("truncate_images"))
    assert step(ours, at=0).parts["energy"] != step(released, at=0).parts["energy"]
    whole = (255 * batch()["images"]).floor() / 255 + 1e-4
    one, other = (step(m, at=0, images=whole).parts["energy"] for m in (ours, released))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=0)


def test_dropout_in_the_maps():
    noisy, calm = (make(backbone="wrn38", cam_dropout=flag) for flag in (True, False))
    images = batch()["images"]
    for method, same in ((noisy, False), (calm, True)):
        torch.manual_seed(1)
        cam = method.network(images).cam
        one, two = (method.network.fused_cam(images, cam) for _ in range(2))
        assert torch.equal(one, two) == same
        drops = [m for m in method.network.backbone.modules() if isinstance(m, nn.Dropout2d)]
        assert any(layer.training for layer in drops)


def test_the_extra_scales_switch_dropout_alone_and_give_it_back():
    method = make(backbone="wrn38", cam_dropout=False)
    backbone, images = method.network.backbone, batch()["images"]
    cam = method.network(images).cam
    drops = [layer for layer in backbone.modules() if isinstance(layer, DROPOUT)]
    drops[0].eval()  # frozen, and to stay so
    layers = list(backbone.modules())
    before, inside = [layer.training for layer in layers], []
    hook = backbone.register_forward_pre_hook(
        lambda *_: inside.append([layer.training for layer in layers])
    )
    method.network.fused_cam(images, cam)
    hook.remove()
    calm = [mode and layer not in drops for mode, layer in zip(before, layers, strict=True)]
    assert sum(calm) < sum(before)
    assert any(calm)
    assert inside == [calm] * len(method.config.scales)
    assert [layer.training for layer in layers] == before
