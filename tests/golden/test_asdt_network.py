"""ASDT: Wide ResNet-38 with its three heads against recorded outputs."""

import numpy as np
import torch
import torch.nn.functional as F

from wsss_lab.methods.asdt.keymap import KEYMAP
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import DilatedHead, TagHead
from wsss_lab.models.keymaps import split_checkpoint


def recorded_weights(arrays):
    """The weights by the written rule: one legacy generator per sorted name."""
    state = {}
    for k, (name, shape) in enumerate(zip(arrays["names"], arrays["shapes"], strict=True)):
        name = str(name)
        size = tuple(int(n) for n in str(shape).strip("()").split(",") if n.strip())
        r = np.random.RandomState(k).randn(*size)
        layer_is_norm = "bn" in name.split(".")[-2]
        if name.endswith("running_var"):
            r = 1 + 0.2 * np.abs(r)
        elif len(size) == 4:
            r = r / np.sqrt(np.prod(size[1:]))
        elif layer_is_norm and name.endswith("weight"):
            r = 1 + 0.05 * r
        else:
            r = 0.1 * r
        state[name] = torch.from_numpy(r.astype(np.float32))
    return state


@torch.no_grad()
def test_asdt_network(golden):
    arrays = golden("asdt")("network.npz")
    parts = split_checkpoint(recorded_weights(arrays), KEYMAP)
    with torch.device("meta"):
        backbone = build_backbone("wrn38")
        classes, width = parts["tag_head"]["linear.weight"].shape
        tag_head = TagHead(width, classes, pool="gap")
        heads = {
            name: DilatedHead(
                width, parts[name]["conv2.weight"].shape[0], parts[name]["conv1.weight"].shape[0]
            )
            for name in ("seg_head", "student_head")
        }
    load = {"backbone": backbone, "tag_head": tag_head} | heads
    for name, module in load.items():
        result = module.to_empty(device="cpu").load_state_dict(parts[name], strict=False)
        assert not result.unexpected_keys
        assert all(key.endswith("num_batches_tracked") for key in result.missing_keys)
        module.eval()
    image = torch.from_numpy(arrays["x"])
    features = backbone(image)
    cam = tag_head.cam(features.last).relu()
    got = {
        "conv4_every8": features.pyramid[0][:, ::8],
        "conv5_every16": features.pyramid[1][:, ::16],
        "conv6_every64": features.pyramid[2][:, ::64],
        "cls_logits": tag_head(features.last),
        "cam_single": cam,
        "seg_teacher": heads["seg_head"](features.last),
        "seg_student": heads["student_head"](features.last),
    }
    for name, value in got.items():
        np.testing.assert_allclose(value.numpy(), arrays[name], atol=1e-4, rtol=1e-4, err_msg=name)
    total = cam
    for scale in (0.5, 1.5, 2.0):
        size = [int(side * scale) for side in image.shape[2:]]
        small = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
        extra = tag_head.cam(backbone(small).last).relu()
        total = total + F.interpolate(
            extra, size=cam.shape[2:], mode="bilinear", align_corners=False
        )
    np.testing.assert_allclose((total / 4).numpy(), arrays["cam_multiscale"], atol=1e-4, rtol=1e-4)
