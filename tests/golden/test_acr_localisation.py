"""Gradient maps of all variants and start layers, and the authors' whole inference."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from acr_models import build_acr

from wsss_lab.methods.acr.config import ACRQuirks
from wsss_lab.methods.acr.localisation import (
    gradient_maps,
    layer_map,
    record_for_localisation,
    spread,
)


def requests(arrays):
    """(key, with affinity, variant, start layer, class) of every recorded map."""
    for key in arrays:
        match = re.fullmatch(r"getam_(aff_)?([a-z_]+)_start(\d+)_c(\d+)", key)
        if match:
            yield key, bool(match[1]), match[2], int(match[3]), int(match[4])


@pytest.mark.parametrize("kind", ["vit", "hybrid"])
@pytest.mark.parametrize("batched", [True, False])
def test_acr_gradient_maps(golden, kind, batched):
    arrays = golden("acr")(f"getam_{kind}.npz")
    wanted = list(requests(arrays))
    assert {variant for _, _, variant, _, _ in wanted} == {
        "grad",
        "grad_s",
        "cam_grad",
        "cam_grad_s",
    }
    model = build_acr(golden, kind).eval()
    image = torch.from_numpy(arrays["img"])
    tags = torch.zeros(1, model.head.linear.out_features)
    tags[0, [c for *_, c in wanted]] = 1
    for variant, start in sorted({(v, s) for _, _, v, s, _ in wanted}):
        with record_for_localisation(model, start) as trace:
            logits = model.head.linear(model.backbone(image).cls)
        maps = gradient_maps(logits, trace.attention, tags, variant, batched=batched)
        both = {False: maps, True: spread(maps, trace.affinity)}
        np.testing.assert_allclose(
            trace.affinity[:, 1:, 1:], arrays["patch_aff"], atol=1e-5, rtol=1e-5
        )
        for key, affinity, v, s, c in wanted:
            if (v, s) == (variant, start):
                value, got = arrays[key], both[affinity][:, c]
                top = float(np.abs(value).max())
                np.testing.assert_allclose(got, value, rtol=1e-4, atol=1e-4 * top, err_msg=key)


@pytest.mark.parametrize("kind", ["vit", "hybrid"])
def test_acr_layer_map_of_recorded_gradients(golden, kind):
    """The combination alone, on recorded attention and gradients."""
    arrays = golden("acr")(f"getam_{kind}.npz")
    attention = torch.from_numpy(arrays["attn_heads"])
    for key, affinity, variant, start, c in requests(arrays):
        if affinity:
            continue
        gradient = torch.from_numpy(arrays[f"grad_heads_c{c}"])
        layers = layer_map(gradient, attention, variant)[start:, 0, 1:]
        got = layers.sum(0, keepdim=True)
        np.testing.assert_allclose(got, arrays[key], rtol=1e-5, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("name", ["aff", "noaff"])
def test_acr_inference(golden, name):
    arrays = golden("acr")(f"infer_grad_{name}.npz")
    z = {key: torch.from_numpy(np.asarray(value)) for key, value in arrays.items()}
    model = build_acr(
        golden, "vit", start_layer=int(z["start_layer"]), propagate=False, variant="grad"
    )
    model.prepare = lambda images: images  # the recorded inputs are normalised already
    i = 0
    while f"cam_{i}" in z:
        image, tags, classes = z[f"net_input_{i}"], z[f"label_{i}"][None], z[f"classes_{i}"]
        assert torch.equal(image.flip(-1), z[f"net_input_flip_{i}"])
        tokens, _ = model.token_maps(image, tags, mirror=True)
        for state, key in enumerate((f"token_cam_{i}", f"token_cam_flip_{i}")):
            got, top = tokens[state, classes].flatten(1), z[key].max()
            torch.testing.assert_close(got, z[key], rtol=1e-4, atol=1e-4 * float(top))
        absent = tags[0] == 0
        model.config = with_affinity(model.config, name == "aff")
        cam = model.localise(image, tags, tuple(z[f"cam_{i}"].shape[1:]))[0]
        torch.testing.assert_close(cam[classes], z[f"cam_{i}"], atol=1e-4, rtol=1e-4)
        assert (cam[absent] == 0).all()
        model.config = with_affinity(model.config, False)
        i += 1
    assert i


@pytest.mark.parametrize("name", ["aff", "noaff"])
def test_acr_inference_from_the_picture(golden, name):
    """From 8-bit pixels, squashed to the square, to the final maps at the picture's size."""
    arrays = golden("acr")(f"infer_grad_{name}.npz")
    model = build_acr(
        golden,
        "vit",
        start_layer=int(arrays["start_layer"]),
        propagate=name == "aff",
        quirks=ACRQuirks(squash=int(arrays["crop_size"])),
    )
    i = 0
    while f"cam_{i}" in arrays:
        image = torch.from_numpy(arrays[f"rgb_{i}"]).permute(2, 0, 1)[None] / 255
        tags = torch.from_numpy(arrays[f"label_{i}"])[None]
        cam = model.localise(image, tags)[0, arrays[f"classes_{i}"]]
        np.testing.assert_allclose(cam, arrays[f"cam_{i}"], atol=1e-4, rtol=1e-4)
        i += 1
    assert i


def with_affinity(config, on):
    return dataclasses.replace(config, propagate=on)
