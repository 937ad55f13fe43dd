"""TSCD: the network of the method against recorded outputs, loaded like a released checkpoint."""

import json

import numpy as np
import pytest
import torch
from test_tscd_network import KEYS, tiny_network
from weight_fill import fill

from wsss_lab.evaluate.inference import multi_scale_predict
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.methods.tscd.network import TSCDNetwork
from wsss_lab.methods.tscd.released import load_released
from wsss_lab.models.backbones import build_backbone
from wsss_lab.refine import radius_mask, random_walk
from wsss_lab.runs.recipe import find_preset, find_views


def released(state):
    """As saved by the released code: prefix of the wrapper, and the counter."""
    counter = {"decoder.linear_fuse.bn.num_batches_tracked": torch.tensor(3)}
    return {f"module.{key}": value for key, value in (state | counter).items()}


def b1(symmetric=False):
    shapes = json.loads((KEYS / "tscd.json").read_text())
    state = fill(shapes)
    classes, hidden = shapes["classifier.weight"][0], shapes["decoder.linear_fuse.bn.weight"][0]
    network = TSCDNetwork(build_backbone("mit_b1"), classes, hidden, symmetric)
    load_released(network, released(state))
    return network.eval()


def tiny(golden, symmetric=False, dropout=0.1):
    """The tiny network of the recordings as ours."""
    state, parts = tiny_network(golden("tscd")("tscd_tiny_forward.npz"))
    classes, hidden = len(state["classifier.weight"]), parts.seg_head.fuse.out_channels
    network = TSCDNetwork(parts.backbone, classes, hidden, symmetric, dropout)
    load_released(network, released(state))
    return network.eval()


def compare(outputs, z):
    for found, key in (
        (outputs.tag_logits, "cls"),
        (outputs.seg_logits, "seg"),
        (outputs.affinity, "attn_pred"),
        (outputs.cam, "cam"),
    ):
        np.testing.assert_allclose(found.numpy(), z[key], atol=3e-5, rtol=1e-4, err_msg=key)


@torch.no_grad()
@pytest.mark.parametrize("name", ["tscd_b1_forward.npz", "tscd_b1_forward_odd.npz"])
def test_tscd_forward_of_mit_b1(golden, name):
    z = golden("tscd")(name)
    compare(b1()(torch.from_numpy(z["x"])), z)


@torch.no_grad()
def test_tscd_forward_of_the_tiny_network(golden):
    z = golden("tscd")("tscd_tiny_forward.npz")
    compare(tiny(golden)(torch.from_numpy(z["x"])), z)


@torch.no_grad()
def test_tscd_forward_of_afa(golden):
    z = golden("tscd")("tscd_b1_forward.npz")
    found = b1(symmetric=True)(torch.from_numpy(z["x"])).affinity
    np.testing.assert_allclose(found.numpy(), z["attn_pred_afa_symmetrised"], atol=3e-5)


def predictor(network):
    """The recorded network takes normalised images."""

    def predict(images, tags=None):
        outputs = network(images)
        return SegOutput(outputs.seg_logits, outputs.cam, outputs.tag_logits)

    return predict


@torch.no_grad()
def test_tscd_forward_of_several_scales(golden):
    z = golden("tscd")("cam_multiscale_tiny.npz")
    network, image = tiny(golden), torch.from_numpy(z["x"])
    output = multi_scale_predict(predictor(network), image, find_views("tscd-val"))
    np.testing.assert_allclose(output.cam.numpy(), z["cam"], atol=1e-5)
    # affinity of the last view that the released function runs: 1.5 of the side, and its mirror
    sides = [int(side * find_views("tscd-val").cam.scales[-1]) for side in image.shape[-2:]]
    large = torch.nn.functional.interpolate(image, sides, mode="bilinear", align_corners=False)
    affinity = network(torch.cat([large, large.flip(-1)])).affinity
    assert tuple(affinity.shape) == tuple(z["ref_mat_shape"])
    first = z["ref_mat_first8"]
    np.testing.assert_allclose(affinity[:, : first.shape[1], : first.shape[2]], first, atol=1e-5)


@torch.no_grad()
def test_tscd_forward_of_validation(golden):
    """Maps propagated along the affinity ("ref cams")."""
    z = golden("tscd")("validate_tiny.npz")
    network, image = tiny(golden), torch.from_numpy(z["x"])[None]
    cam = multi_scale_predict(predictor(network), image, find_views("tscd-val")).cam
    outputs = network(image)
    grid = tuple(outputs.cam.shape[2:])
    small = torch.nn.functional.interpolate(cam, grid, mode="bilinear", align_corners=False)
    propagated = random_walk(
        small,
        outputs.affinity,
        torch.from_numpy(z["cls_label"]),
        mask=radius_mask(*grid, int(z["radius"])),
        background=find_preset("tscd", "voc-released").method.low,  # not in the file
    )
    full = torch.nn.functional.interpolate(propagated, image.shape[2:], mode="bilinear")
    np.testing.assert_array_equal(full.argmax(1)[0].numpy(), z["ref_label"])
