"""Folded batch normalisations: the same maps, and nothing is left of it afterwards."""

import pytest
import torch
from torch import nn

from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.folded import PAIRS, folded


def with_statistics(name):
    """A network whose normalisations do something."""
    network = build_backbone(name).eval()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 2)
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.normal_(0, 0.2)
    return network


def changed(network):
    return [name for name, layer in network.named_modules() if "forward" in vars(layer)]


@pytest.mark.parametrize("name", ["lite0", "lite0_vit"])
@pytest.mark.parametrize("size", [(64, 96), (75, 61)])
def test_maps_are_the_same(name, size):
    network, images = with_statistics(name), torch.rand(2, 3, *size)
    with torch.no_grad():
        usual = network(images).pyramid
        with folded(network):
            norms = sum(len(pairs) for pairs in map(PAIRS.get, kinds(network)) if pairs)
            assert len(changed(network)) == 2 * norms > 50
            found = network(images).pyramid
    for one, other in zip(found, usual, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) < 1e-4 * float(other.abs().max())
    assert not changed(network)


def kinds(network):
    return [type(layer).__name__ for layer in network.modules()]


def test_weights_and_names_stay():
    network = with_statistics("lite0")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with folded(network):
        inside = network.state_dict()
    for state in (inside, network.state_dict()):
        assert list(state) == list(before)
        assert all(torch.equal(state[name], before[name]) for name in before)


def test_gradients_flow_as_usual():
    network, images = with_statistics("lite0"), torch.rand(1, 3, 64, 64, requires_grad=True)
    (usual,) = torch.autograd.grad(network(images).last.sum(), images)
    with folded(network):
        (found,) = torch.autograd.grad(network(images).last.sum(), images)
    assert torch.equal(found, usual)


def test_statistics_of_a_batch_are_never_folded():
    network = build_backbone("lite0", freeze_norm=False).train()
    with folded(network):
        assert not changed(network)
    with folded(build_backbone("toy_cnn").eval()) as nothing:
        assert nothing is None


def test_an_error_inside_and_a_block_in_a_block():
    network = with_statistics("lite0")
    with pytest.raises(RuntimeError, match="inside"), folded(network):
        raise RuntimeError("inside")
    assert not changed(network)
    with folded(network):
        count = len(changed(network))
        with folded(network):
            assert len(changed(network)) == count
        assert len(changed(network)) == count
