"""Every backbone: shapes, sizes, options and bad input."""

import pytest
import torch
from torch import nn

from wsss_lab.models.backbones import BACKBONES, build_backbone
from wsss_lab.models.base import Backbone, Features, count_parameters, split_norm_parameters
from wsss_lab.models.vit import ViTBackbone, resize_pos_embed

TOYS = ("toy_cnn", "toy_mit2", "toy_vit2", "toy_mit", "toy_vit")


def cells(side, stride, floor):
    return side // stride if floor else -(-side // stride)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_shapes_agree_with_the_declared_widths_and_strides(name):
    with torch.device("meta"):
        backbone = build_backbone(name).eval()
        floor = name in ("vit_b16", "deit_s", "deit_b")
        for h, w in [(75, 101), (backbone.min_size, 64)]:
            features = backbone(torch.zeros(2, 3, h, w))
            assert len(features.pyramid) == len(backbone.widths) == len(backbone.strides)
            for x, d, s in zip(features.pyramid, backbone.widths, backbone.strides, strict=True):
                assert tuple(x.shape) == (2, d, cells(h, s, floor), cells(w, s, floor))
            assert features.last is features.pyramid[-1]
            assert (backbone.width, backbone.stride) == (backbone.widths[-1], backbone.strides[-1])
            if features.tokens is not None:
                n = features.last.shape[2] * features.last.shape[3]
                assert tuple(features.tokens.shape) == (2, n, backbone.width)
                assert tuple(features.cls.shape) == (2, backbone.width)
    assert backbone.name == name
    assert backbone.weight_tag == "random"


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mit_b0", 3.319392),
        ("mit_b1", 13.151424),  # TSCD's encoder
        ("wrn38", 105.070912),  # ASDT's backbone
        ("vit_b16", 85.798656),
        ("resnet50", 23.508032),
    ],
)
def test_parameter_counts_of_the_originals(name, millions):
    with torch.device("meta"):
        assert count_parameters(build_backbone(name)) == round(millions * 1e6)


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (96, 160), (97, 70)])
def test_toys_take_any_size_from_32(name, size):
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        features = backbone(torch.randn(1, 3, *size))
    assert all(torch.isfinite(x).all() for x in features.pyramid)


@pytest.mark.parametrize("name", TOYS)
def test_toys_are_small_and_see_16_cells_at_128_px(name):
    backbone = build_backbone(name)
    assert count_parameters(backbone) <= 1.3e6
    with torch.no_grad():
        assert backbone.eval()(torch.zeros(1, 3, 128, 128)).last.shape[2:] == (16, 16)
    assert backbone.stride == 8


@pytest.mark.parametrize("name", TOYS)
def test_toys_give_gradients_to_every_parameter(name):
    backbone = build_backbone(name)
    features = backbone(torch.randn(2, 3, 64, 64))
    loss = sum((x * torch.randn_like(x)).sum() for x in features.pyramid)
    loss.backward()
    without = [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()]
    zero_start = [n for n in without if "pos_embed" not in n]
    # residual branches of the CNN start at zero: what feeds only them gets a gradient from step 2
    assert all(".conv" in n or ".bn1" in n for n in zero_start), zero_start


@pytest.mark.parametrize("name", TOYS)
def test_toys_learn_eight_images_by_heart(name):
    backbone = build_backbone(name)
    classify = nn.Linear(backbone.width, 4)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 4
    parameters = [*backbone.parameters(), *classify.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3)
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(classify(backbone(images).last.mean(dim=(2, 3))), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_batch_items_do_not_mix_in_evaluation():
    images = torch.randn(3, 3, 64, 48)
    for name in TOYS:
        backbone = build_backbone(name).eval()
        with torch.no_grad():
            together = backbone(images).last
            alone = torch.cat([backbone(x[None]).last for x in images])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_the_network_is_the_one_of_timm():
    backbone = build_backbone("vit_b16", img_size=32, embed_dim=24, depth=2, num_heads=3).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = backbone.net.forward_features(image)
        features = backbone(image)
    torch.testing.assert_close(features.cls, expected[:, 0])
    torch.testing.assert_close(features.tokens, expected[:, 1:])
    torch.testing.assert_close(features.last.flatten(2).mT, expected[:, 1:])
    resnet = build_backbone("resnet18", output_stride=32).eval()
    with torch.no_grad():
        torch.testing.assert_close(resnet(image).last, resnet.net.forward_features(image))
    mit = build_backbone("mit_b0", last_stride=2).eval()
    with torch.no_grad():
        torch.testing.assert_close(mit(image).last, mit.net.forward_features(image))


def test_levels_and_final_norm_of_the_transformer():
    options = {"img_size": 32, "embed_dim": 24, "depth": 3, "num_heads": 3}
    torch.manual_seed(1)
    plain = build_backbone("vit_b16", levels=(-1, 0), final_norm=False, **options).eval()
    image = torch.randn(1, 3, 48, 32)
    with torch.no_grad():
        last, first, tokens_map = plain(image).pyramid
        torch.testing.assert_close(last, tokens_map)
        assert not torch.allclose(first, last)
        plain.final_norm = True
        normed = plain(image)
        torch.testing.assert_close(normed.tokens, plain.net.norm(last.flatten(2).mT))
    assert not plain.net.norm.weight.requires_grad
    assert not build_backbone(
        "vit_b16", train_pos_embed=False, **options
    ).net.pos_embed.requires_grad


def test_class_token_does_not_leak_into_the_grid():
    backbone = build_backbone("toy_vit").eval()
    with torch.no_grad():
        before = backbone.embed(torch.zeros(1, 3, 64, 64))[0]
        backbone.net.cls_token += 1.0
        after = backbone.embed(torch.zeros(1, 3, 64, 64))[0]
    torch.testing.assert_close(after[:, 1:], before[:, 1:])
    torch.testing.assert_close(after[:, 0], before[:, 0] + 1)


def test_resized_positions_keep_the_class_token_and_a_linear_ramp():
    ramp = torch.arange(4.0)[None].expand(4, 4)
    embed = torch.cat([torch.tensor([[9.0]]), ramp.reshape(16, 1)])[None]
    for mode in ("bicubic", "bilinear"):
        new = resize_pos_embed(embed, (4, 7), (4, 4), mode)
        assert new.shape == (1, 29, 1)
        assert new[0, 0, 0] == 9
        row = new[0, 1:, 0].reshape(4, 7)
        assert (row == row[:1]).all()
        assert (row[0].diff() > 0).all() if mode == "bilinear" else (row[0, 1:-1].diff() > 0).all()
        inner = (torch.arange(7) + 0.5) * 4 / 7 - 0.5
        torch.testing.assert_close(row[0, 2:5], inner[2:5], atol=0.05, rtol=0)
    assert resize_pos_embed(embed, (4, 4), (4, 4)) is embed
    with pytest.raises(ValueError, match="old_grid"):
        resize_pos_embed(embed, (2, 2), (9, 9))


def test_norm_parameters_are_split_without_loss():
    for name, norms in [("mit_b1", 60), ("toy_cnn", 32)]:  # 60 as in TSCD's optimiser
        with torch.device("meta"):
            backbone = build_backbone(name)
        norm, other = split_norm_parameters(backbone)
        assert len(norm) == norms
        assert {id(p) for p in norm} | {id(p) for p in other} == {
            id(p) for p in backbone.parameters()
        }
        assert len(norm) + len(other) == len(list(backbone.parameters()))
        assert all(p.ndim == 1 for p in norm)


def test_drop_path_rates_of_mit():
    with torch.device("meta"):
        backbone = build_backbone("mit_b1")
    rates = [
        getattr(block.drop_path1, "drop_prob", 0.0)
        for stage in backbone.net.stages
        for block in stage.blocks
    ]
    torch.testing.assert_close(torch.tensor(rates), torch.linspace(0, 0.1, 8))


def test_frozen_batch_norm_of_wrn38():
    backbone = build_backbone("wrn38", width_factor=0.05).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 37
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert any(m.training for m in backbone.modules() if isinstance(m, nn.Dropout2d))
    image = torch.randn(1, 3, 65, 49)
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    assert backbone(image).last.shape[2:] == (9, 7)
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    thawed = build_backbone("wrn38", width_factor=0.05, freeze_norm=False).train()
    assert all(m.training for m in thawed.modules())


def test_weight_standardisation_variants_differ_only_in_eps():
    options = {
        "layers": (1, 1, 1),
        "channels": (128, 128, 128),
        "stem_width": 32,
        "img_size": 32,
        "embed_dim": 24,
        "depth": 1,
        "num_heads": 3,
    }
    timm_net = build_backbone("r50_vit_b16", weight_std="timm", **options).eval()
    acr_net = build_backbone("r50_vit_b16", weight_std="added_eps", **options).eval()
    acr_net.load_state_dict(timm_net.state_dict())
    image = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        a, b = timm_net(image).last, acr_net(image).last
        torch.testing.assert_close(a, b, atol=0.1, rtol=0.1)
        for net in (timm_net, acr_net):
            for name, p in net.named_parameters():
                if "stages.0" in name and "conv" in name:
                    p *= 1e-4  # tiny weights: where eps sits now decides
        assert (timm_net(image).last - acr_net(image).last).abs().max() > 1e-2


class Nothing(Backbone):
    """A sub-class that forgot `features`."""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_backbone("vgg16"), "toy_cnn, toy_mit"),
        (lambda: build_backbone("toy_cnn", depth=3), "do not all fit toy_cnn"),
        (lambda: build_backbone("resnet18", output_stride=4), "8, 16 or 32"),
        (lambda: build_backbone("mit_b0", last_stride=3), "stage_strides"),
        (lambda: build_backbone("toy_vit", levels=(4,)), r"levels must lie in \[-4, 3\]"),
        (lambda: build_backbone("r50_vit_b16", weight_std="other"), "'timm' or 'added_eps'"),
        (lambda: build_backbone("deit_s", pos_mode="nearest"), "bicubic"),
    ],
)
def test_bad_options(call, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        call()


def test_a_transformer_without_class_token_is_refused():
    import timm

    net = timm.create_model(
        "vit_tiny_patch16_224", class_token=False, global_pool="avg", num_classes=0
    )
    with pytest.raises(ValueError, match="class token"):
        ViTBackbone("x", net, 16)


def test_bad_images():
    backbone = build_backbone("toy_cnn")
    cases = {
        r"\(b, 3, h, w\)": [torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64)],
        "normalise": [torch.zeros(1, 3, 64, 64, dtype=torch.uint8)],
        "at least 32 px": [torch.zeros(1, 3, 31, 64), torch.zeros(1, 3, 64, 20)],
    }
    for message, images in cases.items():
        for image in images:
            with pytest.raises(ValueError, match=message):
                backbone(image)
    with pytest.raises(TypeError, match="Nothing"):
        Nothing("x", (1,), (1,))(torch.zeros(1, 3, 32, 32))
    assert "random" in repr(backbone)
    assert isinstance(backbone.eval()(torch.zeros(1, 3, 32, 32)), Features)
