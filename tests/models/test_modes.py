"""Modes that last for a block, and leave no trace."""

import pytest
import torch
from torch import nn

from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.modes import (
    DROPOUT,
    class_token_only,
    evaluation_mode,
    in_parts,
    keep_running_statistics,
    stateless_pass,
    without_parameter_gradients,
)


def network():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.BatchNorm2d(4))
    net.train()
    net[3].eval()
    return net, torch.rand(2, 3, 8, 8)


def modes(net):
    return [layer.training for layer in net.modules()]


def test_evaluation_mode_gives_every_layer_its_own_mode_back():
    net, x = network()
    before = modes(net)
    with evaluation_mode(net):
        assert not any(modes(net))
        assert torch.equal(net(x), net(x))
    assert modes(net) == before
    with pytest.raises(RuntimeError, match="channels"), evaluation_mode(net):
        net(x[:, :2])
    assert modes(net) == before
    with evaluation_mode(net, on=False):
        assert modes(net) == before


def test_evaluation_mode_of_some_kinds():
    net, _ = network()
    with evaluation_mode(net, DROPOUT):
        assert [layer.training for layer in net] == [True, True, False, False]
    assert [layer.training for layer in net] == [True, True, True, False]


def test_keep_running_statistics():
    norm, x = nn.BatchNorm2d(4), torch.randn(2, 4, 8, 8)
    with keep_running_statistics(norm):
        y = norm(x)
    by_batch = nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(y, by_batch)
    with pytest.raises(ValueError, match="expected 4D"), keep_running_statistics(norm):
        norm(torch.randn(2))
    assert norm.momentum == 0.1
    assert norm.running_mean.abs().max() == 0
    with keep_running_statistics(norm, on=False):
        norm(x)
    assert norm.running_mean.abs().max() > 0


def test_stateless_pass():
    net, x = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with stateless_pass(net):
        y = net(x)
        torch.testing.assert_close(y, net(x))  # no dropout
    by_batch = nn.functional.batch_norm(net[0](x), None, None, *net[1].parameters(), training=True)
    torch.testing.assert_close(y, net[3](by_batch))  # statistics of the batch, then frozen ones
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [m.training for m in net] == [True, True, True, False]
    with pytest.raises(RuntimeError), stateless_pass(net):
        raise RuntimeError
    assert [m.training for m in net] == [True, True, True, False]
    net(x)
    assert net[1].num_batches_tracked == 1
    assert net[3].track_running_stats


def test_without_parameter_gradients():
    net, x = network()
    net[1].weight.requires_grad_(False)
    before = [p.requires_grad for p in net.parameters()]
    with without_parameter_gradients(net):
        assert not net(x).requires_grad
        assert net(x.clone().requires_grad_()).requires_grad  # of activations they remain
    assert [p.requires_grad for p in net.parameters()] == before
    with pytest.raises(RuntimeError), without_parameter_gradients(net):
        raise RuntimeError
    assert [p.requires_grad for p in net.parameters()] == before


def test_class_token_only_keeps_the_class_token():
    torch.manual_seed(0)
    backbone, x = build_backbone("toy_vit").eval(), torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        whole = backbone(x)
        with class_token_only(backbone):
            short = backbone(x)
        again = backbone(x)
    torch.testing.assert_close(short.cls, whole.cls)
    assert not torch.allclose(short.tokens, whole.tokens)
    assert torch.equal(again.tokens, whole.tokens)


def test_parts_are_the_batch_and_no_larger_than_the_bound():
    for side, count in ((128, 32), (224, 10), (512, 2), (1024, 1)):
        images = torch.empty(1).expand(33, 3, side, side)
        parts = in_parts(images)
        assert max(len(part) for part in parts) == count
        assert sum(len(part) for part in parts) == 33
    small = torch.rand(5, 3, 4, 4)
    assert torch.equal(torch.cat(list(in_parts(small))), small)
    assert len(in_parts(torch.empty(99, 3, 512, 512, device="meta"))) == 1
