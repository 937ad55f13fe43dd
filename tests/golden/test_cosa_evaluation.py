"""CoSA's evaluation end to end on the tiny network, against recorded maps, labels and scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from joined_logits import multi_scale_logits
from test_cosa_network import build

from wsss_lab.cam import Fusion
from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.evaluate.inference import multi_scale_predict
from wsss_lab.evaluate.scores import ORACLE
from wsss_lab.methods.common.base import Method, SegOutput
from wsss_lab.metrics import Protocol, average_precision
from wsss_lab.runs.recipe import find_crf, find_views


class Tiny(Method):
    """The recorded network; the recorded images are normalised already."""

    def __init__(self, weights, aux=False):
        super().__init__()
        self.backbone, heads = build(weights)
        self.heads = torch.nn.ModuleDict(heads)
        self.aux = aux

    def predict(self, images, tags=None):
        features = self.backbone(images)
        last = features.last
        head, seen = ("aux_head", features.pyramid[0]) if self.aux else ("tag_head", last)
        head = self.heads[head]
        return SegOutput(self.heads["seg_head"](last), head.cam(seen), head(seen))


def views(side, aux=False):
    chosen = replace(find_views("cosa-test"), side=side)
    # the released code overwrites its list of auxiliary maps at every scale
    return replace(chosen, cam=replace(chosen.cam, fuse_scale="last")) if aux else chosen


@torch.no_grad()
@pytest.mark.parametrize("aux", [False, True])
def test_cosa_five_scales(golden, aux):
    z = golden("cosa")("multi_scale_cam_eval.npz")
    method = Tiny(golden("cosa")("tiny_weights.npz"), aux)
    image = torch.from_numpy(z["x"])
    chosen = views(image.shape[-1], aux)
    output = multi_scale_predict(method.predict, image, chosen)
    end = "_aux" if aux else ""
    np.testing.assert_allclose(output.cam.numpy(), z[f"eval5_cam{end}"], atol=2e-5)
    np.testing.assert_allclose(output.logits.numpy(), z["eval5_seg"], atol=1e-4, rtol=1e-5)
    passes = 2 * len(chosen.scales)
    np.testing.assert_allclose(
        passes * output.tag_logits.numpy(), z[f"eval5_cls{end}"], atol=1e-3, rtol=1e-5
    )


@torch.no_grad()
def test_cosa_flip_maximum(golden):
    z = golden("cosa")("multi_scale_cam_eval.npz")
    method = Tiny(golden("cosa")("tiny_weights.npz"))
    rule = Fusion(scales=(1.0, 0.5, 1.5), fuse_flip="max", relu="none")
    joined = multi_scale_logits(lambda x: method.predict(x).logits, torch.from_numpy(z["x"]), rule)
    np.testing.assert_allclose(joined.numpy(), z["v2_seg_flipmax"], atol=1e-4, rtol=1e-5)


class Recorded:
    """The recorded images, normalised already, as a data set that `evaluate` can read."""

    def __init__(self, z):
        self.z, self.count = z, sum(key.startswith("img") for key in z)

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        # `evaluate` divides by 255, and the recorded network takes normalised images
        return {
            "image": 255 * torch.from_numpy(self.z[f"img{i}"][0]),
            "tags": torch.from_numpy(self.z[f"cls{i}"][0]),
            "name": str(i),
            "mask": torch.from_numpy(self.z[f"gt{i}"][0]).long(),
        }


@pytest.mark.parametrize("aux", [False, True])
def test_cosa_evaluation_of_a_data_set(golden, aux):
    """Segmentation with and without true tags and the maps, from one call."""
    z = golden("cosa")("evaluate.npz")
    method = Tiny(golden("cosa")("tiny_weights.npz"), aux)
    side = method.backbone.net.patch_embed.img_size[0]  # the recordings' crop
    found = evaluate(
        method,
        Recorded(z),
        views(side, aux),
        num_classes=len(z["f64_iou_cam"]),
        cam_threshold=0.5,
        tags_at_test=True,
        protocol=Protocol(absent_classes="nan"),
    )
    expected = {f"cam{ORACLE}": "cam_aux" if aux else "cam"}
    expected |= {"seg": "seg_ps", f"seg{ORACLE}": "seg_vd"}
    for kind, recorded in expected.items():
        report = found.reports[kind]
        np.testing.assert_allclose(report.iou, z[f"f64_iou_{recorded}"], atol=1e-9, err_msg=kind)
        assert report.protocol.tags_at_test == kind.endswith(ORACLE)


@torch.no_grad()
@pytest.mark.parametrize("aux", [False, True])
def test_cosa_tag_score(golden, aux):
    """The released score takes the sigmoid of the sum over ten passes: from about 17 on all tags
    are equally certain in float32, and the ties cost precision. `evaluate` takes logits."""
    z = golden("cosa")("evaluate.npz")
    method = Tiny(golden("cosa")("tiny_weights.npz"), aux)
    chosen = views(method.backbone.net.patch_embed.img_size[0], aux)
    dataset = Recorded(z)
    images = [torch.from_numpy(z[f"img{i}"]) for i in range(len(dataset))]
    logits = torch.cat(
        [multi_scale_predict(method.predict, image, chosen).tag_logits for image in images]
    )
    tags = torch.cat([torch.from_numpy(z[f"cls{i}"]) for i in range(len(dataset))])
    saturated = (2 * len(chosen.scales) * logits).sigmoid()
    score = average_precision(saturated.T, tags.T).nanmean()
    np.testing.assert_allclose(float(score), z["f64_ret"][3 if aux else 2], atol=1e-6)


def colours(backbone, image):
    """Grey levels of a recorded image, cut off as the released code does before its CRF."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (backbone.input_mean, backbone.input_std))
    return (255 * (image * std + mean)).clamp(0, 255).to(torch.uint8)


def test_cosa_labels_after_the_crf(golden):
    """With the library's own mean field on the lattice, which is not pydensecrf's to the bit."""
    z = golden("cosa")("evaluate.npz")
    crf = find_crf("cosa-eval")
    method = Tiny(golden("cosa")("tiny_weights.npz"))
    side = method.backbone.net.patch_embed.img_size[0]
    dataset = Recorded(z)
    for i in range(len(dataset)):
        image = torch.from_numpy(z[f"img{i}"])
        output = multi_scale_predict(method.predict, image, views(side))
        absent = torch.cat([torch.zeros(1, 1), 1 - torch.from_numpy(z[f"cls{i}"])], 1) > 0
        probs = output.logits.masked_fill(absent[:, :, None, None], -1e5).softmax(1)
        label = crf(colours(method.backbone, image), probs).argmax(1)[0].numpy()
        assert (label != z[f"pred_seg_crf{i}"].squeeze()).mean() < 0.01
