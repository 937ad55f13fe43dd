"""TSCD: its equations by hand, and its network."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_tscd import K, tiny_backbone

from wsss_lab.methods.tscd.config import PRESETS
from wsss_lab.methods.tscd.losses import correspondence, lobes, recentre, scd_loss
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.methods.tscd.network import (
    AffinityHead,
    TSCDNetwork,
)
from wsss_lab.methods.tscd.released import er_loss, truncate_colours
from wsss_lab.methods.tscd.views import box_range, draw_points, sample_points, spread
from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone

KEYS = Path(__file__).parents[2] / "models" / "state_keys" / "tscd.json"

# --- equations by hand ---------------------------------------------------------------------------


def test_correspondence_and_loss_by_hand():
    torch.manual_seed(0)
    f1, f2, s1, s2 = (torch.randn(2, 3, n) for n in (4, 5, 4, 5))
    f1[0, :, 2] = 0
    total, pairs, target = 0.0, 0, torch.zeros(2, 4, 5)

    def cosine(a, b):
        return float(a @ b / max(float(a.norm()), 1e-10) / max(float(b.norm()), 1e-10))

    for n in range(2):
        for p in range(4):
            for q in range(5):
                target[n, p, q] = cosine(f1[n, :, p], f2[n, :, q])
    torch.testing.assert_close(correspondence(f1, f2), target)
    mean = target.mean()
    for n in range(2):
        for p in range(4):
            for q in range(5):
                centred = target[n, p, q] - target[n, p].mean() + mean
                total -= max(cosine(s1[n, :, p], s2[n, :, q]), 0.0) * float(centred)
                pairs += 1
    loss = scd_loss(correspondence(f1, f2), correspondence(s1, s2))
    assert loss.item() == pytest.approx(total / pairs, abs=1e-6)


def test_recentring_without_the_level_and_with_a_shift():
    torch.manual_seed(0)
    target, student = torch.rand(2, 5, 7), torch.randn(2, 5, 7)
    plain = recentre(target, level=False)
    torch.testing.assert_close(plain.mean(2), torch.zeros(2, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(recentre(target), plain + target.mean())
    torch.testing.assert_close(recentre(target, shift=0.2), plain + target.mean() - 0.2)
    wanted = -(student.clamp(min=0) * (plain - 0.1)).mean()
    torch.testing.assert_close(scd_loss(target, student, False, 0.1), wanted)


def test_recentring_and_lobes():
    target = torch.rand(2, 5, 7)
    centred = recentre(target)
    torch.testing.assert_close(centred.mean(2), target.mean().expand(2, 5))
    torch.testing.assert_close(recentre(centred), centred)  # a second one changes nothing
    attract, repel = lobes(centred)
    torch.testing.assert_close(attract - repel, centred)
    assert (attract * repel == 0).all()
    assert lobes(target)[1].max() == 0
    assert repel.max() > 0
    student = torch.randn(2, 5, 7)
    both = (student.clamp(min=0) * repel).mean() - (student.clamp(min=0) * attract).mean()
    torch.testing.assert_close(scd_loss(target, student), both)


def test_scd_gradient_reaches_the_student_only():
    target, student = torch.rand(1, 4, 4, requires_grad=True), torch.randn(1, 4, 4)
    student.requires_grad_()
    scd_loss(target, student).backward()
    assert target.grad is None
    assert (student.grad[student <= 0] == 0).all()
    torch.testing.assert_close(
        student.grad, -(student > 0).float() * recentre(target.detach()) / student.numel()
    )


def test_sampling_swaps_the_axes_of_the_points_and_hits_pixel_centres():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.zeros(1, 2, 2, 2)
    points[0, 0, 1] = torch.tensor([1.0, -1.0])  # x right, y top: value 3
    points[0, 1, 0] = torch.tensor([-1.0, 1.0])  # x left, y bottom: value 8
    found = sample_points(maps, points)[0, 0]
    assert found.tolist() == [5.5, 8.0, 3.0, 5.5]


def test_points_are_uniform_and_fill_the_box():
    points = draw_points(3, 50)
    assert points.shape == (3, 50, 50, 2)
    assert points.abs().max() <= 1
    assert points.mean().abs() < 0.05
    low, high = box_range(torch.tensor([[2, 5, 0, 99], [0, 1, 3, 4], [-3, 9, 1, 2]]), (9, 5))
    torch.testing.assert_close(low[0], torch.tensor([-1.0, -0.5]))
    torch.testing.assert_close(high[0], torch.tensor([1.0, 0.0]))
    squeezed = spread(points, low, high)
    torch.testing.assert_close(squeezed[1], low[1].expand(50, 50, 2))
    torch.testing.assert_close(squeezed[2, ..., 1], points[2, ..., 1], atol=1e-6, rtol=0)


def test_er_loss_by_hand():
    cam, view = torch.rand(1, 3, 9, 9, requires_grad=True), torch.rand(1, 3, 5, 5)
    wanted = (cam[:, 1:, ::2, ::2] - view[:, 1:]).abs().mean()
    found = er_loss(cam, view)
    torch.testing.assert_close(found, wanted.detach())
    assert not found.requires_grad


def test_truncation_loses_a_level_here_and_there():
    grey = torch.arange(256.0).expand(1, 3, 1, 256) / 255
    lost = (255 * (grey - truncate_colours(grey))).round()
    assert set(lost.unique().tolist()) == {0.0, 1.0}
    assert 0 < lost.mean() < 0.05


# --- network -------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_affinity_is_the_convolution_of_attention_maps(symmetric):
    torch.manual_seed(0)
    net = TSCDNetwork(tiny_backbone(), K, 16, symmetric).train()
    images = torch.randn(2, 3, 50, 70)
    with record_attention(net.backbone, layers=(-2, -1), what="logits") as record:
        net.backbone(images)
    maps = torch.cat(record.maps, dim=1)
    if symmetric:
        maps = maps + maps.mT
    weight, bias = net.affinity_head.weight, net.affinity_head.bias
    affinity = F.conv2d(maps, weight, bias).sigmoid()[:, 0]
    found = net(images).affinity
    torch.testing.assert_close(found, affinity, atol=1e-5, rtol=1e-5)
    one, two = (torch.autograd.grad(a.sum(), (weight, bias)) for a in (affinity, found))
    torch.testing.assert_close(two, one, atol=1e-3, rtol=1e-3)


def test_affinity_of_a_vision_transformer_is_between_cells_alone():
    torch.manual_seed(0)
    net = TSCDNetwork(build_backbone("lite0_vit", stem_levels=True), K, 16).eval()
    images = torch.randn(2, 3, 48, 80)
    with record_attention(net.backbone, layers=(-2, -1), what="logits") as record:
        net.backbone(images)
    maps = torch.cat(record.maps, dim=1)[..., 1:, 1:]
    affinity = F.conv2d(maps, net.affinity_head.weight, net.affinity_head.bias).sigmoid()[:, 0]
    found = net(images)
    assert found.affinity.shape == (2, 15, 15)
    assert [level.shape[1] for level in found.pyramid] == [24, 40, 112, 192]
    torch.testing.assert_close(found.affinity, affinity, atol=1e-5, rtol=1e-5)


def test_affinity_refuses_layers_that_normalise_queries():
    net = TSCDNetwork(build_backbone("lite0_vit", stem_levels=True), K, 16).eval()
    net.backbone.net.blocks[-1].attn.q_norm = torch.nn.LayerNorm(64)
    with pytest.raises(ValueError, match="q_norm"):
        net(torch.randn(1, 3, 48, 48))


def test_affinity_by_hand():
    plain, both = (AffinityHead(2, symmetric) for symmetric in (False, True))
    both.load_state_dict(plain.state_dict())
    q, k = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    weight, bias = plain.weight.flatten(), plain.bias
    wanted = sum(
        weight[i] * q[0, :, 2 * i : 2 * i + 2] @ k[0, :, 2 * i : 2 * i + 2].T for i in (0, 1)
    )
    torch.testing.assert_close(plain([(q, k, 2)])[0], wanted + bias)
    torch.testing.assert_close(both([(q, k, 2)])[0], wanted + wanted.T + bias)


def test_affinity_head_starts_as_a_convolution():
    torch.manual_seed(0)
    head = AffinityHead(16)
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(16, 1, 1)
    torch.nn.init.kaiming_normal_(conv.weight, a=5**0.5, mode="fan_out")
    assert list(head.state_dict()) == list(conv.state_dict())
    for name, value in conv.state_dict().items():
        assert torch.equal(head.state_dict()[name], value), name


def released_state(net, prefix=""):
    """A state with the released names and shapes."""
    shapes = json.loads(KEYS.read_text())
    g = torch.Generator().manual_seed(0)
    return {f"{prefix}{key}": torch.rand(shape, generator=g) for key, shape in shapes.items()}


def test_released_checkpoints_load_strictly():
    method = TSCD(build_backbone("mit_b1"), 20, PRESETS["voc-released"])
    state = released_state(method.network, "module.")
    method.load_released(state)
    own = method.network.state_dict()
    assert torch.equal(own["affinity_head.weight"], state["module.attn_proj.weight"])
    assert torch.equal(own["tag_head.linear.weight"], state["module.classifier.weight"][:, :, 0, 0])
    assert torch.equal(
        own["backbone.net.stages.2.blocks.1.attn.kv.weight"],
        state["module.encoder.block3.1.attn.kv.weight"],
    )
    missing = dict(state)
    del missing["module.attn_proj.bias"]
    with pytest.raises(ValueError, match="missing"):
        method.load_released(missing)
    with pytest.raises(ValueError, match="not known"):
        method.load_released(state | {"module.extra.weight": torch.zeros(1)})
    state["module.classifier.weight"] = torch.zeros(80, 512, 1, 1)
    with pytest.raises(ValueError, match="needs"):
        method.load_released(state)
