"""The baseline's two networks against their definitions."""

import pytest
import torch
import torch.nn.functional as F

from wsss_lab import IGNORE
from wsss_lab.losses import tag_loss
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier, predict_labels
from wsss_lab.models.backbones import build_backbone

SIZE = (32, 40)


@pytest.fixture
def images():
    return torch.rand(2, 3, *SIZE)


@pytest.mark.parametrize("pool", ["gap", "gmp"])
def test_logits_are_the_pooled_map(images, pool):
    """With average pooling the mean of the map; with maximum pooling of the pooled features."""
    net = TagClassifier(build_backbone("toy_cnn"), 5, pool).eval()
    with torch.no_grad():
        logits, maps, features = net(images), net.raw_cam(images), net.features(images)
    bias = 0 if net.head.linear.bias is None else net.head.linear.bias
    pooled = features.mean((2, 3)) if pool == "gap" else features.amax((2, 3))
    torch.testing.assert_close(logits, pooled @ net.head.linear.weight.T + bias)
    weight = net.head.linear.weight
    torch.testing.assert_close(maps, torch.einsum("bdhw,kd->bkhw", features, weight))
    output = net.predict(images)
    assert torch.equal(output.cam, maps)
    assert torch.equal(output.tag_logits, logits)


@pytest.mark.parametrize("exclusive", [False, True])
def test_tag_loss_of_a_step(images, exclusive):
    net = TagClassifier(build_backbone("toy_cnn"), 3, exclusive=exclusive).eval()
    tags = torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    out = net.training_step({"images": images, "tags": tags}, 0)
    logits = net(images)
    wanted = F.cross_entropy(logits, torch.tensor([1, 0])) if exclusive else tag_loss(logits, tags)
    torch.testing.assert_close(out.loss, wanted)
    torch.testing.assert_close(out.panels["logits"], logits)


def test_segmentation_network(images):
    net = SegNetwork(build_backbone("toy_cnn"), 4, hidden=8).eval()
    logits = net(images)
    assert logits.shape == (2, 4, SIZE[0] // 4, SIZE[1] // 4)
    full = F.interpolate(logits, SIZE, mode="bilinear", align_corners=False)
    labels = predict_labels(net, images)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, full.argmax(1))
    masks = torch.randint(0, 4, (2, *SIZE))
    masks[:, :3] = IGNORE
    loss = net.training_step({"images": images, "masks": masks}, 0).loss
    torch.testing.assert_close(loss, F.cross_entropy(full, masks, ignore_index=IGNORE))


@pytest.mark.parametrize("net", [TagClassifier, SegNetwork])
def test_rates_and_decay(net):
    method = net(build_backbone("toy_cnn"), 4)
    groups = method.param_groups(1.0, 10.0, 0.1)
    known = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    for name, weight in method.named_parameters():
        rate = 1.0 if name.startswith("backbone.") else 10.0
        assert known[id(weight)] == (rate, 0.1 if weight.ndim > 1 else 0.0), name
