"""Each technique switched on alone changes what it claims to change, by its paper's functions."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_mix import ON, SIDE, START, K, batch, make, state_of, step, tagged, twin, with_acr

from wsss_lab import IGNORE
from wsss_lab.methods.acr.plugin import WithConsistency
from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.asdt.labels import teacher_b_label
from wsss_lab.methods.asdt.signal import pulse_signal
from wsss_lab.methods.cosa.config import CoSAConfig
from wsss_lab.methods.cosa.labels import label_from_cam
from wsss_lab.methods.cosa.losses import (
    certain_regions,
    perplexity_weights,
    separation_infonce,
    separation_margin,
    swapped_seg_loss,
)
from wsss_lab.methods.cosa.threshold import threshold_searches
from wsss_lab.methods.tscd.config import TSCDConfig
from wsss_lab.methods.tscd.method import TSCD
from wsss_lab.models.backbones import build_backbone
from wsss_lab.refine import PAR, VARM

FIELDS = ("maps", "cam", "low", "high", "labels", "weights", "lessons")
CHANGED = {
    "slow": {"maps", "cam", "labels"},
    "refine": {"cam", "labels"},
    "search": {"low", "high", "labels"},
    "perplexity": {"weights"},
    "turns": {"lessons"},
    "scd": set(),
    "separation": set(),
}
"""What a technique may change of the state of a step; losses come on top."""
ADDED = {"scd": {"scd"}, "separation": {"separation"}}


def same(one, other):
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return one is other is None or one == other == []


def stirred(method):
    """Let the network move away from its slow copy, where there is one."""
    with torch.no_grad():
        method.network.backbone.net.stages[-1].norm.weight.mul_(0.5)
        method.network.tag_head.linear.weight.add_(0.3)
    return method


@pytest.mark.parametrize("name", ON)
def test_a_technique_changes_what_it_claims_and_no_more(name):
    base, other = stirred(make()), stirred(make(**ON[name]))
    assert list(other.techniques) == [name]
    one, two = state_of(base), state_of(other)
    changed = {field for field in FIELDS if not same(getattr(one, field), getattr(two, field))}
    assert changed == CHANGED[name]
    (terms, factors), (more, _) = base.terms(one), other.terms(two)
    assert set(more) - set(terms) == ADDED.get(name, set())
    assert (not torch.equal(more["seg"], terms["seg"])) == bool(CHANGED[name])
    assert set(factors) == {"seg"}


@pytest.mark.parametrize(("kind", "refiner", "level"), [("varm", VARM, 0.99), ("par", PAR, 1.01)])
def test_refinement_is_that_of_the_maps(kind, refiner, level):
    base, method = make(), make(**{"refine.kind": kind, "refine.iterations": 4})
    maps, state = state_of(base).cam, state_of(method)
    image = F.interpolate(batch()["images"][:1], (SIDE // 2, SIDE // 2), mode="bilinear")
    expected = refiner(iterations=4)(image, maps[:1]) / level**4
    expected = F.interpolate(expected, (SIDE, SIDE), mode="bilinear")
    torch.testing.assert_close(state.cam[:1], expected, atol=1e-5, rtol=1e-4)
    padded = ~state.valid[:, None].expand_as(state.cam)
    assert not state.cam[padded].any()  # a padded crop is refined by its real pixels alone
    given = (state.classes, state.present, torch.tensor(0.35), torch.tensor(0.55), state.valid)
    assert torch.equal(state.labels, label_from_cam(state.cam, *given))


def test_the_distillation_is_tscds_on_the_same_network():
    changes = {"scd.weight": 0.1, "scd.points": 6, "scales": [1.0, 0.75], "scd.view_scale": 0.7}
    method = make(**changes).eval()
    config = TSCDConfig(
        backbone="toy_mit2", hidden=64, points=6, scales=(1.0, 0.75), view_scale=0.7, warmup=0
    )
    tscd = TSCD(build_backbone("toy_mit2"), K, config).eval()
    left = tscd.network.load_state_dict(method.network.state_dict(), strict=False)
    assert all("affinity_head" in name for name in left.missing_keys)
    assert not left.unexpected_keys
    state = state_of(method)
    torch.manual_seed(5)
    terms, factors = method.terms(state)
    assert factors["scd"] == 0.1
    views = tscd.forward_views(state.images, state.valid)
    views = views._replace(window=views.window._replace(centre=torch.zeros(3, 2)))
    torch.manual_seed(5)
    logits = F.interpolate(
        views.outputs.seg_logits, (SIDE, SIDE), mode="bilinear", align_corners=True
    )
    theirs = tscd._scd(views, logits, batch()["tags"], batch()["boxes"])[0]
    torch.testing.assert_close(terms["scd"], theirs)


@pytest.mark.parametrize("changes", [{"level": False}, {"shift": 0.3}, {"classes": "tagged"}])
def test_settings_of_the_distillation_are_read(changes):
    plain = make(**ON["scd"])
    other = make(**ON["scd"], **{f"scd.{name}": value for name, value in changes.items()})
    values = [step(one).parts["scd"] for one in (plain, other)]
    assert not torch.equal(*values)


def test_the_second_view_leaves_running_statistics_alone():
    base, method = make(), make(**ON["scd"])
    step(base), step(method)
    for (name, one), other in zip(
        base.named_buffers(), dict(method.named_buffers()).values(), strict=True
    ):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("how", ["split", "mixture", "bands"])
def test_searched_thresholds_are_cosas_on_the_same_maps(how):
    method = make(**{"search.how": how})
    config = CoSAConfig(search=how, low=0.35, high=0.55, queue_rows=6, queue_grid=(4, 4))
    theirs = threshold_searches(config)[0]
    for number in range(4):
        state = state_of(method, data=batch(number))
        small = F.interpolate(state.cam, (4, 4), mode="bilinear")
        low, high = theirs(small.amax(1).flatten(1)).unbind()
        assert torch.equal(state.low, low)
        assert torch.equal(state.high, high)
    facts = step(method).parts
    assert {"low", "high"} <= set(facts)
    assert float(facts["low"]) != pytest.approx(0.45, abs=1e-6)  # where a search of one starts


def test_perplexity_weights_are_cosas_and_count_in_the_loss():
    method = make(**{"perplexity.on": True, "perplexity.beta": 1.2})
    state = state_of(method)
    expected = perplexity_weights(state.cam.amax(1), state.labels, 0.35, 0.55, beta=1.2)
    torch.testing.assert_close(state.weights, expected)
    assert state.weights[state.labels == IGNORE].eq(0).all()
    for region in (state.labels == 0, (state.labels > 0) & (state.labels < IGNORE)):
        assert float(state.weights[region].mean()) == pytest.approx(1, abs=1e-4)
    two = torch.stack([state.labels, state.labels], 1)
    theirs = swapped_seg_loss(state.logits, two, torch.stack([state.weights] * 2, 1))
    torch.testing.assert_close(method.terms(state)[0]["seg"], theirs)


@pytest.mark.parametrize("form", ["margin", "infonce"])
def test_separation_is_cosas_on_the_labels_of_the_step(form):
    method = make(**{"separation.form": form, "separation.weight": 0.3})
    state = state_of(method)
    out = state.outputs
    grid = (out.cam.shape[2], out.cam.shape[3])
    cam = out.cam.gather(1, state.classes[:, :, None, None].expand(-1, -1, *grid))
    regions = certain_regions(state.labels, state.classes, grid)
    expected = (
        separation_margin(cam, *regions, state.present)
        if form == "margin"
        else separation_infonce(cam, out.features, *regions, state.present)
    )
    terms, factors = method.terms(state)
    assert torch.equal(terms["separation"], expected)
    assert factors["separation"] == 0.3
    assert expected > 0


def test_turns_follow_the_pulse():
    pulse = {"turns.signal": "pulse", "turns.period": 4, "turns.duty": 0.25, "turns.weight": 0.2}
    for at in range(START, START + 6):
        base, method = make(), make(**pulse)
        out, plain = step(method, at), step(base, at)
        on = bool(pulse_signal(at, 4, 0.25, warmup=START - 1))
        assert float(out.parts["share"]) == float(on)
        if on:
            logits = F.interpolate(out.panels["seg_logits"], (SIDE, SIDE), mode="bilinear")
            own = F.cross_entropy(logits, out.panels["lesson_1"], ignore_index=IGNORE)
            torch.testing.assert_close(out.parts["seg"], 0.2 * own)
        else:
            assert "lesson_1" not in out.panels
            assert torch.equal(out.loss, plain.loss)
    assert set(step(make(**pulse), START - 1).parts) == {"tags"}  # no turns in the warm-up


def test_a_mixture_weighs_both_lessons():
    method = make(**ON["turns"])
    state = state_of(method)
    (lesson,) = state.lessons
    assert (lesson.share, lesson.weight) == (0.25, 0.1)
    plain = state_of(make())
    own = make().terms(plain)[0]["seg"]
    other = F.cross_entropy(state.logits, lesson.labels, ignore_index=IGNORE)
    torch.testing.assert_close(method.terms(state)[0]["seg"], 0.75 * own + 0.25 * 0.1 * other)


def test_teacher_bs_labels_are_the_refined_segmentation():
    method = make(**ON["turns"])
    state = state_of(method)
    label = state.lessons[0].labels
    for own, classes in zip(label, tagged(), strict=True):
        assert set(own.unique().tolist()) <= {0, *classes, IGNORE}
    assert torch.equal(label == IGNORE, ~state.valid)
    logits = twin(method).network.segment(state.images)[:1, [0, *tagged()[0]]]
    probs = F.interpolate(logits, (SIDE, SIDE), mode="bilinear").softmax(1)
    small = F.interpolate(batch()["images"][:1], (SIDE // 2, SIDE // 2), mode="bilinear")
    fine = F.interpolate(PAR()(small, probs), (SIDE, SIDE), mode="bilinear")
    assert torch.equal(label[0], torch.tensor([0, *tagged()[0]])[fine[0].argmax(0)])
    crf = make(**ON["turns"], **{"turns.labels": "crf"})
    state = state_of(crf)
    theirs = teacher_b_label(
        255 * batch()["images"], crf.network.segment(state.images), state.classes, state.present,
        ASDTConfig(), state.valid,
    )  # fmt: skip
    assert torch.equal(state.lessons[0].labels, theirs.label)


def test_the_slow_copy_makes_the_labels_and_follows():
    method = make(**{"slow.decay": 0.75, "turns.signal": "mix"})
    before = twin(method)
    stirred(method)
    state = state_of(method)
    slow = method.techniques["slow"].network
    assert state.maker is slow
    assert not any(p.requires_grad for p in slow.parameters())
    own = state_of(before)
    assert torch.equal(state.maps, own.maps)  # those of the weights before
    assert torch.equal(state.lessons[0].labels, own.lessons[0].labels)
    old = before.network.tag_head.linear.weight
    method.after_step(START)
    moved = slow.state_dict()["tag_head.linear.weight"]
    torch.testing.assert_close(moved, 0.75 * old + 0.25 * method.network.tag_head.linear.weight)
    grouped = {id(p) for group in method.param_groups(1, 1, 0) for p in group["params"]}
    assert grouped == {id(p) for p in method.network.parameters()}
    out = step(method)
    out.loss.backward()
    assert all(p.grad is not None for p in method.network.parameters())


def test_all_pairs_consistency_is_the_plug_in():
    base, method = make(), with_acr(make())
    one, two = step(base), step(method)
    assert set(two.parts) - set(one.parts) == {"acr_affinity"}  # MiT has no class token
    torch.testing.assert_close(two.loss, one.loss + 2 * two.parts["acr_affinity"])
    assert two.parts["acr_affinity"] > 0
    with_acr(make(**ON["slow"]))  # the copy has no gradients, so one backbone is found
    with pytest.raises(ValueError, match="toy_cnn has no attention"):
        with_acr(make(backbone="toy_cnn", start=False))
    with pytest.raises(ValueError, match=r"activation: toy_mit2 has no class token"):
        with_acr(make(), activation=True)


PAIRS = list(itertools.combinations([*ON, "acr"], 2))


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_every_pair_takes_a_step(pair):
    changes = {key: value for name in pair for key, value in ON.get(name, {}).items()}
    method = make(**changes)
    assert set(method.techniques) == set(pair) - {"acr"}
    trained: WithConsistency | object = with_acr(method) if "acr" in pair else method
    out = step(trained)
    out.loss.backward()
    trained.after_step(START)
    assert out.loss.isfinite()
    assert all(p.grad.isfinite().all() for p in method.network.parameters())
    expected = {"acr_affinity"} if "acr" in pair else set()
    for name in pair:
        expected |= ADDED.get(name, set()) | {"search": {"low", "high"}, "turns": {"share"}}.get(
            name, set()
        )
    assert set(out.parts) == {"tags", "seg"} | expected


def test_a_later_technique_sees_what_an_earlier_one_has_made():
    both = make(**ON["refine"], **ON["search"], **ON["perplexity"])
    assert list(both.techniques) == ["refine", "search", "perplexity"]
    state = state_of(both)
    refined = state_of(make(**ON["refine"])).cam
    assert torch.equal(state.cam, refined)
    searching = make(**ON["search"]).techniques["search"]
    low, high = searching.thresholds(replace_cam(state, refined))
    assert torch.equal(state.low, low)
    expected = perplexity_weights(refined.amax(1), state.labels, low, high)
    torch.testing.assert_close(state.weights, expected)


def replace_cam(state, cam):
    found = replace(state, weights=None, lessons=[])
    found.cam = cam
    return found
