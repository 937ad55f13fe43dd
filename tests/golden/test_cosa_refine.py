"""PAR of CoSA's repository, alone and inside the label function."""

import re

import torch

from wsss_lab.cam import box_to_valid, cam_to_pseudo_label
from wsss_lab.refine import PAR, local_affinity, propagate

DIFFERENT = 1e-3  # share of label pixels that may differ: order of float32 sums


def recorded(golden, name):
    return {k: torch.from_numpy(v) for k, v in golden("cosa")(name).items()}


def test_cosa_par(golden):
    z = recorded(golden, "par.npz")
    images, masks = z["imgs"], z["masks"]
    torch.testing.assert_close(PAR()(images, masks), z["out"], atol=1e-5, rtol=1e-5)
    once = PAR(iterations=1)
    torch.testing.assert_close(once(images, masks), z["out_iter1"], atol=1e-5, rtol=1e-5)
    short = PAR(dilations=(1, 2, 4), iterations=15)
    torch.testing.assert_close(short(images, masks), z["out_d124_it15"], atol=1e-5, rtol=1e-5)


def test_cosa_par_weights(golden):
    z = recorded(golden, "par.npz")
    weights = local_affinity(z["imgs"])
    stored = z["aff"].reshape(weights.shape)  # rounded to float16
    torch.testing.assert_close(weights, stored, atol=1e-3, rtol=1e-3)
    up = propagate(z["masks_up"], weights)
    torch.testing.assert_close(up, z["out"], atol=1e-5, rtol=1e-5)


def test_cosa_pseudo_label_with_par(golden):
    z = recorded(golden, "cam_labels.npz")
    valid = box_to_valid(z["img_boxes"], tuple(z["cams"].shape[-2:]))
    names = [name for name in z if re.fullmatch(r"cam2mask_PAR_h\d+_l\d+_ds\d+", name)]
    assert names
    for name in names:
        high, low, down = (int(number) for number in re.findall(r"_(?:h|l|ds)(\d+)", name))
        label = cam_to_pseudo_label(
            z["cams"],
            z["cls_labels"],
            low / 100,
            high / 100,
            images=z["imgs"],
            refine=PAR(),
            down_scale=max(down, 1),
            valid=valid,
        )
        assert (label != z[name]).float().mean() < DIFFERENT, name
