"""Linear layers by oneDNN: the numbers of torch.nn.Linear, under every way of asking for them."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.onednn import SMALL, OneDNNLinear, multiply_by_onednn, onednn_linear


def operands(d=48, e=80, bias=True):
    torch.manual_seed(0)
    x = torch.randn(2, 30, d, requires_grad=True)
    weight = torch.randn(e, d, requires_grad=True)
    return [x, weight, torch.randn(e, requires_grad=True) if bias else None]


@pytest.mark.parametrize(("d", "e"), [(48, 80), (80, 48), (64, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_result_and_gradients_are_those_of_linear(d, e, bias):
    operand = operands(d, e, bias)
    wanted = [t for t in operand if t is not None]
    outputs, gradients = [], []
    for product in (onednn_linear, F.linear):
        outputs.append(product(*operand))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), wanted))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)
    assert gradients[0][1].shape == (e, d)


def test_gradients_of_what_is_asked_for_only():
    x, weight, bias = operands()
    y = onednn_linear(x.detach(), weight, bias.detach())
    (grad,) = torch.autograd.grad(y.sum(), weight)
    torch.testing.assert_close(grad, x.detach().sum((0, 1)).expand_as(weight), rtol=1e-4, atol=1e-4)


def test_second_derivative():
    found = []
    for product in (onednn_linear, F.linear):
        x, weight, bias = operands()
        (first,) = torch.autograd.grad(product(x, weight, bias).pow(3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), (x, weight)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours / theirs.abs().max(), theirs / theirs.abs().max())


def test_many_gradients_at_once():
    operand = operands()
    seeds = torch.randn(4, 2, 30, 80)
    found = [
        torch.autograd.grad(product(*operand), operand, seeds, is_grads_batched=True)
        for product in (onednn_linear, F.linear)
    ]
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, None), (0, 0, 0), (1, None, 0)])
def test_vmap(axes):
    torch.manual_seed(0)
    sizes = ((30, 48), (80, 48), (80,))
    operand = [
        torch.randn(size if a is None else (*size[:a], 5, *size[a:]))
        for size, a in zip(sizes, axes, strict=True)
    ]
    found = [torch.func.vmap(product, axes)(*operand) for product in (onednn_linear, F.linear)]
    torch.testing.assert_close(*found)


def test_compiler_knows_the_shape():
    x, weight, bias = (t.detach() for t in operands())
    compiled = torch.compile(lambda x: onednn_linear(x, weight, bias) * 2, backend="aot_eager")
    torch.testing.assert_close(compiled(x), 2 * F.linear(x, weight, bias))


@pytest.mark.parametrize(
    ("rows", "dtype", "autocast", "taken"),
    [
        (SMALL // 64**2, torch.float32, False, True),
        (SMALL // 64**2 - 1, torch.float32, False, False),
        (SMALL // 64**2, torch.float64, False, False),
        (SMALL // 64**2, torch.bfloat16, False, False),
        (SMALL // 64**2, torch.float32, True, False),
    ],
)
def test_what_goes_to_onednn(monkeypatch, rows, dtype, autocast, taken):
    calls = []
    monkeypatch.setattr(
        "wsss_lab.models.onednn.onednn_linear", lambda *args: calls.append(1) or F.linear(*args)
    )
    layer = OneDNNLinear(64, 64, dtype=dtype)
    x = torch.randn(1, rows, 64, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    assert bool(calls) == taken
    assert y.dtype == (torch.bfloat16 if autocast else dtype)
    torch.testing.assert_close(
        y.float(),
        F.linear(x.float(), layer.weight.float(), layer.bias.float()),
        rtol=2e-2,
        atol=2e-2,
    )


def test_the_switches_of_pytorch_are_heard(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "wsss_lab.models.onednn.onednn_linear", lambda *args: calls.append(1) or F.linear(*args)
    )
    layer, x = OneDNNLinear(64, 64), torch.randn(1, SMALL // 64**2, 64)
    with monkeypatch.context() as off:
        off.setattr(torch.backends.mkldnn, "enabled", False)
        layer(x)
    assert torch.backends.mkldnn.enabled
    layer.weight = nn.Parameter(torch.randn(64, 128)[:, ::2])
    layer(x)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    layer.weight = nn.Parameter(torch.randn(64, 64))
    layer(x)
    assert not calls


def test_networks_keep_everything_but_the_class():
    network = nn.Sequential(
        nn.Linear(4, 4), nn.ReLU(), nn.modules.linear.NonDynamicallyQuantizableLinear(4, 4)
    )
    state = copy.deepcopy(network.state_dict())
    multiply_by_onednn(network)
    assert type(network[0]) is OneDNNLinear
    assert type(network[2]) is nn.modules.linear.NonDynamicallyQuantizableLinear
    torch.testing.assert_close(network.state_dict(), state)
    multiply_by_onednn(network, on=False)
    assert type(network[0]) is nn.Linear


@pytest.mark.parametrize("name", ["deit_s", "mit_b0"])
def test_backbones_give_the_same_numbers(name):
    torch.manual_seed(0)
    network = build_backbone(name).eval()
    assert any(isinstance(layer, OneDNNLinear) for layer in network.modules())
    image = torch.randn(1, 3, 128, 128)
    with record_attention(network, [-1]) as record:
        first = network(image).last
        multiply_by_onednn(network, on=False)
        second = network(image).last
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(*record.maps, rtol=1e-4, atol=1e-5)
