"""Whose checkpoint is this file? Judged by its keys, loaded strictly, never run.

How files are read is told in `wsss_lab.runs.safe_read`; its functions can be imported from here
too.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wsss_lab.methods.acr.keymap import KEYMAP as ACR_KEYMAP
from wsss_lab.methods.asdt import keymap as asdt_keymap
from wsss_lab.methods.cosa.keymap import KEYMAP as COSA_KEYMAP
from wsss_lab.methods.tscd import keymap as tscd_keymap
from wsss_lab.models import keymaps
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import DilatedHead, LargeFOV, SegFormerHead, TagHead
from wsss_lab.models.weights import load_strictly
from wsss_lab.runs.folder import read_facts
from wsss_lab.runs.recipe import RECIPES
from wsss_lab.runs.safe_read import Record, State, read_checkpoint

__all__ = ["Identity", "Record", "identify", "read_checkpoint", "released_by"]


@dataclass(frozen=True)
class Identity:
    """Kind, network and size of a weights file."""

    kind: str
    """Whose naming it follows."""
    network: str
    """Backbone or method that it was loaded into, strictly."""
    tensors: int
    parameters: int
    classes: int | None = None
    """Foreground classes, where there is a classifier."""
    details: dict[str, Any] = field(default_factory=dict)


def identify(path: Path) -> Identity:
    """Find out whose checkpoint a file is, and load it strictly to prove it.

    Args:
        path: a weights file, or the folder of a run that is done.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not safe to load, is of no known kind, or does not fit its kind.
    """
    path = path / "model.safetensors" if path.is_dir() else path
    facts = read_facts(path)
    state, rest = read_checkpoint(path)
    # shapes decide; only our own networks are also filled
    shapes = state if facts else {key: value.to("meta") for key, value in state.items()}
    try:
        found = _kind(path, state, facts, rest).load(shapes, facts, rest)
    except ValueError as error:
        raise ValueError(_about(path, error)) from error
    except Exception as error:  # tensors of wrong dimensions, edited descriptions: anything
        raise ValueError(misunderstood(path, error)) from error
    parameters = sum(value.numel() for value in state.values())
    settings = {k: _shown(v) for k, v in rest.items() if k not in ("optimizer", "optim", "rng")}
    details = found.pop("details", {}) | ({"beside": settings} if settings else {})
    return Identity(**found, tensors=len(state), parameters=parameters, details=details)


def misunderstood(path: Path, error: Exception) -> str:
    """A message on a file whose content led to an error that nobody foresaw."""
    reason = " ".join(str(error).partition("\n")[0].split())[:160]
    return (
        f"{path}: its tensors or its description cannot be understood ({type(error).__name__}: "
        f"{reason}); get or write the file again"
    )


def _about(path: Path, error: ValueError) -> str:
    """A message that names the file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _kind(path: Path, state: State, facts: Any, rest: Any) -> "Kind":
    for kind in KINDS:
        if kind.matches(state, facts, rest):
            return kind
    shown = ", ".join(list(state)[:3])
    raise ValueError(f"{path}: not a checkpoint that is known here; its keys begin {shown}")


def released_by(path: Path, state: State, rest: Mapping[str, Any]) -> str:
    """Which method's released code wrote a checkpoint, judged by its keys alone.

    Args:
        path: for messages.
        state: its tensors, see `read_checkpoint`.
        rest: what stands beside them.

    Returns:
        A key of `wsss_lab.runs.recipe.RECIPES`.

    Raises:
        ValueError: it is of none; says what it is.
    """
    kind = _kind(path, state, None, rest)
    if kind.method is None:
        what = identify(path)
        raise ValueError(
            f"{path} is of {what.kind} ({what.network}); expected the weights of a trained method, "
            "ours or released"
        )
    return kind.method


def _shown(value: Any) -> Any:
    """A short, plain picture of what stands beside the tensors."""
    if isinstance(value, Record):
        inner = {k: _shown(v) for k, v in vars(value).items() if k != "values"}
        return inner or [_shown(v) for v in value.values]
    if isinstance(value, str | int | float | bool | None):
        return value
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else str(value)


# --- one loader per kind: each builds the network from the shapes and loads it strictly ----------


def _fit(modules: dict[str, nn.Module], parts: Mapping[str, State], kind: str) -> None:
    if missing := sorted(set(modules) ^ set(parts)):
        raise ValueError(f"{kind}: the file lacks, or has too many of, the parts {missing}")
    for name, module in modules.items():
        load_strictly(module, parts[name], what=f"{kind}, part {name}", widen=True)


def _rows(parts: Mapping[str, State], part: str, key: str) -> int:
    if key not in parts.get(part, {}):
        raise ValueError(f"the file lacks {key} of its {part}")
    return parts[part][key].shape[0]


def _mit_name(state: Mapping[str, Tensor], prefix: str) -> str:
    """Which of mit_b0..b5, by width and number of blocks of the third stage."""
    width = next(v.shape[0] for k, v in state.items() if k == f"{prefix}patch_embed1.proj.weight")
    pattern = re.compile(rf"{re.escape(prefix)}block3\.(\d+)\.")
    depth = 1 + max((int(m[1]) for k in state if (m := pattern.match(k))), default=0)
    known = {(32, 2): 0, (64, 2): 1, (64, 6): 2, (64, 18): 3, (64, 27): 4, (64, 40): 5}
    if (width, depth) not in known:
        raise ValueError(f"no MiT has a width of {width} and {depth} blocks in its third stage")
    return f"mit_b{known[width, depth]}"


def _load_tscd(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    name = _mit_name(state, "encoder.")
    parts = keymaps.split_checkpoint(state, tscd_keymap.KEYMAP)
    classes = _rows(parts, "tag_head", "linear.weight")
    heads = parts["affinity_head"]["weight"].shape[1] if "affinity_head" in parts else 16
    with torch.device("meta"):
        backbone = build_backbone(name)
        hidden = _rows(parts, "seg_head", "fuse.weight")
        modules = {
            "backbone": backbone,
            "seg_head": SegFormerHead(backbone.widths, classes + 1, hidden),
            "tag_head": TagHead(backbone.width, classes, pool="gmp"),
            "affinity_head": nn.Conv2d(heads, 1, 1),
        }
    _fit(modules, parts, "TSCD or AFA")
    kind = "TSCD or AFA (one network, the same keys)"
    return {"kind": kind, "network": name, "classes": classes}


def _load_cosa(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    parts = keymaps.split_checkpoint(state, COSA_KEYMAP)
    classes = _rows(parts, "tag_head", "linear.weight")
    hidden = _rows(parts, "seg_head", "conv1.weight")
    with torch.device("meta"):
        backbone = build_backbone("vit_b16", img_size=_side(parts, 16))
        modules = {
            "backbone": backbone,
            "seg_head": LargeFOV(backbone.width, classes + 1, hidden),
            "tag_head": TagHead(backbone.width, classes, pool="gmp"),
            "aux_head": TagHead(backbone.width, classes, pool="gmp"),
        }
    _fit(modules, parts, "CoSA")
    return {"kind": "CoSA", "network": "vit_b16", "classes": classes}


def _side(parts: Mapping[str, State], patch: int) -> int:
    tokens = parts["backbone"]["net.pos_embed"].shape[1] - 1
    return patch * round(tokens**0.5)


def _load_acr(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    hybrid = any(".patch_embed.backbone." in key for key in state)
    parts = keymaps.split_checkpoint(state, ACR_KEYMAP)
    classes = _rows(parts, "tag_head", "linear.weight")
    name = "r50_vit_b16" if hybrid else "vit_b16"
    options = {} if hybrid else {"img_size": _side(parts, 16)}
    with torch.device("meta"):
        backbone = build_backbone(name, **options)
        modules = {"backbone": backbone, "tag_head": TagHead(backbone.width, classes, bias=True)}
    _fit(modules, parts, "ACR")
    named = name if hybrid else "vit_b16 or deit_b (one network, the same keys)"
    return {"kind": "ACR", "network": named, "classes": classes}


def _load_asdt(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    parts = keymaps.split_checkpoint(state, asdt_keymap.KEYMAP)
    classes = _rows(parts, "tag_head", "linear.weight")
    with torch.device("meta"):
        backbone = build_backbone("wrn38")
        modules = {
            "backbone": backbone,
            "tag_head": TagHead(backbone.width, classes),
            "seg_head": DilatedHead(backbone.width, _rows(parts, "seg_head", "conv2.bias")),
            "student_head": DilatedHead(backbone.width, _rows(parts, "student_head", "conv2.bias")),
        }
    _fit(modules, parts, "ASDT")
    return {"kind": "ASDT", "network": "wrn38", "classes": classes}


def _load_psa(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    with torch.device("meta"):
        net = build_backbone("wrn38").net
    load_strictly(net, keymaps.rename(state, keymaps.WRN38), what="PSA", widen=True)
    classes = state["fc8.weight"].shape[0] if "fc8.weight" in state else None
    return {"kind": "PSA, RRM (Wide ResNet-38)", "network": "wrn38", "classes": classes}


def _load_mit(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    name = _mit_name(state, "")
    with torch.device("meta"):
        net = build_backbone(name).net
    load_strictly(net, keymaps.rename(state, keymaps.MIT), what="SegFormer MiT", widen=True)
    return {"kind": "SegFormer MiT, official names", "network": name}


def _load_hub_mit(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    return {
        "kind": "SegFormer MiT, names of the Hugging Face hub",
        "network": _first_fit(keymaps.mit_from_hub(state), [f"mit_b{i}" for i in range(6)]),
    }


def _load_timm(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    bare = {k: v for k, v in state.items() if k.split(".")[0] not in ("head", "fc", "pre_logits")}
    if "cls_token" in bare:
        names = ["vit_b16", "deit_s", "r50_vit_b16"]
    elif "conv1.weight" in bare:
        names = [f"resnet{n}" for n in (18, 34, 50, 101)]
    else:
        names = [f"mit_b{i}" for i in range(6)]
    return {"kind": "timm", "network": _first_fit(bare, names)}


def _first_fit(state: State, names: list[str]) -> str:
    """The first backbone into which the tensors go strictly."""
    problems = []
    for name in names:
        options = {}
        if name in ("vit_b16", "deit_s") and "pos_embed" in state:
            options["img_size"] = 16 * round((state["pos_embed"].shape[1] - 1) ** 0.5)
        with torch.device("meta"):
            net = build_backbone(name, **options).net
        try:
            load_strictly(net, state, what=f"the file, as {name},", widen=True)
        except ValueError as error:
            problems.append(error)
        else:
            return name
    raise min(problems, key=_size_of_misfit)


def _size_of_misfit(error: ValueError) -> int:
    """How many tensors do not fit, from the message: the smallest is the network that was meant."""
    return sum(int(n) for n in re.findall(r"(\d+) (?:missing|unexpected|of another)", str(error)))


def _load_ours(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    recipe = RECIPES.get(str(facts.get("method")))
    if recipe is None:
        raise ValueError(
            f"the file is of method {facts.get('method')!r}, which this version does not have"
        )
    try:
        recipe.load_method(facts, state)
        network = f"{facts['part']} on {_backbone_of(facts)}"
    except (KeyError, TypeError) as error:
        raise ValueError(f"the file's description is incomplete ({error!r})") from error
    return {
        "kind": f"wsss_lab, {facts['method']}",
        "network": network,
        "classes": len(facts["classes"]) - 1,
        "details": {"started from": facts.get("weights")},
    }


def _backbone_of(facts: Mapping[str, Any]) -> str:
    """Where a network has settings of its own, the part's; else the method's."""
    config = facts["config"]
    if facts["part"] == "SegNetwork" and "mask_backbone" in config:
        return config["mask_backbone"]
    return config["backbone"] if "backbone" in config else config["method"]["backbone"]


def _load_our_checkpoint(state: State, facts: Any, rest: dict[str, Any]) -> dict[str, Any]:
    step = rest.get("step")
    for key in ("optimizer", "scaler", "rng", "config", "history"):
        rest.pop(key, None)
    return {
        "kind": "wsss_lab, checkpoint of a run in progress",
        "network": _toy_or_part(state),
        "details": {"method": rest.get("method"), "step": step},
    }


def _load_toy(state: State, facts: Any, rest: Any) -> dict[str, Any]:
    tagged = "head.linear.weight" in state
    return {
        "kind": "wsss_lab, tag classifier" if tagged else "wsss_lab, backbone",
        "network": _toy_or_part(state),
        "classes": state["head.linear.weight"].shape[0] if tagged else None,
    }


def _toy_or_part(state: State) -> str:
    """The backbone inside our own naming, loaded strictly."""
    for prefix in ("backbone.net.", "net.", ""):
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if inner:
            break
    toys = ["toy_cnn", "toy_mit", "toy_vit"]
    others = ["vit_b16", "deit_s", "r50_vit_b16", "wrn38"]
    others += [f"resnet{n}" for n in (18, 34, 50, 101)] + [f"mit_b{i}" for i in range(6)]
    return _first_fit(inner, toys + others)


Matches = Callable[[State, Any, Any], bool]
Loads = Callable[[State, Any, Any], dict[str, Any]]


def _has(*keys: str) -> Matches:
    """Whether some key starts with each of these."""
    return lambda state, facts, rest: all(
        any(name.startswith(key) for name in state) for key in keys
    )


@dataclass(frozen=True)
class Kind:
    """A kind of checkpoint."""

    matches: Matches
    """Whether a file's keys are of this kind."""
    load: Loads
    """Fill its network strictly and return a description."""
    method: str | None = None
    """The method whose released code writes it, a key of `METHODS`."""


KINDS: list[Kind] = [
    Kind(lambda state, facts, rest: facts is not None, _load_ours),
    Kind(
        lambda state, facts, rest: {"format", "method", "step"} <= rest.keys(), _load_our_checkpoint
    ),
    Kind(_has("encoder.patch_embed1.", "decoder.linear_c1."), _load_tscd, "tscd"),
    Kind(_has("encoder.blocks.", "decoder.conv6."), _load_cosa, "cosa"),
    Kind(_has("pretrained.model."), _load_acr, "acr"),
    Kind(_has("conv1a.", "fc8_seg_conv"), _load_asdt, "asdt"),
    Kind(_has("conv1a.", "b2."), _load_psa),
    Kind(_has("patch_embed1.", "block1."), _load_mit),
    Kind(_has("segformer.encoder."), _load_hub_mit),
    Kind(_has("encoder.patch_embeddings.0."), _load_hub_mit),
    Kind(_has("backbone.net."), _load_toy),
    Kind(_has("net."), _load_toy),
    Kind(_has("stem.", "stage1.", "stage2."), _load_toy),
    Kind(_has("cls_token", "patch_embed.", "blocks."), _load_timm),
    Kind(_has("conv1.", "layer1.", "layer4."), _load_timm),
    Kind(_has("patch_embed.", "stages."), _load_timm),
]
"""Most specific first."""
