"""The loader's count of tags spares work on accelerators, and changes no result."""

import pytest
import torch
from tiny_recipes import CLASSES, batch, build

NAMES = ("tscd", "asdt", "cosa")  # those that list an image's classes in a step
STEP = 6  # after warm-up; of ASDT, a pulse


def step_of(name, given):
    method = build(name)
    torch.manual_seed(1)
    output = method.training_step(given, STEP)
    output.loss.backward()
    grads = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    return output.loss.detach(), grads


@pytest.mark.parametrize("name", NAMES)
def test_results_do_not_change(name):
    given = dict(batch())
    assert given["max_tags"] == int(given["tags"].sum(1).max())
    loss, grads = step_of(name, given)
    looser = step_of(name, given | {"max_tags": CLASSES})
    del given["max_tags"]
    without = step_of(name, given)
    assert torch.equal(loss, without[0])
    assert all(torch.equal(a, b) for a, b in zip(grads, without[1], strict=True))
    torch.testing.assert_close(loss, looser[0], rtol=1e-5, atol=1e-6)
    largest = max(float(g.abs().max()) for g in grads)
    for one, other in zip(grads, looser[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * largest)
