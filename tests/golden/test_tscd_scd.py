"""TSCD: sampling, correspondences and the loss against recorded numbers."""

import pytest
import torch

from wsss_lab.methods.tscd.losses import correspondence, recentre, scd_loss
from wsss_lab.methods.tscd.views import sample_points

FILES = ["scd_loss_s7.npz", "scd_loss_s40.npz"]


@pytest.fixture
def recorded(golden):
    def load(name, *keys):
        z = golden("tscd")(name, *keys)
        return {key: torch.from_numpy(value) for key, value in z.items()}

    return load


def close(actual, expected, atol=1e-6):
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_tscd_scd_from_maps(recorded, name):
    z = recorded(name, "feats", "feats_pos", "code", "code_pos")
    code, code_pos = z["code"].requires_grad_(), z["code_pos"].requires_grad_()
    first, second = sample_points(z["feats"], z["coords1"]), sample_points(code, z["coords1"])
    b, n = z["coords1"].shape[:2]
    close(first.view(b, -1, n, n), z["sampled_feats"])
    close(second.detach().view(b, -1, n, n), z["sampled_code"])
    target = correspondence(first, sample_points(z["feats_pos"], z["coords2"]))
    student = correspondence(second, sample_points(code_pos, z["coords2"]))
    loss = scd_loss(target, student)
    close(loss.detach(), z["loss"])
    loss.backward()
    for grad, key in ((code.grad, "grad_code"), (code_pos.grad, "grad_code_pos")):
        close(grad, z[key], atol=1e-9)


def test_tscd_scd_from_samples(recorded):
    """The committed file has only these; the others are compared where they are."""
    keys = [f"sampled_{kind}{view}" for kind in ("feats", "code") for view in ("", "_pos")]
    z = recorded("scd_loss_s7.npz", *keys, "loss")
    feats, feats_pos, code, code_pos = (z[key].flatten(2) for key in keys)
    target, student = correspondence(feats, feats_pos), correspondence(code, code_pos)
    close(scd_loss(target, student), z["loss"])
    for key, found in (
        ("F_raw", target),
        ("F_centered", recentre(target)),
        ("S", student),
        ("loss_map", -student.clamp(min=0) * recentre(target)),
    ):
        if key in z:
            close(found.view(z[key].shape), z[key])
