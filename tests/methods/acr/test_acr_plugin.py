"""All-pairs consistency in other methods: what it adds, leaves alone and refuses."""

import dataclasses
from typing import get_args

import pytest
import torch

from wsss_lab.methods.acr.losses import affinity_consistency
from wsss_lab.methods.acr.plugin import (
    ConsistencyConfig,
    WithConsistency,
    trained_backbone,
    with_consistency,
)
from wsss_lab.methods.acr.views import NAMED_VIEWS, Flip, ViewName
from wsss_lab.methods.asdt.config import PRESETS as ASDT_PRESETS
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.methods.cosa.config import PRESETS as COSA_PRESETS
from wsss_lab.methods.cosa.method import CoSA
from wsss_lab.methods.tscd.config import PRESETS as TSCD_PRESETS
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.models.attention import record_attention
from wsss_lab.models.backbones import build_backbone

K, SIDE = 4, 64
TINY_VIT = {"levels": (-2,)}


def make(name, backbone=None, seed=0):
    torch.manual_seed(seed)
    if name == "tscd":
        config = dataclasses.replace(TSCD_PRESETS["toy"], warmup=0, scales=(1.0,), hidden=8)
        return TSCD(build_backbone(backbone or "toy_mit"), K, config).train()
    if name == "cosa":
        config = dataclasses.replace(COSA_PRESETS["toy"], warmup=0, scales=(1.0,), queue_rows=4)
        return CoSA(build_backbone(backbone or "toy_vit", **TINY_VIT), K, config).train()
    config = dataclasses.replace(ASDT_PRESETS["toy"], warmup=0, scales=(1.0,), hidden=8)
    return ASDT(build_backbone(backbone or "toy_vit"), K, config).train()


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    tags = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
    return {"images": torch.rand(2, 3, SIDE, SIDE, generator=g), "tags": tags}


def one_step(method, step=1):
    torch.manual_seed(7)
    return method.training_step(batch(), step)


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("tscd", {"acr_affinity"}),
        ("cosa", {"acr_activation", "acr_affinity"}),
        ("asdt", {"acr_activation", "acr_affinity"}),
    ],
)
def test_it_adds_its_losses_and_leaves_everything_else_alone(name, terms):
    alone, inner = make(name), make(name)
    plugged = WithConsistency(inner, ConsistencyConfig(alpha=20.0))
    first, second = one_step(alone), one_step(plugged)
    assert set(second.parts) - set(first.parts) == terms
    for part, value in first.parts.items():
        torch.testing.assert_close(second.parts[part], value, rtol=0, atol=0)
    extra = 20 * sum(second.parts[term] for term in terms)
    torch.testing.assert_close(second.loss, first.loss + extra)
    assert all(second.parts[term] > 0 for term in terms)
    # running statistics and all other buffers are those of the method alone
    for key, value in alone.state_dict().items():
        assert torch.equal(inner.state_dict()[key], value), key
    assert [m.training for m in alone.modules()] == [m.training for m in inner.modules()]
    # of all terms only the two differ, so this gradient is theirs alone
    torch.stack([second.parts[term] for term in terms]).sum().backward()
    reached = [p for p in trained_backbone(inner).parameters() if p.grad is not None]
    assert sum(float(p.grad.abs().sum()) for p in reached) > 0


def test_without_class_token_the_loss_is_that_of_the_last_stage_by_hand():
    method = make("tscd")
    backbone = trained_backbone(method)
    got = one_step(WithConsistency(method, ConsistencyConfig(alpha=1.0))).parts["acr_affinity"]
    images = backbone.normalize(batch()["images"])
    maps = []
    for x in (images, images.flip(-1)):
        with record_attention(backbone, (-2, -1)) as record, torch.no_grad():
            backbone(x)
        maps.append([m.mean(1) for m in record.maps])
    grid = (SIDE // backbone.stride,) * 2
    wanted = [
        affinity_consistency(a, b, Flip(), grid, prefix=0) for a, b in zip(*maps, strict=True)
    ]
    torch.testing.assert_close(got, torch.stack(wanted).mean(), rtol=1e-4, atol=1e-8)


def test_cosa_compares_its_online_network():
    method = make("cosa")
    assert trained_backbone(method) is method.online.backbone
    output = one_step(plugged := WithConsistency(method, ConsistencyConfig(alpha=1.0)))
    terms = output.parts["acr_activation"] + output.parts["acr_affinity"]
    terms.backward()
    assert all(p.grad is None for p in method.assignment.parameters())
    before = {k: v.clone() for k, v in method.assignment.state_dict().items()}
    with torch.no_grad():
        for p in method.online.parameters():
            p.add_(0.1)
    plugged.after_step(0)  # the teacher follows through the wrapper, too
    assert any(not torch.equal(v, before[k]) for k, v in method.assignment.state_dict().items())


def test_views_take_turns_and_layers_can_be_chosen():
    method = make("asdt")
    config = ConsistencyConfig(alpha=1.0, views=("flip", "turn90", "scale"), layers=(-1, 0))
    plugged = WithConsistency(method, config)
    assert plugged.layers == [0, 3]
    assert len(plugged.views) == 5  # scale stands for two, and so does turn90
    found = [float(one_step(plugged, step).parts["acr_affinity"].detach()) for step in range(6)]
    assert len(set(found[:5])) == 5
    assert found[5] == pytest.approx(found[0], rel=1e-5)


def test_every_name_has_its_views_and_one_that_hides_everything_is_refused():
    assert set(NAMED_VIEWS) == set(get_args(ViewName))
    config = ConsistencyConfig(alpha=1.0, views=("translation",))
    small = batch() | {"images": batch()["images"][:, :, :32, :32]}
    with pytest.raises(ValueError, match="leaves nothing of a grid of 4x4 patches"):
        WithConsistency(make("tscd"), config).training_step(small, 0)


def test_the_state_is_that_of_the_method():
    method = make("tscd")
    plugged = WithConsistency(method, ConsistencyConfig(alpha=1.0))
    state = plugged.state_dict()
    assert list(state) == list(method.state_dict())
    other = make("tscd", seed=1)
    other.load_state_dict(state)  # evaluation knows nothing of the plug-in
    again = WithConsistency(make("tscd", seed=2), ConsistencyConfig(alpha=1.0))
    again.load_state_dict(other.state_dict())
    assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())
    assert len(list(plugged.parameters())) == len(list(method.parameters()))
    groups = (m.param_groups(1.0, 2.0, 0.1) for m in (plugged, method))
    for ours, theirs in zip(*groups, strict=True):
        assert [id(p) for p in ours["params"]] == [id(p) for p in theirs["params"]]
    plugged.eval()
    x = batch()["images"]
    with torch.no_grad():
        torch.testing.assert_close(plugged.predict(x).logits, method.predict(x).logits)


def test_alpha_0_is_the_method_itself():
    method = make("tscd")
    assert with_consistency(method, ConsistencyConfig()) is method
    assert with_consistency(method, ConsistencyConfig(alpha=0.1)).method is method


@pytest.mark.parametrize(
    ("name", "backbone", "changes", "message"),
    [
        ("asdt", "toy_cnn", {}, "toy_cnn has no attention .* use a transformer .toy_vit"),
        ("tscd", None, {"activation": True}, "toy_mit has no class token"),
        ("tscd", None, {"affinity": False}, "expected at least one of them on"),
        ("tscd", None, {"layers": (0,)}, r"expected some of \[3, 4\] of the 5 attention layers"),
        ("cosa", None, {"layers": (4,)}, r"of the 4 attention layers of toy_vit .*, got \[4\]"),
        ("cosa", None, {"layers": ()}, "layers: expected at least one value"),
    ],
)
def test_what_cannot_be_compared_is_refused(name, backbone, changes, message):
    method = make(name, backbone)
    with pytest.raises(ValueError, match=message):
        with_consistency(method, ConsistencyConfig(alpha=1.0, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": -1.0}, "alpha: expected at least 0"),
        ({"alpha": float("nan")}, "alpha: expected at least 0"),
        ({"views": ("sideways",)}, "views: expected one of flip, vflip, turn90"),
        ({"views": ()}, "views: expected at least one value"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        ConsistencyConfig(**changes)


def test_a_method_with_two_trained_backbones_or_none_is_refused():
    two = TagClassifier(build_backbone("toy_vit"), K)
    two.second = build_backbone("toy_mit")
    with pytest.raises(ValueError, match=r"TagClassifier must train .* it trains toy_vit, toy_mit"):
        trained_backbone(two)
    two.requires_grad_(False)
    with pytest.raises(ValueError, match="it trains none"):
        trained_backbone(two)
