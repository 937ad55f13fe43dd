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


@pytest.mark.parametrize("name", ["tscd", "asdt", "acr", "cosa"])
def test_gradients_in_bf16_are_those_of_float32(name):
    recipe = find_recipe(name)
    config = recipe.presets["toy"]
    torch.manual_seed(0)
    method = recipe.build(config, 10, True).train()
    scenes = load_data(dataclasses.replace(config.data, count=2), "train", wanted=2)
    images = torch.stack([torch.as_tensor(scenes[i]["image"]) for i in range(2)]).float() / 255
    images = images if images.shape[1] == 3 else images.permute(0, 3, 1, 2).contiguous()
    tags = torch.stack([torch.as_tensor(scenes[i]["tags"]) for i in range(2)]).float()
    batch = {"images": images, "strong": images, "tags": tags, "names": list("ab")}
    found = []
    for half in (False, True):
        model = copy.deepcopy(method)
        for layer in model.modules():
            if hasattr(layer, "drop_prob"):
                layer.drop_prob = 0.0
            if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
                layer.p = 0.0
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.training_step(batch, 100_000).loss
        assert loss.dtype == torch.float32
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in model.named_parameters()}))
    (loss, exact), (half_loss, rounded) = found
    torch.testing.assert_close(half_loss, loss, rtol=0.03, atol=0.0)
    largest = max(grad.norm() for grad in exact.values() if grad is not None)
    for key, grad in exact.items():
        assert (grad is None) == (rounded[key] is None), key
        share = 0.0 if grad is None else float(grad.norm() / largest)
        if share > 1e-4:
            # a small gradient of a bias is a sum that cancels, of which rounding is a larger part
            most = 2 if share > 0.01 else 5
            assert 1 / most < rounded[key].norm() / grad.norm() < most, key
