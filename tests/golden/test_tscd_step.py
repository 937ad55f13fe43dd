"""TSCD: one whole training iteration after warm-up, in the released form."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_tscd_forward import tiny

from wsss_lab.cam import box_to_valid, cam_to_label
from wsss_lab.methods.tscd import views
from wsss_lab.methods.tscd.config import PRESETS, RELEASED
from wsss_lab.methods.tscd.keymap import KEYMAP as KEYS
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.models import keymaps

DIFFERENT = 1e-3  # share of label pixels that may differ: order of float32 sums
BACKGROUND = 0.45  # of the logged label; not in the file


class Iteration:
    """The recorded iteration, repeated with our method."""

    def __init__(self, golden, *needed, **quirks):
        self.z = z = golden("tscd")("train_step_tiny.npz", *needed)
        network = tiny(golden, dropout=0.0)
        config = replace(
            PRESETS["voc-released"],
            hidden=network.seg_head.fuse.out_channels,
            quirks=replace(RELEASED, **quirks),
        )
        self.method = TSCD(network.backbone, network.tag_head.linear.out_features, config)
        self.method.network.load_state_dict(network.state_dict())
        self.method.network.seg_head.dropout.p = 0.0
        self.method.train()
        images = torch.from_numpy(z["image_u8_padded"]).permute(0, 3, 1, 2).float() / 255
        self.batch = {
            "images": images,
            "tags": torch.from_numpy(z["cls_labels"]),
            "boxes": torch.from_numpy(z["img_box"]).long(),
        }
        points = [torch.from_numpy(z[key]) for key in ("coords1", "coords2")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(views, "draw_points", lambda *_: points.pop(0))
            self.out = self.method.training_step(self.batch, config.warmup + 1)

    def recorded(self, key):
        return torch.from_numpy(np.asarray(self.z[key]))


@pytest.fixture
def iteration(golden):
    return Iteration(golden)


def test_tscd_step_losses(iteration):
    names = {
        "tags": "cls_loss",
        "seg": "seg_loss",
        "energy": "reg_loss",
        "affinity": "aux_loss",
        "scd": "corr_loss",
        "er": "er_loss",
    }
    assert set(iteration.out.parts) == set(names)
    for name, key in names.items():
        expected = iteration.recorded(key).squeeze()
        found = iteration.out.parts[name].detach()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, msg=key)
    total = iteration.recorded("total").squeeze()
    torch.testing.assert_close(iteration.out.loss.detach(), total, rtol=1e-6, atol=2e-6)
    assert not iteration.out.parts["er"].requires_grad


def test_tscd_step_constants_are_those_of_the_preset(iteration):
    """The step above runs with the preset's own; the recording states them once more."""
    config, z = iteration.method.config, iteration.z
    weights = config.weights
    ours = [1.0, weights.seg, weights.energy, weights.affinity, weights.scd, weights.er]
    np.testing.assert_allclose(ours, z["weights"], rtol=1e-6)
    assert z["coords1"].shape[1:3] == (config.points, config.points)


def test_tscd_step_labels(iteration):
    panels = iteration.out.panels
    labels = {"refined_pseudo_label": panels["labels"], "aff_label": panels["affinity_label"]}
    valid = box_to_valid(iteration.batch["boxes"], tuple(panels["cam"].shape[2:]))
    config = iteration.method.config
    labels["pseudo_label"] = cam_to_label(
        panels["cam"],
        iteration.batch["tags"],
        BACKGROUND,
        band=(config.low, config.high),
        valid=valid,
    )
    for key, found in labels.items():
        wrong = found.long() != iteration.recorded(key).long()
        assert wrong.float().mean() < DIFFERENT, key
    target = panels["affinity_label"]
    for key, value in (("pos_count", 1), ("neg_count", 0)):
        count = (target == value).sum() + 1
        torch.testing.assert_close(count, iteration.recorded(key), rtol=DIFFERENT, atol=0)


@pytest.mark.parametrize(
    ("key", "panel", "every"),
    [
        ("cls", "tag_logits", 1),
        ("seg_lowres", "seg_logits", 1),
        ("seg2_lowres", "view_logits", 1),
        ("attn_pred", "affinity", 1),
        ("cams_every8", "cam", 8),
        ("cams2_every4", "view_cam", 4),
        ("img2_every4", "view", 4),
    ],
)
def test_tscd_step_intermediates(golden, key, panel, every):
    it = Iteration(golden, key)
    expected = it.recorded(key)
    found = it.out.panels[panel]
    if every > 1:
        found = found[..., ::every, ::every]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=3e-5)


def test_tscd_step_gradients(iteration, golden):
    iteration.out.loss.backward()
    net = iteration.method.network
    for key, weight in (
        ("grad_classifier", net.tag_head.linear.weight),
        ("grad_attn_proj_w", net.affinity_head.weight),
        ("grad_linear_pred_w", net.seg_head.classify.weight),
        ("grad_patch_embed1", net.backbone.net.patch_embed.proj.weight),
    ):
        expected = iteration.recorded(key).view_as(weight)
        scale = float(expected.abs().max())
        torch.testing.assert_close(weight.grad, expected, rtol=1e-3, atol=1e-4 * scale, msg=key)
    names = [
        key.removeprefix("w.")
        for key in golden("tscd")("tscd_tiny_forward.npz")
        if key.startswith("w.") and "running" not in key and "num_batches" not in key
    ]
    norms = dict(zip(sorted(names), iteration.recorded("grad_norms_sorted_keys"), strict=True))
    own = dict(net.named_parameters())
    for old, norm in norms.items():
        (new,) = keymaps.rename({old: torch.zeros(1)}, KEYS)
        grad = own[new.replace("/", ".")].grad
        assert norm >= 0, old
        torch.testing.assert_close(grad.norm(), norm, rtol=2e-3, atol=1e-5, msg=old)


def test_tscd_step_running_statistics(iteration):
    norm = iteration.method.network.seg_head.norm
    for key, found in (
        ("bn_running_mean", norm.running_mean),
        ("bn_running_var", norm.running_var),
    ):
        torch.testing.assert_close(found, iteration.recorded(key), rtol=1e-5, atol=2e-6)
    assert norm.num_batches_tracked == 3 + 2 + 2 * len(iteration.method.config.scales)


def test_tscd_step_without_the_side_effects(golden):
    """The decoder left alone in map passes: the same losses, other statistics."""
    names = ("decoder_in_cam", "bn_from_view", "noisy_cam", "extra_pass")
    ours = Iteration(golden, **dict.fromkeys(names, False))
    released = Iteration(golden)
    for name, part in released.out.parts.items():
        torch.testing.assert_close(ours.out.parts[name], part, rtol=1e-5, atol=1e-6)
    norm, polluted = (it.method.network.seg_head.norm for it in (ours, released))
    assert not torch.allclose(norm.running_var, polluted.running_var)
