"""TSCD: whole steps and runs."""

import subprocess
import sys

import pytest
import torch
from test_tscd import SIDE, START, K, batch, make, step

import wsss_lab.methods.tscd as tscd_package
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.tscd.config import PRESETS, TSCDConfig, TSCDQuirks
from wsss_lab.methods.tscd.losses import scd_loss
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.network import (
    TSCDNetwork,
    tscd_backbone,
)
from wsss_lab.methods.tscd.views import second_view
from wsss_lab.models.backbones import build_backbone
from wsss_lab.train.fit import fit


def test_main_names_come_with_the_package():
    found = {name: getattr(tscd_package, name) for name in tscd_package.__all__}
    assert set(found) == set(tscd_package._HOME)
    assert found["TSCD"] is TSCD
    assert found["PRESETS"] is PRESETS
    with pytest.raises(AttributeError, match="nothing"):
        tscd_package.nothing  # noqa: B018


def test_importing_the_package_imports_none_of_its_files():
    code = "import sys, wsss_lab.methods.tscd as t; print(*(m for m in sys.modules if 'tscd' in m))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["wsss_lab.methods.tscd"]


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


def test_prediction_and_propagated_cam():
    method, data = make().eval(), batch()
    out = method.predict(data["images"])
    with_tags = method.predict(data["images"], data["tags"])
    assert torch.equal(out.logits, with_tags.logits)
    assert out.logits.shape == (2, K + 1, SIDE // 4, SIDE // 4)
    assert out.cam.shape == (2, K, SIDE // 16, SIDE // 16)
    assert out.tag_logits.shape == (2, K)
    with torch.no_grad():
        propagated = method.propagated_cam(
            data["images"], method.maps(method.normalize(data["images"])), data["tags"]
        )
    assert propagated.shape == (2, K + 1, SIDE // 16, SIDE // 16)
    assert (propagated[:, 1:][data["tags"] == 0] == 0).all()
    assert (propagated >= 0).all()


def test_backbone_of_the_settings():
    backbone = tscd_backbone(PRESETS["toy"], weights="toy")
    assert backbone.name == "toy_mit2"
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
        ({"quirks": TSCDQuirks(decoder_in_cam=True)}, "extra_pass"),
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
