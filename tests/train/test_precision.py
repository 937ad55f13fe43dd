"""Half precision changes every method's numbers a little, and takes no gradient away.

Autocast keeps the weights it has rounded. Rounded first in a pass without gradient, as a teacher's
or a CAM's, and used again in the pass that is trained, they would silently stop learning.
"""

import copy
import dataclasses

import pytest
import torch

from wsss_lab.runs.images import load_data
from wsss_lab.runs.recipe import find_recipe

NETWORKS = {"tscd": {"backbone": "toy_mit"}}
"""Settings of the method in the test by parameter: in toy_mit2, the preset's, one bias of a norm
has a gradient of 0.4 % of the largest, a sum that cancels and that rounding makes three times as
large; `test_the_whole_gradient_in_bf16` is about that network."""


def gradients(config, recipe):
    """(loss, gradient by parameter) of one step in float32 and in bf16, without dropout."""
    torch.manual_seed(0)
    method = recipe.build(config, 10, True).train()
    scene = load_data(dataclasses.replace(config.data, count=1), "train", wanted=1)[0]
    images = torch.as_tensor(scene["image"])[None].float() / 255
    images = images if images.shape[1] == 3 else images.permute(0, 3, 1, 2).contiguous()
    tags = torch.as_tensor(scene["tags"])[None].float()
    batch = {"images": images, "strong": images, "tags": tags, "names": ["a"]}
    found = []
    for half in (False, True):
        model = copy.deepcopy(method)
        for layer in model.modules():
            if hasattr(layer, "drop_prob"):
                layer.drop_prob = 0.0
            if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
                layer.p = 0.0
        torch.manual_seed(1)
        # without oneDNN: a processor with bf16 units rounds in other places than one without, which
        # makes small gradients of toy_mit three times as large (0.4 % of the largest and below)
        with torch.backends.mkldnn.flags(enabled=False):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = model.training_step(batch, 100_000).loss
            assert loss.dtype == torch.float32
            loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
    return found


@pytest.mark.parametrize("name", ["tscd", "asdt", "acr", "cosa"])
def test_gradients_in_bf16_are_those_of_float32(name):
    recipe = find_recipe(name)
    config = recipe.presets["toy"]
    if name in NETWORKS:
        method = dataclasses.replace(config.method, **NETWORKS[name])
        config = dataclasses.replace(config, method=method)
    (loss, exact), (half_loss, rounded) = gradients(config, recipe)
    torch.testing.assert_close(half_loss, loss, rtol=0.03, atol=0.0)
    largest = max(grad.norm() for grad in exact.values() if grad is not None)
    for key, grad in exact.items():
        assert (grad is None) == (rounded[key] is None), key
        if grad is None:
            continue
        assert rounded[key].any() or not grad.any(), key
        if grad.norm() > 1e-3 * largest:
            assert 0.5 < rounded[key].norm() / grad.norm() < 2, key
        else:  # sums that cancel: rounding can double them; 0.0003 measured
            assert (rounded[key] - grad).norm() < 0.001 * largest, key


def test_the_whole_gradient_in_bf16():
    recipe = find_recipe("tscd")
    assert recipe.presets["toy"].method.backbone == "toy_mit2"
    (loss, exact), (half_loss, rounded) = gradients(recipe.presets["toy"], recipe)
    torch.testing.assert_close(half_loss, loss, rtol=0.03, atol=0.0)
    assert {k for k, g in exact.items() if g is None} == {
        k for k, g in rounded.items() if g is None
    }
    one, two = (
        torch.cat([g.flatten() for g in grads.values() if g is not None])
        for grads in (exact, rounded)
    )
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.997  # 0.9994 measured
    largest = max(grad.norm() for grad in exact.values() if grad is not None)
    for key, grad in exact.items():
        if grad is not None:  # 0.04 measured
            assert (rounded[key] - grad).norm() < 0.1 * largest, key
