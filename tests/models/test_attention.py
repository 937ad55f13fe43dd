"""Recording attention: right numbers, gradients, and a model that is left as it was."""

import pytest
import timm
import torch

from wsss_lab.models.attention import attention_layers, pool_queries, record_attention
from wsss_lab.models.backbones import build_backbone

SMALL_VIT = {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 3}
SMALL_CNN = {"layers": (1, 1, 1), "channels": (128, 128, 128), "stem_width": 32}
SMALL = {
    "toy_vit": {},
    "toy_mit": {},
    "toy_vit2": {},
    "toy_mit2": {},
    "vit_b16": SMALL_VIT,
    "deit_s": SMALL_VIT,
    "r50_vit_b16": SMALL_VIT | SMALL_CNN,
    "mit_b0": {"embed_dims": (8, 16, 20, 32)},
}


def snapshot(model):
    flags = {name: layer.fused_attn for name, layer in attention_layers(model).items()}
    hooks = {
        name: (len(m._forward_hooks), len(m._forward_pre_hooks))
        for name, m in model.named_modules()
    }
    return flags, hooks


def small(name):
    return build_backbone(name, **SMALL[name]).eval()


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("what", ["probs", "logits"])
def test_recording_changes_neither_the_output_nor_the_model(name, what):
    model = small(name)
    image = torch.randn(2, 3, 64, 48)
    before = snapshot(model)
    assert all(before[0].values())  # the fused kernel is on: hooks alone would see nothing
    with torch.no_grad():
        plain = model(image).last
        with record_attention(model, what=what) as record:
            recorded = model(image).last
    torch.testing.assert_close(plain, recorded, atol=1e-5, rtol=1e-4)
    assert snapshot(model) == before
    assert len(record.maps) == len(record.names) == len(before[0])
    if what == "probs":
        for maps in record.maps:
            assert (maps >= 0).all()
            torch.testing.assert_close(maps.sum(-1), torch.ones(maps.shape[:-1]))


@pytest.mark.parametrize("name", list(SMALL))
def test_softmax_of_scaled_logits_is_the_probabilities(name):
    model = small(name)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        with record_attention(model) as probs:
            model(image)
        with record_attention(model, what="logits") as logits:
            model(image)
    layers = attention_layers(model).values()
    for p, s, layer in zip(probs.maps, logits.maps, layers, strict=True):
        torch.testing.assert_close((s * layer.scale).softmax(-1), p, atol=1e-5, rtol=1e-4)


def test_probabilities_reproduce_the_layer_by_hand():
    model = small("vit_b16")
    layer = model.net.blocks[0].attn
    x = torch.randn(2, 5, 24)
    with torch.no_grad(), record_attention(model, layers=[0]) as record:
        out = layer(x)
        q, k, v = layer.qkv(x).reshape(2, 5, 3, 3, 8).permute(2, 0, 3, 1, 4)
        by_hand = torch.zeros(2, 3, 5, 5)
        for b in range(2):
            for a in range(3):
                for i in range(5):
                    weights = [(q[b, a, i] @ k[b, a, j] / 8**0.5).exp() for j in range(5)]
                    by_hand[b, a, i] = torch.stack(weights) / sum(weights)
        torch.testing.assert_close(record.maps[0], by_hand)
        heads = (by_hand @ v).transpose(1, 2).reshape(2, 5, 24)
        torch.testing.assert_close(out, layer.proj(heads))


@pytest.mark.parametrize("what", ["probs", "logits"])
def test_gradients_reach_the_maps(what):
    model = small("toy_vit")
    with record_attention(model, layers=(-2, -1), what=what) as record:
        features = model(torch.randn(2, 3, 48, 64))
    assert record.names == ["net.blocks.2.attn", "net.blocks.3.attn"]
    assert record.stack().shape == (2, 2, 4, 49, 49)
    if what == "probs":  # the maps lie on the way to the output
        gradients = torch.autograd.grad(features.cls[:, 0].sum(), record.maps, retain_graph=True)
        assert all(g.shape == m.shape for g, m in zip(gradients, record.maps, strict=True))
        assert all(g.abs().sum() > 0 for g in gradients)
    loss = record.stack().square().sum()  # and may be a loss themselves
    loss.backward()
    assert model.net.blocks[3].attn.qkv.weight.grad.abs().sum() > 0


def test_gradient_to_a_map_agrees_with_finite_differences():
    model = small("vit_b16").double()
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    with record_attention(model, layers=[-1]) as record:
        logit = model(image).cls[0, 0]
    (gradient,) = torch.autograd.grad(logit, record.maps)
    layer = model.net.blocks[-1].attn

    def nudged(amount):
        def nudge(_, args):
            changed = args[0].clone()
            changed[0, 1, 0, 2] += amount
            return (changed,)

        layer.fused_attn = False
        handle = layer.attn_drop.register_forward_pre_hook(nudge)
        with torch.no_grad():
            value = model(image).cls[0, 0]
        handle.remove()
        return value

    slope = (nudged(1e-5) - nudged(-1e-5)) / 2e-5
    torch.testing.assert_close(gradient[0, 1, 0, 2], slope, rtol=1e-5, atol=1e-9)


def test_restored_after_an_exception_and_when_nested():
    model = small("toy_mit")
    image = torch.randn(1, 3, 32, 32)
    before = snapshot(model)
    with pytest.raises(ValueError, match="at least"), record_attention(model):
        model(image[..., :8])
    assert snapshot(model) == before
    with torch.no_grad(), record_attention(model) as outer:
        with record_attention(model, layers=[-1]) as inner, record_attention(model, what="logits"):
            model(image)
        model(image)
    assert len(inner.maps) == 1
    assert len(outer.maps) == 2 * len(before[0])
    assert snapshot(model) == before
    with pytest.raises(ValueError, match=r"clear\(\)"):
        outer.stack()
    outer.clear()
    assert outer.maps == []


def test_spatial_reduction_gives_fewer_keys_and_pooling_makes_them_square():
    model = small("toy_mit")
    with torch.no_grad(), record_attention(model, what="logits") as record:
        model(torch.randn(1, 3, 64, 96))
    first = record.maps[0]
    assert first.shape == (1, 1, 16 * 24, 2 * 3)
    square = pool_queries(first, (16, 24), 8)
    by_hand = torch.stack(
        [
            first.reshape(1, 1, 16, 24, 6)[:, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].mean((2, 3))
            for i in range(2)
            for j in range(3)
        ],
        dim=2,
    )
    torch.testing.assert_close(square, by_hand)
    with pytest.raises(ValueError, match="differ in shape"):
        record.stack()
    with pytest.raises(ValueError, match="8x8 grid"):
        pool_queries(first, (8, 8), 8)


def test_bad_requests():
    for name in ("toy_cnn", "resnet18"):
        model = build_backbone(name)
        with pytest.raises(ValueError, match="no attention"), record_attention(model):
            pass
    model = small("toy_vit")
    for layers in ([4], [-5], []):
        with pytest.raises(ValueError, match="4 attention layers"), record_attention(model, layers):
            pass
    with pytest.raises(ValueError, match="'probs' or 'logits'"), record_attention(model, what="q"):
        pass
    with record_attention(model) as record:
        pass
    with pytest.raises(ValueError, match="run the model once"):
        record.stack()


STRANGE = {
    "eva02_tiny_patch14_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},  # RoPE
    "beit_base_patch16_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},  # relative positions
    "swin_tiny_patch4_window7_224": {"embed_dim": 24, "depths": (1, 1), "num_heads": (3, 6)},
    "swinv2_tiny_window8_256": {"embed_dim": 24, "depths": (1, 1), "num_heads": (3, 6)},
    "vit_small_patch16_rope_224": {"embed_dim": 48, "depth": 1, "num_heads": 3},
    "mvitv2_tiny": {},
    "maxvit_tiny_rw_224": {},
    "levit_128s": {},
    "samvit_base_patch16": {"embed_dim": 48, "depth": 1, "num_heads": 3},
    "xcit_nano_12_p16_224": {},
    "cait_xxs24_224": {},
}


@pytest.mark.parametrize("name", list(STRANGE))
@pytest.mark.parametrize("what", ["probs", "logits"])
def test_attention_of_unknown_arithmetic_is_refused(name, what):
    """RoPE, relative positions, windows: maps without them would not be the model's own."""
    if name not in timm.list_models():
        pytest.skip(f"this version of timm has no {name}")
    with torch.device("meta"):
        model = timm.create_model(name, **STRANGE[name])
    with (
        pytest.raises(ValueError, match=r"arithmetic is not known here, the first is .*plain"),
        record_attention(model, what=what),
    ):
        pass


def test_a_pooling_head_is_no_attention_layer():
    with torch.device("meta"):
        model = timm.create_model("vit_small_patch16_224", global_pool="map", class_token=False)
    assert list(attention_layers(model)) == [f"blocks.{i}.attn" for i in range(12)]
