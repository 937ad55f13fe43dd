"""CAM -> label of the original code, exactly."""

import torch

from wsss_lab.cam import box_to_valid, cam_to_label
from wsss_lab.runs.recipe import find_preset


def test_tscd_cam_to_label(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("tscd")("cam_to_label.npz").items()}
    background, high, low = (float(t) for t in z["thresholds"].double().mul(1e6).round().div(1e6))
    preset = find_preset("tscd", "voc-released")
    assert (background, high, low) == (
        preset.test.cam_threshold,
        preset.method.high,
        preset.method.low,
    )
    cam, tags = z["cam"], z["cls_label"]
    valid = box_to_valid(z["img_box"], tuple(cam.shape[-2:]))
    plain = cam_to_label(cam, tags, background)
    boxed = cam_to_label(cam, tags, background, valid=valid)
    band = cam_to_label(cam, tags, background, band=(low, high), valid=valid)
    assert torch.equal(plain, z["label_nobox"].long())
    assert torch.equal(boxed, z["label_box"].long())
    assert torch.equal(band, z["label_box_ignore_mid"].long())
    outside = plain.masked_fill(~valid, 255)
    assert torch.equal(outside, z["ignore_img_box_out"].long())
