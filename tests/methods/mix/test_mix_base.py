"""The base with every technique off: its step written out, its start, its state."""

import pytest
import torch
import torch.nn.functional as F
from tiny_mix import SIDE, START, K, batch, make, step, tagged, twin

from wsss_lab import IGNORE
from wsss_lab.losses import balanced_pixel_loss
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.methods.mix.config import MixConfig
from wsss_lab.methods.mix.method import Mix
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import Backbone
from wsss_lab.refine import DenseEnergyLoss
from wsss_lab.runs.start import read_start


def plain_labels(method, data):
    """Labels of a step, one image, class and pixel rule at a time."""
    net, config = method.network, method.config
    net.eval()
    found = []
    for image, tags, box in zip(data["images"], data["tags"], data["boxes"].tolist(), strict=True):
        total = torch.zeros(K, SIDE, SIDE)
        for scale in config.scales:
            view = net.backbone.normalize(image[None])
            if scale != 1:
                view = F.interpolate(view, scale_factor=scale, mode="bilinear")
            pair = []
            for mirrored in (False, True):
                features = net.backbone(view.flip(-1) if mirrored else view).pyramid[-1]
                raw = torch.einsum("bdhw,kd->bkhw", features, net.tag_head.linear.weight)
                raw = F.interpolate(raw, (SIDE, SIDE), mode="bilinear")
                pair.append(raw.flip(-1) if mirrored else raw)
            total += torch.maximum(*pair).relu()[0]
        top, bottom, left, right = box
        label = torch.full((SIDE, SIDE), IGNORE)
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[top:bottom, left:right] = True
        best, winner = torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE, dtype=torch.long)
        for c in tags.nonzero().flatten().tolist():
            own = total[c] - total[c][inside].min()
            own = own / (own[inside].max() + 1e-5)
            better = own > best
            best, winner = torch.where(better, own, best), torch.where(better, c + 1, winner)
        label[inside & (best <= config.low)] = 0
        sure = inside & (best > config.high)
        label[sure] = winner[sure]
        found.append(label)
    return torch.stack(found)


@torch.no_grad()
def test_the_base_is_a_plain_implementation():
    method, data = make(), batch()
    own = twin(method)
    net = own.network
    pyramid = net.backbone(net.backbone.normalize(data["images"])).pyramid
    tag_logits = F.linear(pyramid[-1].amax((2, 3)), net.tag_head.linear.weight)
    logits = F.interpolate(net.seg_head(pyramid), (SIDE, SIDE), mode="bilinear")
    labels = plain_labels(own, data)  # running statistics follow the pass that is trained
    each = -logits.log_softmax(1).gather(1, labels.where(labels != IGNORE, 0)[:, None])[:, 0]
    means = [each[labels == 0].mean(), each[(labels > 0) & (labels != IGNORE)].mean()]
    out = step(method)
    assert set(out.parts) == {"tags", "seg"}
    assert torch.equal(out.panels["labels"], labels)
    for own, classes in zip(labels, tagged(), strict=True):
        assert set(own.unique().tolist()) - {IGNORE} == {0, *classes}
    assert (labels[2] == 0).all()  # an image without tags
    torch.testing.assert_close(
        out.parts["tags"], F.multilabel_soft_margin_loss(tag_logits, data["tags"])
    )
    torch.testing.assert_close(out.parts["seg"], (means[0] + means[1]) / 2)
    torch.testing.assert_close(out.parts["seg"], balanced_pixel_loss(logits, labels))
    torch.testing.assert_close(out.loss, out.parts["tags"] + 0.1 * out.parts["seg"])


def test_every_weight_learns_and_nothing_is_drawn():
    method = make()
    before = torch.get_rng_state()
    method.training_step(batch(), START).loss.backward()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad.isfinite().all() for p in method.parameters())
    assert sum(bool(p.grad.any()) for p in method.parameters()) == len(list(method.parameters()))


def test_the_warm_up_learns_tags_alone():
    method = make()
    out = step(method, START - 1)
    assert set(out.parts) == {"tags"}
    assert torch.equal(out.loss, out.parts["tags"])
    out.loss.backward()
    assert all(not p.grad.any() for p in method.network.seg_head.parameters())
    assert method.network.tag_head.linear.weight.grad.any()


def test_the_energy_is_that_of_the_library():
    method = make(**{"weights.energy": 0.01})
    out = step(method)
    logits = F.interpolate(out.panels["seg_logits"], (SIDE, SIDE), mode="bilinear")
    valid = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    for i, (top, bottom, left, right) in enumerate(batch()["boxes"].tolist()):
        valid[i, top:bottom, left:right] = True
    found = DenseEnergyLoss()(
        logits.softmax(1), 255 * batch()["images"], valid, out.panels["labels"]
    )
    torch.testing.assert_close(out.parts["energy"], found)
    expected = out.parts["tags"] + 0.1 * out.parts["seg"] + 0.01 * found
    torch.testing.assert_close(out.loss, expected)
    assert found < 0


def test_a_batch_in_which_nothing_is_labelled_has_the_tag_loss_alone():
    data = batch()
    data["boxes"] = torch.tensor([[0, 2, 0, 2]]).repeat(3, 1)
    method = make(low=0.001, high=0.999, **{"refine.kind": "par"})
    out = step(method, data=data)
    assert out.loss.isfinite()
    assert (out.panels["labels"][:, 2:] == IGNORE).all()


def test_the_packaged_start_is_tscds_and_leaves_the_segmentation_new():
    fresh, method = make(start=False), make()
    packaged = read_start("toy", "tscd", "toy_mit2")
    for name, value in method.state_dict().items():
        if name.startswith("network.seg_head."):
            assert torch.equal(value, fresh.state_dict()[name]), name
        else:
            assert torch.equal(value, packaged[name]), name


def test_a_start_takes_the_network_of_a_run_with_other_techniques():
    first = make(seed=1, **{"search.how": "split"})
    second = make(seed=2, **{"slow.decay": 0.9})
    second.start_from(first.state_dict())
    slow = second.techniques["slow"].network
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name
        assert torch.equal(slow.state_dict()[name], value), name
    broken = {k: v for k, v in first.state_dict().items() if "tag_head" not in k}
    with pytest.raises(ValueError, match="start of the mix"):
        second.start_from(broken)


def test_a_plain_classifier_is_a_start():
    torch.manual_seed(7)
    classifier = TagClassifier(build_backbone("toy_mit2"), K, "gmp")
    method = make(seed=2, **{"slow.decay": 0.9})
    head = method.network.seg_head.fuse.weight.clone()
    method.start_from_classifier(classifier.state_dict())
    own = method.network.state_dict()
    assert torch.equal(own["tag_head.linear.weight"], classifier.head.linear.weight)
    for name, value in classifier.backbone.state_dict().items():
        assert torch.equal(own[f"backbone.{name}"], value), name
    assert torch.equal(method.network.seg_head.fuse.weight, head)
    for name, value in method.techniques["slow"].network.state_dict().items():
        assert torch.equal(own[name], value), name


@pytest.mark.parametrize("name", ["toy_vit2", "toy_cnn"])
def test_other_backbones_carry_the_base(name):
    method = make(backbone=name, start=False)
    out = step(method)
    out.loss.backward()
    assert out.loss.isfinite()
    found = method.eval().predict(batch()["images"])
    assert found.logits.shape[1] == K + 1
    assert found.cam.shape[1] == found.tag_logits.shape[1] == K


def test_a_backbone_of_one_map_is_refused():
    class One(Backbone):
        pass

    with pytest.raises(
        ValueError, match=r"backbone: expected one with two maps or more, one returns 1"
    ):
        Mix(One("one", (8,), (8,)), K, MixConfig())
