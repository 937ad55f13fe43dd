"""The training step: its sum, the arms of the ablation, gradients, presets."""

import argparse
import copy
import importlib.util
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from tiny_asdt import PULSE, QUIET, SIDE, K, batch, make, settings, step, toward_b

from wsss_lab import IGNORE
from wsss_lab.config import RunConfig
from wsss_lab.methods.asdt.arms import ARMS, arm
from wsss_lab.methods.asdt.config import CLASSES, OPTIM, PRESETS, RUNS
from wsss_lab.methods.asdt.labels import TeacherLabel
from wsss_lab.methods.asdt.losses import fused_probs, hard_distillation
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.models.backbones import build_backbone
from wsss_lab.train.fit import fit

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "asdt.py"


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
        assert (p["student_ce"] == 0) == (share == 1)  # what does not count is exactly 0
        assert p["student_kd"] == 0 or share > 0


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
    assert after["R9"] == after["R1"]  # inverted: A is selected here
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


def test_a_pixel_at_the_least_confidence_counts():
    method = make(kd="hard_conf", kd_confidence=0.75)
    sure = torch.tensor([[[0.75, 0.5, 0.9]]])
    probs = torch.stack([sure, 1 - sure], dim=1)
    label, logits = torch.tensor([[[0, 0, 0]]]), torch.randn(1, K + 1, 1, 3)
    b = TeacherLabel(label, probs, torch.tensor([[0, 1]]))
    wanted = hard_distillation(logits, torch.tensor([[[0, IGNORE, 0]]]))
    assert torch.equal(method._distillation(logits, b), wanted)


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
    history = fit(method, lambda t: batch(seed=t), run, OPTIM, log=None)
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
