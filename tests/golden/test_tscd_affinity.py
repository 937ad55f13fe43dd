"""Affinity labels, their loss, and propagation: AFA's code, which TSCD shares."""

import re

import pytest
import torch

from wsss_lab.methods.tscd.labels import affinity_label
from wsss_lab.methods.tscd.losses import affinity_loss
from wsss_lab.refine import grid_label, radius_mask, random_walk


@pytest.fixture
def recorded(golden):
    return {k: torch.from_numpy(v) for k, v in golden("tscd")("affinity.npz").items()}


def masks(z):
    """name -> (recorded mask, ours); height, width and radius stand in the name."""
    found = {}
    for name in z:
        if match := re.fullmatch(r"mask_h(\d+)_w(\d+)_r(\d+)", name):
            found[name] = z[name].bool(), radius_mask(*map(int, match.groups()))
    assert found
    return found


def test_tscd_radius_mask(recorded):
    for name, (theirs, ours) in masks(recorded).items():
        assert torch.equal(ours, theirs), name


def test_tscd_grid_label(recorded):
    small = recorded["label_resized_nearest"]
    assert torch.equal(grid_label(recorded["label_full"], tuple(small.shape[1:])), small)


def test_tscd_affinity_label(recorded):
    label = recorded["label_resized_nearest"]
    assert torch.equal(affinity_label(label), recorded["aff_label_nomask"])
    n = label[0].numel()
    fitting = [ours for _, ours in masks(recorded).values() if len(ours) == n]
    assert any(torch.equal(affinity_label(label, m), recorded["aff_label"]) for m in fitting)


def test_tscd_affinity_loss(recorded):
    affinity, target = recorded["attn_pred"].requires_grad_(), recorded["aff_label"]
    loss = affinity_loss(affinity, target)
    torch.testing.assert_close(loss, recorded["loss"], atol=1e-6, rtol=1e-6)
    loss.backward()
    torch.testing.assert_close(affinity.grad, recorded["grad_attn_pred"], atol=1e-9, rtol=1e-5)
    assert (target == 1).sum() + 1 == recorded["pos_count"]
    assert (target == 0).sum() + 1 == recorded["neg_count"]


def test_tscd_random_walk(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("tscd")("propagate_bkg.npz").items()}
    cam, affinity, tags = z["cams"], z["affinity"], z["cls_labels"]
    mask, score = z["mask"].bool(), float(z["bkg_score"])
    before = affinity.clone()
    out = random_walk(cam, affinity, tags, mask=mask, background=score)
    torch.testing.assert_close(out, z["out"], atol=1e-6, rtol=1e-5)
    plain = random_walk(cam, affinity, mask=mask)  # of all classes, tagged or not
    torch.testing.assert_close(plain, z["out_nobkg"], atol=1e-6, rtol=1e-5)
    assert torch.equal(affinity, before)
