"""ACR: losses by loops, every quirk of the released code, localisation, presets."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from wsss_lab.methods import acr as package
from wsss_lab.methods.acr.config import PRESETS, RELEASED, ACRConfig, ACRQuirks
from wsss_lab.methods.acr.losses import activation_consistency, affinity_consistency, consistency
from wsss_lab.methods.acr.method import ACR
from wsss_lab.methods.acr.network import flatten_attention
from wsss_lab.methods.acr.views import NAMED_VIEWS, Flip, Scale, Shift, Turn
from wsss_lab.models.attention import attention_layers, record_attention
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import normalize
from wsss_lab.models.modes import class_token_only

VIT = {"img_size": 48, "embed_dim": 24, "depth": 3, "num_heads": 3}
CNN = {"layers": (1, 1, 1), "channels": (128, 128, 128), "stem_width": 32}
KEYS = Path(__file__).parents[2] / "models" / "state_keys" / "acr.json"
K = 5


def build(preset):
    """The network of a preset, with random weights."""
    return ACR(build_backbone(preset.backbone, **preset.options), preset.classes, preset.config)


def acr(name="vit_b16", seed=0, **config):
    torch.manual_seed(seed)
    options = {"vit_b16": VIT, "deit_s": VIT, "r50_vit_b16": VIT | CNN}.get(name, {})
    model = ACR(build_backbone(name, **options), K, ACRConfig(**config))
    for p in model.parameters():  # attention far from uniform
        p.data += 0.05 * torch.randn_like(p)
    return model


def batch(b=2, h=48, w=64):
    g = torch.Generator().manual_seed(1)
    images = torch.nn.functional.interpolate(torch.rand(b, 3, 6, 8, generator=g), (h, w))
    tags = torch.zeros(b, K)
    tags[:, 1] = 1
    tags[0, 3] = 1
    return {"images": images, "tags": tags}


def same_step(one, two, data, step=0):
    """Equal losses and gradients of two models with equal weights."""
    outputs = [m.training_step(data, step) for m in (one, two)]
    for output in outputs:
        output.loss.backward()
    torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_consistency_by_loops():
    gh, gw, batches, layers = 2, 3, 2, 2
    n = gh * gw
    first, second = (torch.rand(batches, layers, 1 + n, 1 + n).softmax(-1) for _ in range(2))
    partner = [r * gw + (gw - 1 - c) for r in range(gh) for c in range(gw)]
    row = pairs = 0.0
    for b in range(batches):
        for l in range(layers):
            a1, a2 = first[b, l], second[b, l]
            for j in range(n):
                row += abs(a1[0, 1 + j] - a2[0, 1 + partner[j]])
                for i in range(n):
                    pairs += abs(a1[1 + i, 1 + j] - a2[1 + partner[i], 1 + partner[j]])
    got = [
        f(first, second, Flip(), (gh, gw)) for f in (activation_consistency, affinity_consistency)
    ]
    torch.testing.assert_close(got[0], row / (batches * layers * n))
    torch.testing.assert_close(got[1], pairs / (batches * layers * n * n))
    cut = [x[..., 1:, 1:] for x in (first, second)]
    torch.testing.assert_close(affinity_consistency(*cut, Flip(), (gh, gw), prefix=0), got[1])


@pytest.mark.parametrize("rule", [activation_consistency, affinity_consistency])
@pytest.mark.parametrize("view", [Flip(), Turn(1), Shift(0, 1), Scale(2.0)], ids=str)
def test_gradients_reach_both_views(rule, view):
    n = [1 + a * b for a, b in ((2, 3), view.grid((2, 3)))]
    maps = [torch.rand(s, s, dtype=torch.float64).softmax(-1).requires_grad_() for s in n]
    loss = rule(*maps, view, (2, 3))
    assert loss.dtype == torch.float32  # whatever comes in, also under autocast
    loss.backward()
    assert all(m.grad.abs().sum() > 0 for m in maps)
    touched = slice(0, 1) if rule is activation_consistency else slice(1, None)
    rest = [i for i in range(n[0]) if i not in range(n[0])[touched]]
    assert (maps[0].grad[rest] == 0).all()


def test_nothing_in_common_is_zero_not_nan():
    a = torch.rand(2, 7, 7).softmax(-1).requires_grad_()
    for rule in (activation_consistency, affinity_consistency):
        loss = rule(a, a, Shift(5, 5), (2, 3))
        loss.backward()
        assert loss == 0
        assert a.grad.isfinite().all()


def test_an_image_equal_to_its_mirror_image_has_equal_views_of_class_attention():
    """Without positions and with symmetric input there is nothing to disagree about."""
    model = acr(input_stats="half")
    model.backbone.net.pos_embed.data.zero_()
    model.backbone.net.patch_embed.proj.weight.data[:] = 0.1
    output = model.training_step(batch(), 0)
    assert output.parts["activation"] < 1e-7
    assert output.parts["affinity"] < 1e-7


@pytest.mark.parametrize("name", ["toy_vit", "vit_b16", "deit_s", "r50_vit_b16"])
@pytest.mark.parametrize("view", [Flip(), Turn(1), Shift(1, 0), Scale(0.5)], ids=str)
def test_every_view_trains_every_transformer(name, view):
    model, data = acr(name), batch(h=64, w=96)
    output = model.losses(model.prepare(data["images"]), data["tags"], view)
    output.loss.backward()
    parts = output.parts
    assert set(parts) == {"tags", "tags_view", "activation", "affinity"}
    total = parts["tags"] + parts["tags_view"] + 125 * (parts["activation"] + parts["affinity"])
    torch.testing.assert_close(output.loss, total)
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


@pytest.mark.parametrize(
    ("used", "parts"), [((True, False), {"activation"}), ((False, True), {"affinity"})]
)
def test_terms_can_be_switched_off(used, parts):
    output = acr(activation=used[0], affinity=used[1]).training_step(batch(), 0)
    assert set(output.parts) == {"tags", "tags_view"} | parts


@pytest.mark.parametrize("config", [{"alpha": 0.0}, {"activation": False, "affinity": False}])
def test_without_consistency_no_attention_is_formed(config):
    model = acr(**config)
    seen = []
    for layer in attention_layers(model).values():
        layer.attn_drop.register_forward_hook(lambda *_: seen.append(1))
    output = model.training_step(batch(), 0)
    assert not seen  # the fused kernel has no dropout layer
    assert set(output.panels) == {"logits", "view"}
    chosen = acr(layers=(-1,)).training_step(batch(), 0)
    assert chosen.panels["attention"].shape == (2, 13, 13)


# the quirks of the released code, by their names


def test_quirk_two_passes():
    one = acr()
    two = copy.deepcopy(one)
    two.config = dataclasses.replace(two.config, quirks=ACRQuirks(two_passes=True))
    calls = []
    for m in (one, two):
        m.backbone.register_forward_hook(lambda _m, args, _o: calls.append(len(args[0])))
    same_step(one, two, batch())
    assert calls == [4, 2, 2]


def test_quirk_raw_rows():
    """Ours compares common tokens only."""
    torch.manual_seed(0)
    logits = torch.randn(7, 7)
    first = logits.softmax(-1)
    # a view moved right by one shows columns 0 and 1 of three, and something else on the left
    order = [0, 1, 1, 2, 1, 4, 5]  # token of the image at each token of the view; 1: filler
    other = logits[order][:, order].clone()
    other[:, [1, 4]] = 3.0
    second = other.softmax(-1)
    for rule in (activation_consistency, affinity_consistency):
        assert rule(first, second, Shift(0, 1), (2, 3)) < 1e-6
        assert rule(first, second, Shift(0, 1), (2, 3), renormalise=False) > 1e-3
        flip = [rule(first, second, Flip(), (2, 3), renormalise=on) for on in (True, False)]
        assert flip[0] == flip[1]
    both = consistency([(first, second)], Shift(0, 1), (2, 3))
    assert set(both) == {"activation", "affinity"}
    assert max(both.values()) < 1e-6  # ours is the default
    data, losses = batch(), {}
    for view in (Shift(1, 0), Flip()):
        models = [acr(quirks=ACRQuirks(raw_rows=raw)) for raw in (False, True)]
        losses[view] = [
            m.losses(m.prepare(data["images"]), data["tags"], view).parts["affinity"]
            for m in models
        ]
    assert losses[Shift(1, 0)][0] != losses[Shift(1, 0)][1]
    assert losses[Flip()][0] == losses[Flip()][1]


def test_quirk_squash():
    sizes = []
    for side, expected in ((0, (48, 80)), (32, (32, 32))):
        model = acr(quirks=ACRQuirks(squash=side))
        model.backbone.register_forward_hook(lambda _m, args, _o: sizes.append(args[0].shape[2:]))
        cam = model.localise(torch.rand(1, 3, 50, 75), torch.ones(1, K))
        assert cam.shape == (1, K, 50, 75)
        assert tuple(sizes[-1]) == expected


# choices that are none


def test_views_take_turns():
    model, data = acr(named_views=("scale", "flip")), batch(h=64, w=96)
    views = (*NAMED_VIEWS["scale"], *NAMED_VIEWS["flip"])
    assert model.config.views == views
    for step in range(4):
        shown = model.training_step(data, step).panels["view"]
        expected = views[step % 3].image(model.backbone.normalize(data["images"]), 16)
        assert torch.equal(shown, expected)


def test_input_stats():
    images = batch()["images"]
    by_imagenet = normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    half = acr(input_stats="half").prepare(images)
    torch.testing.assert_close(half, images * 2 - 1)
    for stats, of_own in (("backbone", half), ("imagenet", by_imagenet)):
        model = acr(input_stats=stats)
        assert torch.equal(model.prepare(images), by_imagenet)  # what toy_vit declares
        model.backbone.input_mean = model.backbone.input_std = (0.5, 0.5, 0.5)
        torch.testing.assert_close(model.prepare(images), of_own)
    for stats in ("backbone", "imagenet", "half"):  # padding by the mean is 0 for the network
        model = acr(input_stats=stats)
        colour = torch.tensor(model.input_mean)[None, :, None, None].expand(1, 3, 4, 4)
        assert model.prepare(colour).abs().max() == 0


def test_all_classes_in_one_backward_pass():
    data, maps = batch(), []
    for batched in (True, False):
        maps.append(acr(batched=batched).localise(data["images"], data["tags"]))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=1e-4)


def test_predicted_tags():
    model, images = acr(), batch()["images"]
    model.head.linear.bias.data = torch.tensor([9.0, -9.0, 9.0, -9.0, -9.0])
    seen = torch.tensor([[1.0, 0, 1, 0, 0]]).expand(2, -1)
    got = model.localise(images)
    assert torch.equal(got, model.localise(images, seen))
    assert (got[:, [1, 3, 4]] == 0).all()
    model.head.linear.bias.data -= 99
    assert (model.localise(images) == 0).all()


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_presets_optimiser_batch_schedule_and_precision(name):
    ours, released = PRESETS[name], PRESETS[f"{name}-released"]
    assert (released.run.precision, ours.run.precision) == ("32-true", "bf16-mixed")
    assert (released.optim.momentum, released.optim.weight_decay) == (5e-4, 0.0)
    assert (ours.optim.momentum, ours.optim.weight_decay) == (0.0, 5e-4)
    assert (released.run.batch, ours.run.batch) == (1, 4)
    assert released.run.steps == ours.run.steps + 1
    assert released.optim.decay_steps == ours.run.steps
    images = {"voc": 10_582, "coco": 82_783}[name]
    assert ours.run.steps == images // 4 * {"voc": 10, "coco": 5}[name]


def test_released_presets_have_every_quirk():
    off = ACRQuirks()
    assert all(getattr(RELEASED, f.name) != getattr(off, f.name) for f in dataclasses.fields(off))
    assert (off.two_passes, off.raw_rows, off.squash) == (False, False, 0)
    for name, preset in PRESETS.items():
        assert preset.config.quirks == (RELEASED if name.endswith("-released") else off)
    for name, alpha in (("voc-released", 125.0), ("coco-released", 100.0)):
        config = PRESETS[name].config
        assert config.views == (Flip("width"),)
        assert config.input_stats == "imagenet"
        assert config.quirks.squash == 384
        assert config.batched is False
        assert config.alpha == alpha
        assert (config.variant, config.start_layer, config.propagate) == ("grad", -2, True)
        assert not config.final_norm


@pytest.mark.parametrize("name", ["voc", "toy"])
def test_presets_build(name):
    preset = PRESETS[name]
    with torch.device("meta"):
        model = build(preset)
    assert model.head.linear.out_features == preset.classes
    assert preset.crop % model.backbone.stride == 0
    groups = model.param_groups(1.0, 2.0, 0.1)
    listed = sum(len(g["params"]) for g in groups)
    assert listed == sum(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("classes", [20, 80])
def test_the_authors_state_dict_loads_strictly(classes):
    shapes = json.loads(KEYS.read_text())["vitb_hybrid_nc20"]
    for key in ("cls_head.weight", "cls_head.bias"):
        shapes[key][0] = classes
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        model = build(PRESETS["voc-released" if classes == 20 else "coco-released"])
        model.load_released(state)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        if classes == 20:
            assert trained == 98_195_796  # what gets a gradient in the released code
        with pytest.raises(ValueError, match="of another shape"):
            ACR(model.backbone, 7).load_released(state)
        del state["cls_head.bias"]
        with pytest.raises(ValueError, match=r"missing.*head\.linear\.bias"):
            model.load_released(state)


def test_the_shortcut_changes_no_number_that_is_read():
    for name in ("vit_b16", "r50_vit_b16", "toy_vit"):
        model, x = acr(name).eval(), batch()["images"]
        grads = []
        for short in (False, True):
            model.zero_grad()
            with record_attention(model) as record:
                if short:
                    with class_token_only(model.backbone):
                        logits = model(x)
                else:
                    logits = model(x)
            (logits.square().sum() + sum(a.square().sum() for a in record.maps)).backward()
            grads.append(
                [p.grad for p in model.parameters() if p.requires_grad] + [logits.detach()]
            )
        for a, b in zip(*grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
        assert not any(m._forward_pre_hooks for m in model.modules())
    with class_token_only(build_backbone("toy_cnn")):
        pass


def test_the_head_reads_before_the_last_norm_unless_told():
    images = batch()["images"]
    before, after = (acr(final_norm=on).eval() for on in (False, True))
    with torch.no_grad():
        token = before.backbone(before.prepare(images)).cls
        normed = before.backbone.net.norm(token)
        torch.testing.assert_close(before(images), before.head.linear(token))
        torch.testing.assert_close(after(images), before.head.linear(normed))
    assert not before.backbone.net.norm.weight.requires_grad
    assert after.backbone.net.norm.weight.requires_grad


def test_localisation_of_a_batch_is_that_of_each_image():
    model, data = acr(), batch(3)
    data["tags"] = torch.eye(K)[[4, 2, 0]] + torch.eye(K)[[1, 2, 3]]
    together = model.localise(data["images"], data["tags"])
    for i in range(3):
        alone = model.localise(data["images"][i : i + 1], data["tags"][i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-4)
    present = data["tags"] > 0
    assert (together.amax((2, 3))[present] > 0.9).all()
    assert (together[~present] == 0).all()
    assert (together >= 0).all()
    assert (together <= 1).all()


def test_localisation_of_the_mirror_image_is_mirrored():
    model, data = acr(), batch()
    cam = model.localise(data["images"], data["tags"])
    mirrored = model.localise(data["images"].flip(-1), data["tags"])
    torch.testing.assert_close(mirrored.flip(-1), cam, rtol=1e-3, atol=1e-4)


def test_localisation_leaves_no_trace():
    model, data = acr("toy_vit").train(), batch()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        cam = model.localise(data["images"], data["tags"], size=(30, 40))
    assert cam.shape == (2, K, 30, 40)
    assert not cam.requires_grad
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_training_lowers_the_loss_and_is_half_precision_proof():
    model, data = acr("toy_vit"), batch(4, 64, 64)
    optimizer = torch.optim.AdamW(model.param_groups(1e-3, 3e-3, 0.01))
    losses = []
    for step in range(8):
        with torch.autocast("cpu", torch.bfloat16, enabled=step % 2 == 1):
            loss = model.training_step(data, step).loss
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_bad_input():
    with pytest.raises(ValueError, match="class token"):
        ACR(build_backbone("toy_mit"), K)
    with pytest.raises(ValueError, match="needs a class token"):
        activation_consistency(torch.rand(4, 4), torch.rand(4, 4), Flip(), (2, 2), prefix=0)
    with pytest.raises(ValueError, match="multiples of the stride"):
        acr().training_step(batch(h=50), 0)
    for wrong, message in (
        ({"alpha": -1.0}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"named_views": ()}, "views"),
        ({"named_views": ("sideways",)}, "views: expected one of flip"),
        ({"input_stats": "voc"}, "input_stats"),
        ({"variant": "cam"}, "variant"),
    ):
        with pytest.raises(ValueError, match=message):
            ACRConfig(**wrong)
    with pytest.raises(ValueError, match=r"squash: expected at least 0, got -1; released"):
        ACRQuirks(squash=-1)


def test_main_names_of_the_package():
    assert all(hasattr(package, name) for name in package.__all__)
    assert (package.ACR, package.ACRConfig, package.PRESETS) == (ACR, ACRConfig, PRESETS)
    with pytest.raises(AttributeError, match="no attribute 'ARC'"):
        _ = package.ARC


def test_flat_attention_is_the_softmax_of_scaled_logits():
    one, two = acr("toy_vit"), acr("toy_vit")
    flatten_attention(two.backbone, 0.5)
    images = torch.rand(1, 3, 48, 48)
    with record_attention(one.backbone, (0,), "logits") as logits, torch.no_grad():
        one.backbone(images)
    with record_attention(two.backbone, (0,)) as flat, torch.no_grad():
        two.backbone(images)
    heads = logits.maps[0].shape[1]
    scale = (one.backbone.width // heads) ** -0.5
    torch.testing.assert_close(flat.maps[0], (0.5 * scale * logits.maps[0]).softmax(-1))
    untouched = build_backbone("toy_mit")
    with pytest.raises(ValueError, match="toy_mit"):
        flatten_attention(untouched, 0.5)
