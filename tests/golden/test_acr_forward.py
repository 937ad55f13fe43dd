"""The whole method, both views in one batch or in two passes, against the recorded step."""

import numpy as np
import pytest
import torch
from acr_models import build_acr

from wsss_lab.methods.acr.config import ACRQuirks
from wsss_lab.methods.acr.views import Flip

PARTS = {
    "tags": "cls_loss_1",
    "tags_view": "cls_loss_2",
    "activation": "cls_align_loss",
    "affinity": "aff_align_loss",
}


@pytest.mark.parametrize("kind", ["vit", "hybrid"])
@pytest.mark.parametrize("two_passes", [False, True])
def test_acr_step(golden, kind, two_passes):
    arrays = golden("acr")(f"forward_{kind}.npz")
    quirks = ACRQuirks(two_passes=two_passes)
    model = build_acr(golden, kind, alpha=float(arrays["alpha"]), quirks=quirks).train()
    image, label = (torch.from_numpy(arrays[k]) for k in ("img", "label"))
    output = model.losses(image, label, Flip())
    for mine, theirs in PARTS.items():
        value = output.parts[mine].item()
        np.testing.assert_allclose(value, arrays[theirs], rtol=1e-4, err_msg=theirs)
    np.testing.assert_allclose(output.loss.item(), arrays["loss"], rtol=1e-5)
    got = output.panels["logits"].detach()
    np.testing.assert_allclose(got, arrays["logits_cls1"], atol=2e-5, rtol=1e-4)
    for name, key in (("attention", "attn1"), ("attention_view", "attn2")):
        np.testing.assert_allclose(output.panels[name], arrays[key][:, -1], atol=1e-6)
    output.loss.backward()
    check_gradients(model, arrays)


def check_gradients(model, arrays):
    found = {name: p.grad for name, p in model.named_parameters()}
    mine = {
        key.replace("backbone.net.", "pretrained.model.").replace("head.linear.", "cls_head."): grad
        for key, grad in found.items()
    }
    names = [str(name) for name in arrays["grad_norm_names"]]
    assert set(names) == {name for name, grad in mine.items() if grad is not None}
    norms = np.array([mine[name].norm().item() for name in names])
    largest = arrays["grad_norms"].max()
    np.testing.assert_allclose(norms, arrays["grad_norms"], rtol=2e-3, atol=1e-5 * largest)
    for key, value in arrays.items():
        if key.startswith("grad__"):
            grad, top = mine[key.removeprefix("grad__")].numpy(), np.abs(value).max()
            np.testing.assert_allclose(grad, value, rtol=1e-3, atol=1e-4 * top, err_msg=key)


def test_acr_patch_cam(golden):
    arrays = golden("acr")("forward_vit_96.npz")
    model = build_acr(golden, "vit").eval()
    model.prepare = lambda images: images  # the recorded image is normalised already
    image = torch.from_numpy(arrays["img"])
    cam = model.patch_cam(image).flatten(2).transpose(1, 2)
    np.testing.assert_allclose(cam, arrays["patch_cam"], atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(model(image), arrays["logits_cls"], atol=1e-5, rtol=1e-4)
