"""DeepLabV2: its head by hand, its dilations, its learning rates, its test protocol."""

import pytest
import torch
import torch.nn.functional as F

from wsss_lab import IGNORE
from wsss_lab.evaluate.inference import VIEWS, multi_scale_predict
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.methods.common.deeplab import OPTIM, DeepLabV2
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import ASPPHead
from wsss_lab.train.optim import lr_factor

RATES = (6, 12, 18, 24)


def head_by_hand(head, x):
    """Nine shifted copies of the map per branch, each times its 1x1 slice of the weights."""
    h, w = x.shape[-2:]
    total = torch.zeros(len(x), head.branches[0].out_channels, h, w, dtype=x.dtype)
    for branch, rate in zip(head.branches, RATES, strict=True):
        padded = F.pad(x, (rate,) * 4)
        total = total + branch.bias[:, None, None]
        for i in range(3):
            for j in range(3):
                part = padded[..., i * rate : i * rate + h, j * rate : j * rate + w]
                total = total + torch.einsum("bdhw,kd->bkhw", part, branch.weight[:, :, i, j])
    return total


@pytest.mark.parametrize("size", [(41, 41), (5, 33), (1, 1)])
def test_the_head_is_a_sum_of_four_branches(size):
    torch.manual_seed(0)
    head = ASPPHead(6, 4).double()
    for branch in head.branches:
        torch.nn.init.normal_(branch.bias)
    x = torch.randn(2, 6, *size, dtype=torch.float64)
    found = head(x)
    assert found.shape == (2, 4, *size)
    torch.testing.assert_close(found, head_by_hand(head, x))


def test_what_a_cell_of_the_head_sees():
    head = ASPPHead(1, 1)
    x = torch.zeros(1, 1, 61, 61, requires_grad=True)
    (grad,) = torch.autograd.grad(head(x)[0, 0, 30, 30], x)
    seen = {(y - 30, x - 30) for y, x in grad[0, 0].nonzero().tolist()}
    assert seen == {(i * r, j * r) for r in RATES for i in (-1, 0, 1) for j in (-1, 0, 1)}


def test_the_head_starts_small_with_zero_biases():
    torch.manual_seed(0)
    head = ASPPHead(256, 21)
    for branch in head.branches:
        assert branch.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert not branch.bias.any()


def test_dilations_of_the_resnet():
    with torch.device("meta"):
        backbone = build_backbone("resnet101", output_stride=8)
    assert (backbone.stride, backbone.width) == (8, 2048)
    for stage, before, inside, blocks in (("layer3", 1, 2, 23), ("layer4", 2, 4, 3)):
        convs = [block.conv2 for block in getattr(backbone.net, stage)]
        assert [conv.dilation[0] for conv in convs] == [before] + [inside] * (blocks - 1)
        assert all(conv.stride == (1, 1) and conv.padding == conv.dilation for conv in convs)
        assert all(block.conv1.stride == (1, 1) for block in getattr(backbone.net, stage))


def test_stride_8_keeps_every_value_of_stride_32():
    """What dilation is for: the pre-trained network's numbers, with others in between."""
    torch.manual_seed(0)
    dense, coarse = (build_backbone("resnet50", output_stride=s).eval() for s in (8, 32))
    coarse.load_state_dict(dense.state_dict())
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        one, other = dense(image).last, coarse(image).last
    assert one.shape[-2:] == (8, 12)
    torch.testing.assert_close(one[..., ::4, ::4], other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (45, 71)])
def test_shapes_at_any_size(size):
    network = DeepLabV2(build_backbone("toy_cnn"), 5).eval()
    images = torch.rand(2, 3, *size)
    with torch.no_grad():
        assert network(images).shape == (2, 5, *(-(-s // 8) for s in size))
        output = network.predict(images)
    assert output.logits.shape == (2, 5, *size)
    assert output.cam is None


def test_learning_rates():
    network = DeepLabV2(build_backbone("toy_cnn"), 5)
    lr, decay = OPTIM.lr, OPTIM.weight_decay
    groups = network.param_groups(lr, lr * OPTIM.head_lr_factor, decay)
    rates = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert set(rates) == {id(p) for p in network.parameters() if p.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(rates)
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            assert ".bn" in name or "norm" in name or "stem.1" in name or "downsample.1" in name
        elif name.startswith("backbone"):
            assert rates[id(weight)] == (2.5e-4, 5e-4)
        else:
            bias = name.endswith("bias")
            assert rates[id(weight)] == pytest.approx((5e-3, 0) if bias else (2.5e-3, 5e-4))
    assert lr_factor(0, 20_000, OPTIM) == 1
    assert lr_factor(10_000, 20_000, OPTIM) == pytest.approx(0.5**0.9)


def test_batch_norms_stay_as_they_are():
    network = DeepLabV2(build_backbone("toy_cnn"), 3).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    network(torch.rand(2, 3, 48, 48))
    assert before
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in before.items())


def test_one_batch_can_be_learned_by_heart():
    torch.manual_seed(0)
    network = DeepLabV2(build_backbone("toy_cnn"), 3, freeze_norm=False).train()
    images = torch.rand(2, 3, 48, 48)
    masks = torch.zeros(2, 48, 48, dtype=torch.long)
    masks[0, :, 24:], masks[1, 24:] = 1, 2
    masks[:, :4] = IGNORE
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for step in range(12):
        loss = network.training_step({"images": images, "masks": masks, "tags": None}, step).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    nothing = torch.full_like(masks, IGNORE)
    assert network.training_step({"images": images, "masks": nothing, "tags": None}, 0).loss == 0


def test_the_test_protocol_is_a_maximum_of_ten_views():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 64, 96, generator=generator)
    seen = []

    def predict(view, tags):
        logits = torch.cat([view.mean(1, keepdim=True), -view[:, :2]], 1)
        logits = logits * torch.linspace(0.5, 1, view.shape[-1])  # left is not right
        halves = logits.chunk(2)
        seen.extend([halves[0], halves[1].flip(-1)])
        return SegOutput(logits=logits)

    found = multi_scale_predict(predict, images, VIEWS["deeplabv2"]).logits
    sides = sorted(view.shape[-1] for view in seen[::2])
    assert sides == [48, 72, 96, 120, 144]
    full = [F.interpolate(v, (64, 96), mode="bilinear", align_corners=False) for v in seen]
    torch.testing.assert_close(found, torch.stack(full).amax(0))


def test_bad_dilations():
    for rates in ((), (6, 0)):
        with pytest.raises(ValueError, match="dilations must be numbers of at least 1"):
            ASPPHead(4, 2, rates)
