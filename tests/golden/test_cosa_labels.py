"""CAM -> label of the original code, exactly. Thresholds are in the recorded names."""

import re

import pytest
import torch

from wsss_lab.cam import box_to_valid, cam_to_label, cam_to_pseudo_label


@pytest.fixture
def recorded(golden):
    return {k: torch.from_numpy(v) for k, v in golden("cosa")("cam_labels.npz").items()}


def test_cosa_pseudo_label(recorded):
    cams, tags = recorded["cams"], recorded["cls_labels"]
    valid = box_to_valid(recorded["img_boxes"], tuple(cams.shape[-2:]))
    names = [name for name in recorded if re.fullmatch(r"cam2mask_h\d+_l\d+_ds\d+", name)]
    assert names
    for name in names:
        high, low, down = (int(number) for number in re.findall(r"[hls](\d+)", name))
        label = cam_to_pseudo_label(
            cams, tags, low / 100, high / 100, down_scale=max(down, 1), valid=valid
        )
        assert torch.equal(label, recorded[name].long()), name


def test_cosa_pseudo_label_with_negative_box(recorded):
    """The evaluation option's box [0, -1, 0, -1] drops the last row and column."""
    names = [name for name in recorded if name.startswith("cam2mask_evalbox_")]
    assert names
    for name in names:
        high, low = (int(number) / 100 for number in re.findall(r"_[hl](\d+)", name))
        cams = recorded["cams"][: len(recorded[name])]
        tags = recorded["cls_labels"][: len(recorded[name])]
        valid = box_to_valid(torch.tensor([[0, -1, 0, -1]] * len(cams)), tuple(cams.shape[-2:]))
        label = cam_to_pseudo_label(cams, tags, low, high, valid=valid)
        assert torch.equal(label, recorded[name].long()), name


def test_cosa_cam_to_label(recorded):
    cams, tags = recorded["cams"], recorded["cls_labels"]
    label = cam_to_label(cams, tags, 0.5)
    assert torch.equal(label, recorded["cam_to_label_b50"].long())
    everything = cam_to_label(cams, None, 0.5)
    assert torch.equal(everything, recorded["cam_to_label_b50_nolabel"].long())


def test_cosa_cam_to_label_ignore_mid(recorded):
    cams, tags = recorded["cams"], recorded["cls_labels"]
    valid = box_to_valid(recorded["img_boxes"], tuple(cams.shape[-2:]))
    label = cam_to_label(cams, tags, 0.5, band=(0.25, 0.7), valid=valid)
    assert torch.equal(label, recorded["cam_to_label_ignoremid"].long())
