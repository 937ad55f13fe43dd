"""ACR: tokens, logits, attention and their gradients against recorded outputs."""

import numpy as np
import pytest
import torch
from acr_models import bare_backbone

from wsss_lab.models.attention import record_attention
from wsss_lab.models.heads import TagHead
from wsss_lab.models.vit import resize_pos_embed


def build(golden, kind):
    """Backbone and head from the recorded weights; only the head count comes from elsewhere."""
    _, parts, backbone = bare_backbone(golden, kind)
    backbone.final_norm = False
    backbone.load_state_dict(parts["backbone"])
    matrix = parts["tag_head"]["linear.weight"]
    head = TagHead(matrix.shape[1], matrix.shape[0], bias=True)
    head.load_state_dict(parts["tag_head"])
    return backbone, head


def run(backbone, head, image):
    with record_attention(backbone) as record:
        features = backbone(image)
    return head.linear(features.cls), head(features.last), record


@pytest.mark.parametrize("kind", ["vit", "hybrid"])
def test_acr_forward_and_gradients(golden, kind):
    arrays = golden("acr")(f"forward_{kind}.npz")
    backbone, head = build(golden, kind)
    image = torch.from_numpy(arrays["img"])
    views = [run(backbone, head, x) for x in (image, image.flip(-1))]
    for i, (cls_logits, patch_logits, record) in enumerate(views, 1):
        got = {
            f"logits_cls{i}": cls_logits,
            f"logits_patch{i}": patch_logits,
            f"attn{i}": record.stack().mean(dim=2),
        }
        for key, value in got.items():
            np.testing.assert_allclose(
                value.detach().numpy(), arrays[key], atol=2e-5, rtol=1e-4, err_msg=key
            )
    side = round((arrays["attn1"].shape[-1] - 1) ** 0.5)
    first, second = (record.stack().mean(dim=2) for _, _, record in views)
    mirrored = torch.arange(side * side).view(side, side).flip(1).flatten()
    second = second[..., 1:][..., mirrored]
    second = torch.cat([second[..., :1, :], second[..., 1:, :][..., mirrored, :]], dim=-2)
    align = (first[..., 0, 1:] - second[..., 0, :]).abs().mean()
    align = align + (first[..., 1:, 1:] - second[..., 1:, :]).abs().mean()
    label = torch.from_numpy(arrays["label"])
    tags = sum(
        torch.nn.functional.multilabel_soft_margin_loss(logits, label) for logits, _, _ in views
    )
    loss = tags + float(arrays["alpha"]) * align
    np.testing.assert_allclose(loss.item(), arrays["loss"], rtol=1e-4)
    loss.backward()
    compare_gradients(backbone, head, arrays)


def compare_gradients(backbone, head, arrays):
    mine = {f"pretrained.model.{k.removeprefix('net.')}": p for k, p in backbone.named_parameters()}
    mine |= {f"cls_head.{k.removeprefix('linear.')}": p for k, p in head.named_parameters()}
    names = [str(name) for name in arrays["grad_norm_names"]]
    assert set(names) == {name for name, p in mine.items() if p.grad is not None}
    norms = np.array([mine[name].grad.norm().item() for name in names])
    scale = arrays["grad_norms"].max()
    np.testing.assert_allclose(norms, arrays["grad_norms"], rtol=2e-3, atol=1e-5 * scale)
    for key, value in arrays.items():
        if key.startswith("grad__"):
            np.testing.assert_allclose(
                mine[key.removeprefix("grad__")].grad.numpy(),
                value,
                rtol=1e-3,
                atol=1e-4 * np.abs(value).max(),
                err_msg=key,
            )


@torch.no_grad()
def test_acr_other_size(golden):
    arrays = golden("acr")("forward_vit_96.npz")
    backbone, head = build(golden, "vit")
    cls_logits, patch_logits, record = run(backbone.eval(), head, torch.from_numpy(arrays["img"]))
    np.testing.assert_allclose(cls_logits, arrays["logits_cls"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(patch_logits, arrays["logits_patch"], atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(record.stack().mean(dim=2), arrays["attn"], atol=1e-5)
    features = backbone(torch.from_numpy(arrays["img"]))
    cam = head.cam(features.last, with_bias=True).relu().flatten(2).transpose(1, 2)
    np.testing.assert_allclose(cam, arrays["patch_cam"], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_acr_position_embedding(golden):
    arrays = golden("acr")("forward_vit_96.npz")
    old = torch.from_numpy(golden("acr")("weights_vit.npz")["pretrained.model.pos_embed"])
    side = round((old.shape[1] - 1) ** 0.5)
    grids = {"pos_embed_resized": None, "pos_embed_resized_3x5": (3, 5)}
    for key, grid in grids.items():
        expected = arrays[key]
        grid = grid or (round((expected.shape[1] - 1) ** 0.5),) * 2
        new = resize_pos_embed(old, grid, (side, side), mode="bilinear")
        np.testing.assert_allclose(new.numpy(), expected, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("kind", ["vit", "hybrid"])
def test_acr_attention_gradients(golden, kind):
    arrays = golden("acr")(f"getam_{kind}.npz")
    backbone, head = build(golden, kind)
    cls_logits, _, record = run(backbone.eval(), head, torch.from_numpy(arrays["img"]))
    np.testing.assert_allclose(record.stack()[0].detach().numpy(), arrays["attn_heads"], atol=1e-5)
    classes = [int(k.removeprefix("grad_heads_c")) for k in arrays if k.startswith("grad_heads_c")]
    assert classes
    for c in classes:
        gradients = torch.autograd.grad(cls_logits[0, c], record.maps, retain_graph=True)
        expected = arrays[f"grad_heads_c{c}"]
        np.testing.assert_allclose(
            torch.cat(gradients).numpy(), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
        )
