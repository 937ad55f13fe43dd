"""Any image network of timm behind the `Backbone` interface: `build_backbone("timm:NAME")`.

timm's `forward_intermediates` gives the maps, `feature_info` their widths and strides, and
`pretrained_cfg` the mean and deviation of the input. Networks tried with random weights: see
`TRIED`. A network without `forward_intermediates`, or for images of one size only, is refused.
"""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from wsss_lab.models.base import Backbone, Features

PREFIX = "timm:"
TRIED = (
    "resnet10t",
    "mobilenetv3_small_050",
    "tf_efficientnet_lite0",
    "regnetx_002",
    "convnext_atto",
    "pvt_v2_b0",
    "mambaout_femto",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",
    "vit_small_patch14_dinov2",
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",
)
"""Names that a test builds and runs on images of several sizes, from 64 px a side."""
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})


def create_net(name: str, options: dict[str, Any]) -> Any:
    """Build a timm network that takes images of any size, without its classifier."""
    import timm

    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:5]
        raise ValueError(
            f"timm {timm.__version__} has no network {name!r}; near it: {', '.join(near) or 'none'}"
        )
    options = {"num_classes": 0} | options
    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    for any_size in (*_ANY_SIZE, {}) if fixed else ({},):
        try:
            net = timm.create_model(name, pretrained=False, **(any_size | options))
        except TypeError:
            continue
        if fixed and not any_size:
            raise ValueError(f"timm's {name} takes images of one size only: choose another network")
        return net
    raise ValueError(f"options {sorted(options)} do not all fit timm's {name}")


class TimmBackbone(Backbone):
    """A network of timm; its parameters keep timm's names under ``net.``.

    Convolutional and pyramid networks return all maps of `feature_info`; whether a map of stride s
    has ceil(h / s) or floor(h / s) rows is up to the network. Plain transformers (all
    maps of one stride) return the last, normalised map, its tokens, and the class token where there
    is one; register tokens are dropped. Attention can be recorded where timm's attention layers
    are of the usual kind, see `wsss_lab.models.attention`.

    Args:
        name: timm's name, without ``timm:``.
        levels: plain transformers only: blocks whose un-normalised output comes before the last
            map; negative numbers count from the end.
        **net_options: arguments of the timm network, such as ``output_stride=16``.

    Raises:
        ValueError: unknown name; a network for one size only, or without intermediate maps; an
            option or a level that it does not have.
    """

    def __init__(self, name: str, levels: tuple[int, ...] = (), **net_options: Any) -> None:
        net = create_net(name, net_options)
        info = list(getattr(net, "feature_info", None) or ())
        if not hasattr(net, "forward_intermediates") or not info:
            raise ValueError(f"timm's {name} offers no intermediate maps: choose another network")
        widths = tuple(int(entry["num_chs"]) for entry in info)
        strides = tuple(int(entry["reduction"]) for entry in info)
        plain = len(set(strides)) == 1 and hasattr(net, "num_prefix_tokens")
        if plain:
            depth = len(info)
            bad = [level for level in levels if not -depth <= level < depth]
            if bad:
                raise ValueError(f"levels must lie in [-{depth}, {depth - 1}], got {bad}")
            kept = len(levels) + 1
            widths, strides = widths[-1:] * kept, strides[-1:] * kept
        elif levels:
            raise ValueError(f"levels is for plain transformers; {name} returns all its maps")
        super().__init__(PREFIX + name, widths, strides, 32)
        self.net = net
        self.plain = plain
        self.levels = tuple(level % len(info) for level in levels)
        patch = getattr(getattr(net, "patch_embed", None), "patch_size", 1)
        patch = tuple(patch) if isinstance(patch, tuple | list) else (patch, patch)
        # patches that overlap are convolutions with padding, which take any size
        self.patch = patch if patch == strides[:1] * 2 else (1, 1)
        self.input_mean = tuple(net.pretrained_cfg["mean"])
        self.input_std = tuple(net.pretrained_cfg["std"])

    def features(self, image: Float[Tensor, "b 3 h w"]) -> Features:
        """Run the network on the image, cut at the lower right to a multiple of the patch size."""
        h, w = image.shape[2:]
        image = image[:, :, : h - h % self.patch[0], : w - w % self.patch[1]]
        if not self.plain:
            maps = self.net.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True)
            return Features(pyramid=list(maps))
        last = len(self.net.blocks) - 1
        x, maps = self.net.forward_intermediates(
            image, indices=sorted({*self.levels, last}), output_fmt="NCHW"
        )
        by_level = dict(zip(sorted({*self.levels, last}), maps, strict=True))
        tokens = x[:, self.net.num_prefix_tokens :]
        grid = tuple(by_level[last].shape[2:])
        final = tokens.transpose(1, 2).unflatten(2, grid)
        cls = x[:, 0] if getattr(self.net, "cls_token", None) is not None else None
        return Features([by_level[level] for level in self.levels] + [final], tokens, cls)


def timm_backbone(name: str, **options: Any) -> TimmBackbone:
    """Build ``timm:NAME``; see `TimmBackbone`."""
    return TimmBackbone(name.removeprefix(PREFIX), **options)


def without(state: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Leave out the tensors whose names start with one of the prefixes."""
    return {name: value for name, value in state.items() if not name.startswith(prefixes)}


def classifier_names(backbone: Backbone) -> tuple[str, ...]:
    """Prefixes of the classifier's tensors in timm's weights of a `timm:` backbone."""
    named = backbone.net.pretrained_cfg.get("classifier") or ()
    return tuple(f"{name}." for name in ((named,) if isinstance(named, str) else named))
