import argparse
import copy
import importlib.util
import json
import math
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_lab import IGNORE
from wsss_lab.config import RunConfig
from wsss_lab.methods.asdt import method as asdt
from wsss_lab.methods.asdt.config import ARMS, CLASSES, PRESETS, RUNS, ASDTConfig, arm
from wsss_lab.methods.asdt.labels import (
    TeacherLabel,
    agreement_of_teachers,
    crf_of_present,
    mean_of_teachers,
    present_cams,
    strongest_classes,
    sure_by_cam,
    teacher_a_label,
    teacher_b_label,
)
from wsss_lab.methods.asdt.losses import (
    first_part,
    fused_probs,
    hard_distillation,
    soft_distillation,
    two_part_ce,
)
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.signal import (
    coin,
    image_signal,
    pulse_signal,
    pulse_width,
    released_wave,
    student_share,
)
from wsss_lab.models.backbones import build_backbone
from wsss_lab.refine import unary_from_probs
from wsss_lab.train.fit import fit
from wsss_lab.train.optim import PRESETS as OPTIMS

K, SIDE = 4, 64
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "asdt.py"
SMALL = {"scales": (1.0, 0.5), "hidden": 8, "dilation": 2, "warmup": 10, "period": 6, "duty": 1 / 3}
PULSE, QUIET = 13, 16  # steps inside and outside a pulse, after warm-up


def settings(preset="voc", **changes):
    toy = PRESETS["toy"]
    small = {
        "cam_crf": replace(toy.cam_crf, iterations=3),
        "seg_crf": replace(toy.seg_crf, iterations=3),
    }
    return replace(PRESETS[preset], **(small | SMALL | changes))


def make(preset="voc", seed=0, classes=K, backbone="toy_cnn", config=None, **changes):
    torch.manual_seed(seed)
    options = {"width_factor": 1 / 64} if backbone == "wrn38" else {}
    net = build_backbone(backbone, **options)
    return ASDT(net, classes, config or settings(preset, **changes)).train()


def batch(b=3, seed=0, classes=K):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(b, 3, 8, 8, generator=g)
    images = F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    tags = torch.zeros(b, classes)
    tags[:, 1] = 1
    tags[0, 3] = 1
    boxes = torch.tensor([[0, SIDE, 0, SIDE]]).repeat(b, 1)
    boxes[-1] = torch.tensor([8, 50, 0, 40])
    return {"images": images, "tags": tags, "boxes": boxes}


def step(method, at=PULSE, **changes):
    torch.manual_seed(3)
    return method.training_step(batch() | changes, at)


def toward_b(preset="voc", **changes):
    """A method whose labels exist: thresholds so low that random maps are sure."""
    return make(preset, top_from=0.0, cam_floor=0.0, crf_floor=0.0, **changes)


# --- signal --------------------------------------------------------------------------------------


def test_pulse_by_hand():
    on = [t for t in range(40) if pulse_signal(t, period=10, duty=0.3, phase=2, warmup=13)]
    assert on == [14, 22, 23, 24, 32, 33, 34]
    off = [t for t in range(14, 40) if not pulse_signal(t, 10, 0.3, 2, 13, invert=True)]
    assert off == on
    assert not any(pulse_signal(t, 10, 0.3, 2, 13, invert=True) for t in range(14))
    steps = torch.arange(40)
    wave = pulse_signal(steps, 10, 0.3, 2, 13)
    assert wave.dtype == torch.bool
    assert steps[wave].tolist() == on


@pytest.mark.parametrize(("T", "N"), [(150, 6), (150, 7), (7, 3), (5, 5), (9, 1)])
def test_pulse_is_the_released_condition(T, N):
    period, duty = released_wave(T, N)
    for t in range(700):
        assert pulse_signal(t, period, duty, warmup=100) == (t > 100 and (t // (T // N)) % N == 0)


def test_signal_refuses_nonsense():
    with pytest.raises(ValueError, match="duty"):
        pulse_width(150, 6.0)
    with pytest.raises(ValueError, match="T, N"):
        released_wave(3, 6)
    with pytest.raises(ValueError, match="image_signal"):
        student_share(5, "images", period=6, duty=0.5)


def test_all_selections_have_the_same_duty():
    period, duty, warmup, steps = 150, 1 / 6, 1000, range(1001, 1001 + 30_000)
    wave = {"period": period, "duty": duty, "warmup": warmup}
    for selection, wide in (("pulse", 0), ("mix", 1e-6), ("bernoulli", 0.01), ("blocks", 0.03)):
        shares = [student_share(t, selection, **wave) for t in steps]
        assert sum(shares) / len(shares) == pytest.approx(duty, abs=wide + 1e-9), selection
        assert student_share(warmup, selection, **wave) == 0
        inverted = student_share(1001, selection, **wave, invert=True)
        assert inverted == pytest.approx(1 - shares[0])
    images = [one for t in steps[:300] for one in image_signal(t, 4, period, duty, warmup)]
    assert sum(images) == 200
    assert not any(image_signal(warmup, 4, period, duty, warmup))
    blocks = [student_share(t, "blocks", **wave) for t in range(1025, 1050)]
    assert len(set(blocks)) == 1
    assert {student_share(t, "a", **wave) for t in steps[:50]} == {0.0}
    assert {student_share(t, "b", **wave) for t in steps[:50]} == {1.0}
    assert student_share(2000, "mix", **wave, mix=0.5) == 0.5
    assert coin(1, 0) != coin(1, 1)


# --- labels --------------------------------------------------------------------------------------


def test_sure_by_cam_by_loops():
    """The sorted-list rule, class by class in Python."""
    config = ASDTConfig()
    torch.manual_seed(1)
    scores = torch.rand(3, 5, 12, 13)
    present = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    scores = scores * present[:, :, None, None]
    named = present.clone()
    named[0, 3] = False
    found = sure_by_cam(scores, present, named, config)
    for n in range(3):
        winner = scores[n][present[n]].argmax(0)
        wanted = torch.zeros(12, 13, dtype=torch.bool)
        for c in range(int(present[n].sum())):
            if not named[n, c]:
                continue
            if c == 0:
                wanted |= (winner == 0) & (scores[n, 0] > 0.8)
                continue
            values = sorted(scores[n, c][(winner == c) & (scores[n, c] > 0.1)].tolist())
            if values:
                wanted |= (winner == c) & (scores[n, c] > values[int(0.6 * len(values))])
        assert torch.equal(found[n], wanted), n
    assert found[0].any()


def test_present_cams_and_strongest_classes():
    torch.manual_seed(0)
    cam, tags = torch.rand(2, 6, 5, 5), torch.tensor([[1.0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 0]])
    cam[0, 2] += 1
    cam[0, 5] += 2
    index, present = strongest_classes(cam, tags, 2)
    assert index[0].tolist() == [2, 5]
    assert present.tolist() == [[True, True], [True, False]]
    assert index[1, 0] == 4
    cams = present_cams(cam, index, present, (9, 9))
    up = F.interpolate(cam[:, 4:5], (9, 9), mode="bilinear")[1, 0]
    torch.testing.assert_close(cams[1, 0], up / (up.max() + 1e-5))
    assert not cams[1, 1].any()
    assert strongest_classes(cam, tags)[0].shape == (2, 4)


def rectangle():
    """A bright rectangle on dark ground, and a map of its upper half only."""
    images = torch.full((2, 3, 40, 40), 30.0)
    images[:, :, 10:30, 10:30] = 220.0
    cams = torch.zeros(2, 2, 40, 40)
    cams[:, 0, 12:24, 12:28] = 1.0
    index, present = torch.tensor([[2, 0], [1, 3]]), torch.tensor([[True, False], [True, True]])
    return images, cams, index, present


def test_teacher_a_follows_the_picture():
    config = settings(exponents=(4.0, 32.0), top_from=0.0)
    images, cams, index, present = rectangle()
    cams[:, 0, 15, 15] = 0.9  # so that some pixels exceed the lowest value
    found = teacher_a_label(images, cams, index, present, config)
    assert found.classes.tolist() == [[0, 3, 1], [0, 2, 4]]
    assert (found.label[0, :5] == 0).all()
    assert set(found.label[0].unique().tolist()) == {0, 3, IGNORE}
    assert not found.probs[0, 2].any()
    torch.testing.assert_close(found.probs.sum(1), torch.ones(2, 40, 40))


def test_images_without_tags():
    images, cams, index, _ = rectangle()
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    for config, value in ((settings(), 0), (settings("stuff10k"), IGNORE)):
        a = teacher_a_label(images, cams * 0, index, nothing, config)
        assert (a.label == value).all()
        logits = torch.randn(2, 5 if config.background else 4, 5, 5)
        b = teacher_b_label(images, logits, index, nothing, config)
        assert (b.label == value).all()
        assert torch.isfinite(b.probs).all()


def test_teacher_a_without_background_labels_from_zero():
    images, cams, index, present = rectangle()
    cams[:, 1, 24:36, 12:28] = 1.0
    cams = cams * present[:, :, None, None] * torch.rand(40, 40)
    found = teacher_a_label(images, cams, index, present, settings("stuff10k"))
    assert set(found.label[1].unique().tolist()) <= {1, 3, IGNORE}
    assert set(found.label[0].unique().tolist()) == {2, IGNORE}


def test_teacher_b_batch_is_image_by_image():
    images, _, index, present = rectangle()
    torch.manual_seed(0)
    logits = torch.randn(2, K + 1, 5, 5) * 3
    for config in (settings(), settings(tag_mask=False)):
        both = teacher_b_label(images, logits, index, present, config)
        for n, count in enumerate((1, 2)):
            one = slice(n, n + 1)
            alone = teacher_b_label(
                images[one], logits[one], index[one, :count], present[one, :count], config
            )
            assert torch.equal(alone.label[0], both.label[n])
            m = alone.probs.shape[1]
            torch.testing.assert_close(both.probs[n, :m], alone.probs[0], atol=1e-6, rtol=0)


def test_mean_and_agreement():
    classes = torch.tensor([[0, 2]])
    probs = torch.tensor([[[[1.0, 0, 0.5]], [[0, 1, 0.5]]], [[[0.6, 1, 0]], [[0.4, 0, 1]]]])
    a = TeacherLabel(torch.tensor([[[0, 2, 255]]]), probs[:1], classes)
    b = TeacherLabel(torch.tensor([[[0, 0, 2]]]), probs[1:], classes)
    assert agreement_of_teachers((a, b)).tolist() == [[[0, IGNORE, IGNORE]]]
    mean = mean_of_teachers((a, b), 5)
    torch.testing.assert_close(mean.probs[0, 0], torch.tensor([[0.8, 0.5, 0.25]]))
    full = replace(b, probs=b.spread(5), classes=torch.arange(5)[None])
    torch.testing.assert_close(mean_of_teachers((a, full), 5).probs, mean.spread(5))


# --- losses --------------------------------------------------------------------------------------


def test_two_part_ce_by_loops():
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    labels[0, 0] = IGNORE
    first = first_part(4, background=False, things=2)
    log_probs, sums = logits.log_softmax(1), {True: [], False: []}
    for n, y, x in (labels != IGNORE).nonzero().tolist():
        label = int(labels[n, y, x])
        sums[label < 2].append(-log_probs[n, label, y, x])
    wanted = torch.stack(sums[True]).mean() + torch.stack(sums[False]).mean()
    torch.testing.assert_close(two_part_ce(logits, labels, first), wanted)


def test_soft_distillation():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 3, requires_grad=True)
    q = torch.rand(2, 2, 6, 6).softmax(1)
    classes = torch.tensor([[0, 3], [0, 1]])
    taught = torch.rand(2, 6, 6) > 0.5
    loss = soft_distillation(logits, q, classes, taught, temperature=2.0)
    full = torch.zeros(2, 4, 6, 6)
    for n in range(2):
        full[n, classes[n]] = q[n]
    up = F.interpolate(logits, (6, 6), mode="bilinear") / 2
    each = F.kl_div(up.log_softmax(1), full, reduction="none").sum(1)
    torch.testing.assert_close(loss, 4 * each[taught].mean())
    itself = soft_distillation(full.clamp(min=1e-12).log(), q, classes, taught)
    assert itself.item() == pytest.approx(0, abs=1e-6)
    assert soft_distillation(logits, q, classes, taught & False).item() == 0


def test_confidence_masks_pixels():
    torch.manual_seed(0)
    logits, label = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    confidence = torch.rand(1, 4, 4)
    masked = hard_distillation(logits, label, confidence, 0.5)
    each = F.cross_entropy(logits, label, reduction="none")
    torch.testing.assert_close(masked, each[confidence >= 0.5].mean())


def test_fused_probs():
    torch.manual_seed(0)
    one, two = torch.randn(2, 1, 3, 4, 4)
    fused = fused_probs(one, two, (8, 8))
    assert (fused.sum(1) >= 1 - 1e-6).all()
    torch.testing.assert_close(fused_probs(one, one, (4, 4)), one.softmax(1))


# --- deviations, by number -----------------------------------------------------------------------

DEVIATIONS = [
    "pulse_in_loss", "aligned_crop", "ignore_padding", "tag_mask", "nan_on_empty", "old_resize",
    "truncate_images",
]  # fmt: skip


def test_released_preset_switches_every_deviation_off():
    ours, released = PRESETS["voc"], PRESETS["voc-released"]
    changed = {f.name for f in fields(ours) if getattr(ours, f.name) != getattr(released, f.name)}
    assert changed == set(DEVIATIONS)
    for number, name in enumerate(DEVIATIONS, 1):
        assert f"\n{number}. `{name}`" in (asdt.__doc__ or ""), name
    assert OPTIMS[released.optim].momentum == OPTIMS[ours.optim].momentum == 1e-5
    assert RUNS["voc-released"].steps == OPTIMS[released.optim].decay_steps + 1


def test_1_released_student_never_hears_teacher_b():
    """The released step is arm R1 in pulses too, although signal and label are computed."""
    released = dict(pulse_in_loss=False, selection="pulse")
    outs = [step(toward_b(**c)) for c in (released, {"selection": "a"}, {"selection": "pulse"})]
    assert "b_label" in outs[0].panels
    assert "b_label" not in outs[1].panels
    assert outs[0].loss == outs[1].loss
    assert outs[0].parts["student_kd"] == 0
    assert outs[2].loss != outs[1].loss
    assert outs[2].parts["share"] == 1


def test_2_picture_of_teacher_b():
    squashed = batch()["images"].flip(-1)
    ours, released = toward_b(), toward_b(aligned_crop=False)
    aligned = step(ours, squashed=squashed).panels["b_label"]
    other = step(released, squashed=squashed).panels["b_label"]
    assert not torch.equal(aligned, other)
    same = step(released, squashed=batch()["images"]).panels["b_label"]
    assert torch.equal(aligned, same)
    with pytest.raises(ValueError, match="squashed"):
        step(released)
    assert "b_label" not in step(toward_b(aligned_crop=False, pulse_in_loss=False)).panels


def test_3_padding_in_the_label_of_teacher_b():
    data = batch()
    y0, y1, x0, x1 = data["boxes"][-1].tolist()
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[y0:y1, x0:x1] = False
    ours = step(toward_b()).panels["b_label"][-1]
    assert (ours[outside] == IGNORE).all()
    assert not (ours[~outside] == IGNORE).any()
    released = step(toward_b(ignore_padding=False)).panels["b_label"]
    assert not (released == IGNORE).any()
    valid = ~outside.expand(3, -1, -1)
    assert torch.equal(step(toward_b(), valid=valid).panels["b_label"][-1], ours)


def test_4_teacher_b_among_the_tags():
    method = toward_b()
    with torch.no_grad():
        method.network.seg_head.conv2.bias[1] += 50.0  # class 0, which no image has
    ours = step(method).panels["b_label"]
    assert set(ours[1].unique().tolist()) <= {0, 2, IGNORE}
    released = toward_b(tag_mask=False)
    released.load_state_dict(method.state_dict())
    assert (step(released).panels["b_label"][0] == 1).all()


def test_5_empty_groups():
    logits, labels = torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    first = first_part(3, background=True)
    loss = two_part_ce(logits, labels, first)
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))
    assert two_part_ce(logits, labels, first, nan_on_empty=True).isnan()
    never = {"cam_floor": 1.0, "background_floor": 1.0}
    assert step(make(**never), at=0).loss.isfinite()
    assert step(make(nan_on_empty=True, **never), at=0).loss.isnan()


def test_6_halving_odd_sizes():
    images = F.interpolate(batch()["images"], (65, 65))
    data = {"images": images, "boxes": torch.tensor([[0, 65, 0, 65]] * 3)}
    new, old = (step(make(old_resize=flag), at=0, **data) for flag in (False, True))
    assert new.parts["energy"] != old.parts["energy"]
    assert new.parts["ce"] == old.parts["ce"]


def test_7_whole_numbers():
    ours, released = make(), make(truncate_images=True)
    assert step(ours, at=0).parts["energy"] != step(released, at=0).parts["energy"]
    whole = (255 * batch()["images"]).floor() / 255 + 1e-4
    one, other = (step(m, at=0, images=whole).parts["energy"] for m in (ours, released))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=0)


def test_8_dropout_in_the_maps():
    noisy, calm = (make(backbone="wrn38", cam_dropout=flag) for flag in (True, False))
    images = batch()["images"]
    for method, same in ((noisy, False), (calm, True)):
        torch.manual_seed(1)
        cam = method.network(images).cam
        one, two = (method.network.fused_cam(images, cam) for _ in range(2))
        assert torch.equal(one, two) == same
        drops = [m for m in method.network.backbone.modules() if isinstance(m, nn.Dropout2d)]
        assert any(layer.training for layer in drops)


# --- training step -------------------------------------------------------------------------------


def test_loss_is_the_sum_in_the_docstring():
    for at, share in ((0, 0.0), (PULSE, 1.0), (QUIET, 0.0)):
        out = step(toward_b(), at=at)
        p = out.parts
        student = (1 - share) * p["student_ce"] + share * 0.1 * p["student_kd"]
        student = student + p["student_energy"]
        wanted = p["tags"] + 0.5 * (p["ce"] + p["energy"]) + 0.5 * student
        torch.testing.assert_close(out.loss, wanted)
        assert p["share"] == share
        assert (p["student_kd"] > 0) == (share > 0)


def test_arms_agree_until_warm_up_ends_and_not_after():
    names = [name for name in ARMS if name != "R0"]
    before, after = {}, {}
    for name in names:
        config = settings(scales=(1.0,), top_from=0.0, cam_floor=0.0, crf_floor=0.0)
        method = make(config=arm(name, config))
        before[name], out = step(method, at=10).loss, step(method, at=PULSE)
        after[name] = out.loss.item()
        assert out.loss.isfinite()
        out.loss.backward()
        assert all(p.grad is not None for p in method.parameters() if p.requires_grad), name
    assert all(torch.equal(before[name], before["R1"]) for name in names)
    values = [v for name, v in after.items() if name not in ("R2", "R2-full", "R5", "R6", "R9")]
    assert len(set(values)) == len(values)
    assert after["R2"] == after["R8"]
    assert after["R2-full"] == after["R11"]
    assert after["R9"] == after["R1"]  # inverted: A speaks here
    assert {after["R5"], after["R6"]} <= {after["R1"], after["R8"]}


def test_every_arm_of_the_plan_has_a_name():
    assert {name.split("-")[0] for name in ARMS} == {f"R{n}" for n in range(12)}
    with pytest.raises(ValueError, match="R12"):
        arm("R12", PRESETS["toy"])


def test_arm_weights():
    """R3 is the mean of R1 and R8's pulse with the duty as weight; R10 keeps nothing."""
    base = settings(top_from=0.0, cam_floor=0.0, crf_floor=0.0)
    names = ("R0", "R1", "R3", "R3-half", "R8", "R10", "R10-dense")
    loss = {name: step(make(config=arm(name, base))).loss for name in names}
    torch.testing.assert_close(loss["R3"], 2 / 3 * loss["R1"] + 1 / 3 * loss["R8"])
    torch.testing.assert_close(loss["R3-half"], (loss["R1"] + loss["R8"]) / 2)
    torch.testing.assert_close(loss["R10"], loss["R0"])
    energy = step(make(config=base)).parts["student_energy"]
    torch.testing.assert_close(loss["R10-dense"], loss["R10"] + 0.5 * energy)


@pytest.mark.parametrize("kd", ["hard", "hard_conf", "soft_kl"])
def test_student_loss_leaves_teachers_alone(kd):
    method = toward_b(kd=kd)
    out = step(method)
    net = method.network
    parameters = [net.seg_head.conv1.weight, net.tag_head.linear.weight]
    grads = torch.autograd.grad(
        out.parts["student_kd"], [*parameters, net.student_head.conv1.weight], allow_unused=True
    )
    assert grads[0] is None
    assert grads[1] is None
    assert grads[2].abs().sum() > 0 or kd != "hard"


def test_no_student():
    method = make(selection="none")
    assert method.network.student_head is None
    out = step(method)
    assert "student_ce" not in out.parts
    torch.testing.assert_close(
        out.loss, out.parts["tags"] + 0.5 * (out.parts["ce"] + out.parts["energy"])
    )
    fused = method.eval().predict(batch()["images"]).logits
    assert fused.shape == (3, K + 1, SIDE, SIDE)


@pytest.mark.parametrize("backbone", ["wrn38", "resnet18", "toy_cnn", "toy_mit", "toy_vit"])
def test_small_profiles_learn(backbone):
    """Some steps on one batch lower the loss; norms do not move."""
    method = make(backbone=backbone, head_dropout=0.0, scales=(1.0,))
    frozen = copy.deepcopy(dict(method.named_buffers()))
    optimizer = torch.optim.SGD(method.param_groups(0.02, 0.2, 0.0), momentum=0.0)
    losses = []
    for at in range(6):
        loss = step(method, at=at).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, buffer in method.named_buffers():
        assert torch.equal(buffer, frozen[name]), name


def test_four_groups():
    method = make("voc", backbone="wrn38")
    groups = method.param_groups(7e-4, 7e-3, 1e-5)
    rates = [(g["lr"], g["weight_decay"]) for g in groups]
    assert rates == [(7e-4, 1e-5), (2 * 7e-4, 0.0), (7e-3, 1e-5), (2 * 7e-3, 0.0)]
    assert [len(g["params"]) for g in groups][1:] == [0, 5, 4]
    assert all(p.ndim > 1 for p in groups[0]["params"])
    got = sum(p.numel() for g in groups for p in g["params"])
    assert got == sum(p.numel() for p in method.parameters() if p.requires_grad)


def test_sizes_of_the_paper():
    """Parameter counts of the released network."""
    with torch.device("meta"):
        method = ASDT(build_backbone("wrn38"), CLASSES["voc"], PRESETS["voc"])
    net = method.network
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in net.named_children()}
    assert count["backbone"] == 105_070_912
    assert count["tag_head"] == 81_920
    assert count["seg_head"] == count["student_head"] == 18_971_669
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert trained == 143_048_426


def test_state_is_exact_to_resume():
    """No hidden state: a copy made from the state dict repeats the step."""
    method, other = toward_b(), toward_b(seed=7)
    other.load_state_dict(method.state_dict())
    assert step(method).loss == step(other).loss


def test_fit_runs_into_a_pulse():
    """The engine trains it with the released optimiser, steps with and without teacher B."""
    method = make(warmup=0, period=2, duty=0.5)
    run = RunConfig(steps=3, batch=3, log_every=1, accelerator="cpu")
    history = fit(method, lambda t: batch(seed=t), run, OPTIMS["asdt"], log=None)
    shares = [entry["share"] for entry in history]
    assert shares == [0.0, 0.0, 1.0]
    assert all(math.isfinite(entry["loss"]) for entry in history)


def test_step_is_the_literal_one(monkeypatch):
    """Batched step against one image, one class, one pixel group at a time."""
    spec = importlib.util.spec_from_file_location("benchmark_asdt", BENCHMARK)
    literal = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(literal)
    monkeypatch.setattr(literal, "densecrf", None)  # our CRF image by image
    options = argparse.Namespace(
        backbone="toy_cnn", width_factor=1.0, hidden=8, size=72, batch=3, threads=1
    )
    rows = literal.check(options, literal.scene(options))
    assert [len(row["agree"]) for row in rows] == [1, 2]
    for row in rows:
        assert row["losses"][0] == pytest.approx(row["losses"][1], rel=1e-4)
        assert min(row["agree"]) > 0.999
        assert row["labelled by A"] > 0.1


def test_presets_are_plain_values():
    for name, preset in PRESETS.items():
        json.dumps(asdict(preset))
        assert preset.optim in OPTIMS
        assert name in RUNS
        options = {"width_factor": 0.02} if preset.backbone == "wrn38" else {}
        ASDT(
            build_backbone(preset.backbone, **options),
            CLASSES.get(name, 4),
            replace(preset, hidden=4),
        )


def test_stuff_without_background():
    config = settings("stuff10k", things=2, max_classes=2, top_from=0.0, cam_floor=0.0)
    method = make(config=config)
    tags = torch.ones(3, K)
    out = step(method, tags=tags)
    assert out.loss.isfinite()
    for name in ("a_label", "b_label"):
        found = set(out.panels[name].unique().tolist())
        assert found <= {0, 1, 2, 3, IGNORE}
        assert len(out.panels[name][0].unique()) <= 3
    logits = method.eval().predict(batch()["images"]).logits
    assert logits.shape[1] == K + 1
    assert logits.argmax(1).min() >= 1  # labels as in masks, where 0 is no class


def test_prediction_is_the_fused_one():
    method = make().eval()
    images = batch()["images"]
    with torch.no_grad():
        out, seen = method.predict(images), method.network(images)
    fused = fused_probs(seen.teacher_logits, seen.student_logits, (SIDE, SIDE))
    torch.testing.assert_close(out.logits.softmax(1), fused / fused.sum(1, True))
    torch.testing.assert_close(out.tag_logits, out.cam.mean((2, 3)), atol=1e-5, rtol=1e-4)


def test_bfloat16_step_keeps_labels_in_float32():
    method = toward_b()
    with torch.autocast("cpu", torch.bfloat16):
        out = step(method)
    assert out.loss.dtype == torch.float32
    assert out.panels["cam"].dtype == torch.float32
    assert out.loss.isfinite()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="tags"):
        step(make(), tags=torch.ones(3, K + 1))
    for changes, name in (
        ({"selection": "c"}, "selection"),
        ({"kd": "soft"}, "kd"),
        ({"scales": (0.5, 1.0)}, "scales"),
        ({"duty": 6.0}, "duty"),
        ({"mix": 1.5}, "mix"),
        ({"temperature": 0.0}, "temperature"),
        ({"selection": "images", "pulse_dense": False}, "pulse_dense"),
    ):
        with pytest.raises(ValueError, match=name):
            replace(PRESETS["voc"], **changes)
    with pytest.raises(ValueError, match="keys"):
        make().load_released({"other.weight": torch.zeros(1)})


def test_scores_that_share_a_lattice():
    """Side by side as alone."""
    images, cams, _, present = rectangle()
    scores = [F.pad(cams * factor, (0, 0, 0, 0, 1, 0), value=0.3) for factor in (0.5, 0.9)]
    there = F.pad(present, (1, 0), value=True)
    crf = PRESETS["toy"].cam_crf
    together = crf_of_present(crf, images, scores, there)
    for one, both in zip(scores, together, strict=True):
        torch.testing.assert_close(
            crf_of_present(crf, images, [one], there)[0], both, atol=1e-6, rtol=0
        )
        count = int(there[0].sum())
        alone = crf(images[:1], one[:1, :count])
        torch.testing.assert_close(alone, both[:1, :count], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="multiply by 255"):
        crf_of_present(crf, images / 255, scores, there)


def test_absent_classes_cannot_win_the_crf():
    """A padding channel with any score changes nothing, bit for bit."""
    images, cams, index, present = rectangle()
    config = settings(top_from=0.0)
    plain = teacher_a_label(images, cams, index, present, config)
    absurd = cams.clone()
    absurd[0, 1] = 0.0
    index_other = index.clone()
    index_other[0, 1] = 3
    other = teacher_a_label(images, absurd, index_other, present, config)
    assert torch.equal(plain.label, other.label)
    assert unary_from_probs(torch.zeros(1, 1, 1, 1)).item() < 1e4
