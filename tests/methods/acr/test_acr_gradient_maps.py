"""Localisation from attention gradients: against one whole backward pass per class."""

import pytest
import torch
from torch import nn

from wsss_lab.cam.attention_maps import attention_gradients
from wsss_lab.methods.acr.localisation import (
    gradient_maps,
    layer_map,
    record_for_localisation,
    spread,
)
from wsss_lab.models.attention import attention_layers, record_attention
from wsss_lab.models.backbones import build_backbone

VIT = {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 3}
CNN = {"layers": (1, 1, 1), "channels": (128, 128, 128), "stem_width": 32}
SMALL = {"toy_vit": {}, "vit_b16": VIT, "deit_s": VIT, "r50_vit_b16": VIT | CNN}
VARIANTS = ["grad", "grad_s", "cam_grad", "cam_grad_s"]
CLASSES = 5


class Tagger(nn.Module):
    """A backbone and a head on the class token, or on the mean patch where there is none."""

    def __init__(self, name, **options):
        super().__init__()
        self.backbone = build_backbone(name, **options)
        self.head = nn.Linear(self.backbone.width, CLASSES)
        for p in self.parameters():  # attention far from uniform
            p.data += 0.05 * torch.randn_like(p)

    def forward(self, images):
        features = self.backbone(images)
        token = features.last.mean((2, 3)) if features.cls is None else features.cls
        return self.head(token)


def tagger(name):
    return Tagger(name, **SMALL.get(name, {})).eval()


def tags():
    """Different classes, and different numbers of them, in one batch."""
    wanted = torch.zeros(3, CLASSES)
    wanted[0, [1, 4]] = 1
    wanted[1, 2] = 1
    wanted[2, [0, 2, 3]] = 1
    return wanted


def by_loops(model, images, wanted, start, variant):
    """The specification, image by image and class by class; every weight gets its gradient."""
    maps = []
    for image, tag in zip(images, wanted, strict=True):
        rows = []
        for c in range(CLASSES):
            model.zero_grad()
            with record_attention(model) as record:
                logit = model(image[None])[0, c]
            for a in record.maps:
                a.retain_grad()
            logit.backward()
            total = 0
            for a in record.maps[start:]:
                heads_g = a.grad[0].clamp(min=0)
                heads_ga = (a.grad[0] * a[0]).clamp(min=0)
                g, ga = (sum(h for h in x) / len(x) for x in (heads_g, heads_ga))
                total = (
                    total
                    + {
                        "grad": g,
                        "grad_s": g * g,
                        "cam_grad": ga,
                        "cam_grad_s": ga * g,
                    }[variant]
                )
            rows.append(total[0, 1:].detach() * tag[c])
        maps.append(torch.stack(rows))
    affinity = []
    for image in images:
        with torch.no_grad(), record_attention(model) as record:
            model(image[None])
        affinity.append(sum(a[0].mean(0) for a in record.maps))
    return torch.stack(maps), torch.stack(affinity)


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("variant", VARIANTS)
def test_against_one_backward_pass_per_class(name, variant):
    model = tagger(name)
    images, wanted = torch.randn(3, 3, 32, 48), tags()
    expected, affinity = by_loops(model, images, wanted, -2, variant)
    assert expected.max() > 0
    model.zero_grad()
    with record_for_localisation(model, start_layer=-2) as trace:
        logits = model(images)
    maps = gradient_maps(logits, trace.attention, wanted, variant)
    top = float(expected.max())
    torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-4 * top)
    torch.testing.assert_close(trace.affinity, affinity, rtol=1e-4, atol=1e-5)
    by_hand = torch.einsum("bij,bkj->bki", affinity[:, 1:, 1:], expected)
    torch.testing.assert_close(spread(maps, trace.affinity), by_hand, rtol=1e-3, atol=1e-3 * top)
    assert all(p.grad is None for p in model.parameters())


def test_all_classes_at_once_are_the_same():
    model, images = tagger("vit_b16"), torch.randn(3, 3, 32, 32)
    found = []
    for batched in (True, False, None):
        with record_for_localisation(model, start_layer=0) as trace:
            logits = model(images)
        gradients, index, present = attention_gradients(
            logits, trace.attention, tags(), batched=batched
        )
        found.append(torch.stack(gradients))
        assert found[-1].shape == (3, 3, 3, 3, 1, 5)  # layers, classes, images, heads, row, tokens
        assert index.shape == present.shape == (3, 3)
        assert (found[-1][:, 1:, 1] == 0).all()  # the second image has one class
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[1], found[2])


def test_the_graph_begins_at_the_start_layer_and_the_model_is_left_alone():
    model = tagger("vit_b16").train()
    model.head.bias.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    fused = [layer.fused_attn for layer in attention_layers(model).values()]
    with torch.no_grad(), record_for_localisation(model, start_layer=1) as trace:
        logits = model(torch.randn(2, 3, 32, 32))
        assert not any(p.requires_grad for p in model.parameters())
    assert logits.requires_grad
    assert trace.attention[0].is_leaf
    assert len(trace.attention) == 2
    assert not trace.affinity.requires_grad
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert [layer.fused_attn for layer in attention_layers(model).values()] == fused
    assert not any(m._forward_pre_hooks for m in model.modules())
    with pytest.raises(ValueError, match="at least"), record_for_localisation(model):
        model(torch.randn(2, 3, 8, 8))
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


def test_without_affinity_early_layers_keep_the_fused_kernel():
    model = tagger("vit_b16")
    layers = list(attention_layers(model).values())
    with record_for_localisation(model, start_layer=2, affinity=False) as trace:
        assert [layer.fused_attn for layer in layers] == [True, True, False]
        model(torch.randn(1, 3, 32, 32))
    assert trace.affinity is None
    assert len(trace.attention) == 1
    maps = torch.rand(1, CLASSES, 4)
    assert torch.equal(spread(maps, None), maps)


def test_networks_without_class_token_average_the_queries():
    """The last stage of a MiT has square attention; earlier ones have not."""
    model, images = Tagger("toy_mit").eval(), torch.randn(2, 3, 32, 64)
    wanted = tags()[:2]
    with record_for_localisation(model, start_layer=-2, affinity=False) as trace:
        logits = model(images)
    maps = gradient_maps(logits, trace.attention, wanted, prefix=0)
    assert maps.shape == (2, CLASSES, 4 * 8)
    with record_attention(model) as record:
        logits = model(images)
    g = torch.autograd.grad(logits[1, 2], record.maps[-2:])
    expected = sum(x[1].relu().mean(0).mean(0) for x in g)
    torch.testing.assert_close(maps[1, 2], expected, rtol=1e-3, atol=1e-6)
    with record_for_localisation(model, start_layer=0, affinity=False) as trace:
        logits = model(images)
    with pytest.raises(ValueError, match="later start_layer"):
        gradient_maps(logits, trace.attention, wanted, prefix=0)


def test_layer_map_by_hand():
    gradient = torch.tensor([[[2.0, -4.0]], [[-2.0, 0.5]]])  # heads, one row, two columns
    attention = torch.tensor([[[0.5, 0.5]], [[0.25, 0.75]]])
    expected = {
        "grad": [[1.0, 0.25]],
        "grad_s": [[1.0, 0.0625]],
        "cam_grad": [[0.5, 0.1875]],
        "cam_grad_s": [[0.5, 0.046875]],
    }
    for variant, value in expected.items():
        assert layer_map(gradient, attention, variant).tolist() == value
    half = layer_map(gradient.bfloat16(), attention.bfloat16(), "grad")
    assert half.dtype == torch.float32


def test_bad_input():
    model, images = tagger("vit_b16"), torch.randn(1, 3, 32, 32)
    for layer in (3, -4):
        with pytest.raises(ValueError, match="3 attention layers"):
            record_for_localisation(model, layer).__enter__()
    with pytest.raises(ValueError, match="no attention"):
        record_for_localisation(build_backbone("toy_cnn")).__enter__()
    with torch.inference_mode(), pytest.raises(ValueError, match="no_grad"):
        record_for_localisation(model).__enter__()
    with torch.no_grad(), record_attention(model) as record:
        logits = model(images)
    with pytest.raises(ValueError, match="record_attention"):
        gradient_maps(logits, record.maps, torch.ones(1, CLASSES))
    with record_for_localisation(model) as trace:
        logits = model(images)
    with pytest.raises(ValueError, match="like logits"):
        gradient_maps(logits, trace.attention, torch.ones(1, 3))
    with pytest.raises(ValueError, match="variant must be one of"):
        gradient_maps(logits, trace.attention, torch.ones(1, CLASSES), "gradient")
    with pytest.raises(ValueError, match="attention must be given"):
        layer_map(torch.rand(2, 1, 3), None, "cam_grad")
    with pytest.raises(ValueError, match=r"1 \+ 9 tokens"):
        spread(torch.rand(1, 2, 9), torch.rand(1, 5, 5))
