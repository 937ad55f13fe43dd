"""VARM of TSCD and PAR of its parent AFA; the label functions around them.

The two large files are recorded in part: an array that is missing skips its test by name.
"""

import re

import pytest
import torch

from wsss_lab.cam import box_to_valid, cam_to_pseudo_label
from wsss_lab.refine import PAR, VARM, local_affinity, refine_in_box
from wsss_lab.refine.local import PAR_KERNEL, VARM_KERNEL
from wsss_lab.runs.recipe import find_preset

DIFFERENT = 1e-3  # share of label pixels that may differ: order of float32 sums
CASES = [("varm.npz", VARM), ("par.npz", PAR)]


@pytest.fixture
def recorded(golden):
    def load(name, *keys):
        z = golden("tscd")(name, *keys)
        return {k: torch.from_numpy(v) for k, v in z.items()}

    return load


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "refiner"), CASES)
def test_tscd_small_refinement(recorded, name, refiner):
    z = recorded(name, "small_imgs", "small_masks")
    keys = [key for key in z if re.fullmatch(r"small_out_d\d+_iter\d+", key)]
    assert keys
    for key in keys:
        dilations, turns = re.findall(r"\d+", key)
        out = refiner(tuple(int(d) for d in dilations), int(turns))(
            z["small_imgs"], z["small_masks"]
        )
        close(out, z[key])


@pytest.mark.parametrize(("name", "refiner"), CASES)
def test_tscd_refinement_of_small_masks(recorded, name, refiner):
    z = recorded(name, "imgs", "masks_lowres", "out_lowres_iter10")
    close(
        refiner(tuple(z["dilations"].tolist()))(z["imgs"], z["masks_lowres"]),
        z["out_lowres_iter10"],
    )


@pytest.mark.parametrize(("name", "refiner"), CASES)
def test_tscd_refinement(recorded, name, refiner):
    z = recorded(name, "imgs", "masks", "out_iter10")
    keys = [key for key in z if re.fullmatch(r"out_iter\d+", key)]
    for key in keys:
        turns = int(key.removeprefix("out_iter"))
        close(refiner(iterations=turns)(z["imgs"], z["masks"]), z[key])


@pytest.mark.parametrize(("name", "kernel"), [("varm.npz", VARM_KERNEL), ("par.npz", PAR_KERNEL)])
def test_tscd_weights(recorded, name, kernel):
    z = recorded(name, "imgs", "weights_b0", "softmax_color_b0", "softmax_second_b0")
    weights = local_affinity(z["imgs"], kernel, tuple(z["dilations"].tolist()))
    close(weights[0], z["weights_b0"])
    total = weights.sum(dim=1)
    close(torch.stack([total.min(), total.max()]), z["weight_sum"])
    second = 0.01 * z["softmax_second_b0"] * (-1 if kernel.variation else 1)
    close(weights[0] - second, z["softmax_color_b0"])


def present_maps(z):
    """Maps of all classes from those of the present ones, which the file stores first to last."""
    tags, stored = z["cls_labels"], z["cams_present"]
    cam = stored.new_zeros(*tags.shape, *stored.shape[2:])
    for i, row in enumerate(tags):
        index = row.nonzero()[:, 0]
        cam[i, index] = stored[i, : len(index)]
    return cam


@pytest.mark.parametrize(
    ("key", "refiner", "down"),
    [("label_varm", VARM, 2), ("label_par", PAR, 2), ("label_varm_downscale1", VARM, 1)],
)
def test_tscd_refine_with_background(recorded, key, refiner, down):
    z = recorded("refine_with_bkg.npz")
    config = find_preset("tscd", "voc-released").method
    high, low = config.high, config.low
    torch.testing.assert_close(torch.tensor([high, low]), z["thr_high_low"].float())
    valid = box_to_valid(z["img_box"], tuple(z[key].shape[1:]))
    label = cam_to_pseudo_label(
        present_maps(z),
        z["cls_labels"],
        low,
        high,
        images=z["images"],
        refine=refiner(),
        down_scale=down,
        valid=valid,
    )
    assert (label != z[key]).float().mean() < DIFFERENT


def test_tscd_refine_in_box_of_afa(recorded):
    z = recorded("refine_with_cls_label_afa.npz")
    out = refine_in_box(PAR(), z["images"], z["cams_with_bkg_present"], z["img_box"])
    close(out, z["out_present"])
