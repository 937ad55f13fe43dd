"""The table of backbones: `build_backbone("mit_b1")`.

===================  ==================================================  ==========================
name                 network                                             used by
===================  ==================================================  ==========================
``toy_cnn``          see `wsss_lab.models.toynets`                       the book
``toy_mit2``         see `wsss_lab.models.toynets`                       the book
``toy_vit2``         see `wsss_lab.models.toynets`                       the book
``toy_mit``          its first form, weaker                              earlier studies
``toy_vit``          its first form, weaker                              earlier studies
``vit_b16``          ViT-B/16                                            CoSA
``deit_s``           DeiT-S/16
``deit_b``           DeiT-B/16
``r50_vit_b16``      three stages of a ResNet-50 (v2), then ViT-B        ACR
``mit_b0..b5``       SegFormer encoders                                  TSCD (b1)
``resnet18..101``    ResNets with dilated late stages
``wrn38``            Wide ResNet-38                                      ASDT
``lite0``            EfficientNet-Lite0                                  photographs on two cores
``lite0_vit``        Lite0, frozen, then six transformer blocks          photographs on two cores
``timm:NAME``        see `wsss_lab.models.timm_nets`
===================  ==================================================  ==========================
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from wsss_lab.models.base import Backbone, WeightStd
from wsss_lab.models.onednn import multiply_by_onednn
from wsss_lab.models.pyramid import ConvBackbone, MiTBackbone
from wsss_lab.models.timm_nets import PREFIX, timm_backbone
from wsss_lab.models.vit import PosEmbedMode, ViTBackbone
from wsss_lab.registry import Registry


def _vit(
    name: str,
    architecture: str,
    levels: tuple[int, ...] = (),
    final_norm: bool = True,
    pos_mode: PosEmbedMode = "bicubic",
    train_pos_embed: bool = True,
    **net_options: Any,
) -> ViTBackbone:
    import timm

    net = timm.create_model(architecture, num_classes=0, **net_options)
    return ViTBackbone(
        name,
        net,
        16,
        levels=levels,
        final_norm=final_norm,
        pos_mode=pos_mode,
        train_pos_embed=train_pos_embed,
    )


def r50_vit_b16(
    levels: tuple[int, ...] = (),
    final_norm: bool = True,
    pos_mode: PosEmbedMode = "bilinear",
    train_pos_embed: bool = True,
    weight_std: WeightStd = "timm",
    **net_options: Any,
) -> ViTBackbone:
    """The hybrid of ACR.

    ACR's own arithmetic is ``final_norm=False, pos_mode="bilinear", weight_std="added_eps"``.

    Args:
        levels: see `ViTBackbone`.
        final_norm: see `ViTBackbone`.
        pos_mode: see `ViTBackbone`.
        train_pos_embed: see `ViTBackbone`.
        weight_std: see `hybrid_transformer`.
        **net_options: further arguments of `hybrid_transformer`.
    """
    from wsss_lab.models.hybrid import hybrid_transformer

    net = hybrid_transformer(weight_std=weight_std, **net_options)
    return ViTBackbone(
        "r50_vit_b16",
        net,
        16,
        levels=levels,
        final_norm=final_norm,
        pos_mode=pos_mode,
        train_pos_embed=train_pos_embed,
    )


def _mit(
    name: str, architecture: str, last_stride: int = 1, drop_path: float = 0.1, **net_options: Any
) -> MiTBackbone:
    import timm

    options: dict[str, Any] = {
        "mlp_ratios": (4, 4, 4, 4),
        "drop_path_rate": drop_path,
    } | net_options
    net = timm.create_model(architecture, num_classes=0, **options)
    return MiTBackbone(name, net, (4, 2, 2, last_stride))


def _resnet(name: str, output_stride: int = 8, **net_options: Any) -> ConvBackbone:
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    import timm

    net: Any = timm.create_model(name, num_classes=0, output_stride=output_stride, **net_options)
    stages = [f"layer{i}" for i in (1, 2, 3, 4)]
    info = {entry["module"]: entry for entry in net.feature_info}
    return ConvBackbone(
        name,
        net,
        ["conv1", "bn1", "act1", "maxpool"],
        stages,
        tuple(info[stage]["num_chs"] for stage in stages),
        tuple(info[stage]["reduction"] for stage in stages),
    )


_OWN: dict[str, Callable[..., Backbone] | str] = {
    "toy_cnn": "wsss_lab.models.toynets:toy_cnn",
    "toy_mit": "wsss_lab.models.toynets:toy_mit",
    "toy_vit": "wsss_lab.models.toynets:toy_vit",
    "toy_mit2": "wsss_lab.models.toynets:toy_mit2",
    "toy_vit2": "wsss_lab.models.toynets:toy_vit2",
    "vit_b16": partial(_vit, "vit_b16", "vit_base_patch16_224"),
    "deit_s": partial(_vit, "deit_s", "deit_small_patch16_224"),
    "deit_b": partial(_vit, "deit_b", "deit_base_patch16_224"),
    "r50_vit_b16": r50_vit_b16,
    **{f"mit_b{i}": partial(_mit, f"mit_b{i}", f"pvt_v2_b{i}") for i in range(6)},
    **{f"resnet{n}": partial(_resnet, f"resnet{n}") for n in (18, 34, 50, 101)},
    "wrn38": "wsss_lab.models.wrn38:WRN38Backbone",
    "lite0": "wsss_lab.models.lite0:Lite0Backbone",
    "lite0_vit": "wsss_lab.models.lite0_vit:Lite0ViTBackbone",
}
BACKBONES: Registry[Callable[..., Backbone]] = Registry(
    "backbone", "wsss_lab.backbones", also="timm:NAME"
)
"""Name -> builder. The builder's arguments are the options of `build_backbone`."""
for _name, _builder in _OWN.items():
    BACKBONES.register(_name, _builder)
BACKBONES.close()


def register_backbone(name: str, builder: Callable[..., Backbone]) -> None:
    """Make a backbone known to every command and preset.

    Args:
        name: value of the settings `backbone`; must be free.
        builder: returns it with random weights; its arguments are the options of `build_backbone`.

    Raises:
        ValueError: this package has a backbone of that name.
    """
    BACKBONES.register(name, builder)


def build_backbone(name: str, **options: Any) -> Backbone:
    """Build a backbone with random weights.

    Options by family (anything else goes to the timm network itself):

    - ``vit_b16``, ``deit_*``, ``r50_vit_b16``: ``levels``, ``final_norm``, ``pos_mode``,
      ``train_pos_embed`` of `ViTBackbone`; the hybrid also ``weight_std``.
    - ``mit_b*``: ``last_stride`` 1 (AFA, TSCD) or 2 (SegFormer); ``drop_path``, largest rate of
      stochastic depth, 0.1 in the original.
    - ``resnet*``: ``output_stride`` 8, 16 or 32.
    - ``wrn38``: ``width_factor``, ``freeze_norm`` of `WRN38Backbone`.
    - ``lite0``, ``lite0_vit``: see `Lite0Backbone` and `Lite0ViTBackbone`.
    - ``timm:NAME``: see `TimmBackbone`.
    - ``toy_*``: see `wsss_lab.models.toynets`.

    Args:
        name: a key of `BACKBONES`, or ``timm:`` and the name of a network of timm.
        **options: see above.

    Returns:
        The backbone; load weights with `wsss_lab.models.weights.load_backbone_weights`.

    Raises:
        ValueError: unknown name, or an option that this backbone does not have.
    """
    if name.startswith(PREFIX):
        return multiply_by_onednn(timm_backbone(name, **options))
    builder = BACKBONES.find(name)
    try:
        return multiply_by_onednn(builder(**options))
    except TypeError as error:
        raise ValueError(f"options {sorted(options)} do not all fit {name}: {error}") from error
