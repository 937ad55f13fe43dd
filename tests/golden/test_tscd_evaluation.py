"""TSCD's test and validation protocols on the tiny network, against recorded label maps."""

from dataclasses import replace

import numpy as np
import torch
from joined_logits import multi_scale_logits
from test_tscd_network import tiny_network

from wsss_lab.cam import cam_to_label
from wsss_lab.evaluate.inference import (
    multi_scale_predict,
    resize_bilinear,
)
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.metrics import ConfusionMatrix, mean_iou, tag_f1
from wsss_lab.runs.recipe import find_preset, find_views


def predictor(golden):
    network = tiny_network(golden("tscd")("tscd_tiny_forward.npz"))[1]

    def predict(images, tags=None):
        outputs = network(images)
        return SegOutput(outputs["seg"], outputs["cam"], outputs["cls"])

    return predict


@torch.no_grad()
def test_tscd_multi_scale_flip(golden):
    z = golden("tscd")("msc_flip_eval.npz")
    predict = predictor(golden)
    views = replace(find_views("tscd-test"), side=int(z["resize_long"]))
    image = torch.from_numpy(z["x"])[None]  # normalised already: the recorded network takes it so
    size = tuple(image.shape[-2:])
    resized = resize_bilinear(image, views.size_of(*size))
    single = predict(resized).logits
    np.testing.assert_allclose(single.numpy(), z["segs"], atol=1e-5)
    np.testing.assert_array_equal(resize_bilinear(single, size).argmax(1)[0], z["pred"])

    joined = multi_scale_logits(
        lambda x: predict(x).logits, resized, views.logits, single.shape[-2:]
    )
    np.testing.assert_allclose(joined.numpy(), z["msc_segs"], atol=1e-5)
    output = multi_scale_predict(predict, image, views)
    np.testing.assert_array_equal(output.logits.argmax(1)[0], z["msc_pred"])


@torch.no_grad()
def test_tscd_validation(golden):
    """All but the affinity-refined maps (`ref_label`), which need the method's own propagation."""
    z = golden("tscd")("validate_tiny.npz")
    output = multi_scale_predict(
        predictor(golden), torch.from_numpy(z["x"])[None], find_views("tscd-val")
    )
    tags = torch.from_numpy(z["cls_label"])
    background = find_preset("tscd", "voc-released").test.cam_threshold  # not in the file
    found = {
        "seg_pred": output.logits.argmax(1),
        "cam_label": cam_to_label(output.cam, tags, background),
    }
    truth = torch.from_numpy(z["gt"])[None].long()
    for kind, expected in zip(found, z["miou_f64"], strict=False):
        np.testing.assert_array_equal(found[kind][0], z[kind], err_msg=kind)
        matrix = ConfusionMatrix(output.logits.shape[1]).update(found[kind], truth)
        np.testing.assert_allclose(float(mean_iou(matrix.compute())[1]), expected, atol=1e-12)
    # the released F1 looks at the image itself, not at the average over views
    plain = predictor(golden)(torch.from_numpy(z["x"])[None])
    np.testing.assert_allclose(float(tag_f1(plain.tag_logits, tags)), z["cls_f1_f64"], atol=1e-9)
