"""Names in released checkpoints -> names in this library.

A table is a list of (regular expression, new name). Every key of a checkpoint must match the first
part of exactly one row from its beginning to its end; a row whose new name is `None` drops the key
on purpose. A key that no row knows is an error: nothing is ever left out silently.

In the tables of whole methods a new name starts with the part it belongs to and a slash:
``backbone/net.blocks.0.norm1.weight``.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

StateDict = dict[str, Tensor]
NewName = str | Callable[[re.Match[str]], str] | None
Table = Sequence[tuple[str, NewName]]


def mit_rows(old: str, new: str) -> Table:
    """Rows from the official SegFormer encoder to timm's PVTv2, with prefixes of both names."""
    return [
        (rf"{old}patch_embed1\.(.+)", rf"{new}patch_embed.\1"),
        (
            rf"{old}patch_embed([2-4])\.(.+)",
            lambda m: f"{new}stages.{int(m[1]) - 1}.downsample.{m[2]}",
        ),
        (
            rf"{old}block([1-4])\.(\d+)\.mlp\.dwconv\.dwconv\.(.+)",
            lambda m: f"{new}stages.{int(m[1]) - 1}.blocks.{m[2]}.mlp.dwconv.{m[3]}",
        ),
        (
            rf"{old}block([1-4])\.(\d+)\.(?!mlp\.dwconv)(.+)",
            lambda m: f"{new}stages.{int(m[1]) - 1}.blocks.{m[2]}.{m[3]}",
        ),
        (rf"{old}norm([1-4])\.(.+)", lambda m: f"{new}stages.{int(m[1]) - 1}.norm.{m[2]}"),
    ]


_WRN_LAYERS = {
    "bn_branch2a": "norms.0",
    "conv_branch2a": "convs.0",
    "bn_branch2b1": "norms.1",
    "conv_branch2b1": "convs.1",
    "bn_branch2b2": "norms.2",
    "conv_branch2b2": "convs.2",
    "conv_branch1": "shortcut",
}


def wrn38_rows(new: str) -> Table:
    """Rows for Wide ResNet-38 as named in PSA, RRM and ASDT -> `wsss_lab.models.wrn38`.

    Args:
        new: prefix of the new names.
    """
    layers = "|".join(_WRN_LAYERS)
    return [
        (r"conv1a\.(.+)", rf"{new}stem.\1"),
        (r"bn7\.(.+)", rf"{new}norm.\1"),
        (
            rf"b([2-7])(?:_(\d+))?\.({layers})\.(.+)",
            lambda m: f"{new}stages.{int(m[1]) - 2}.{m[2] or 0}.{_WRN_LAYERS[m[3]]}.{m[4]}",
        ),
    ]


MIT: Table = [*mit_rows("", ""), (r"head\.(weight|bias)", None)]
"""Official ``mit_b*.pth`` -> timm's PVTv2."""

_HF_LAYERS = {
    "layer_norm_1": "norm1",
    "layer_norm_2": "norm2",
    "attention.self.query": "attn.q",
    "attention.self.key": "attn.k",
    "attention.self.value": "attn.v",
    "attention.self.sr": "attn.sr",
    "attention.self.layer_norm": "attn.norm",
    "attention.output.dense": "attn.proj",
    "mlp.dense1": "mlp.fc1",
    "mlp.dense2": "mlp.fc2",
    "mlp.dwconv.dwconv": "mlp.dwconv",
}
_HF = r"(?:segformer\.)?encoder\."
_HF_TABLE: Table = [
    (rf"{_HF}patch_embeddings\.0\.proj\.(.+)", r"patch_embed.proj.\1"),
    (rf"{_HF}patch_embeddings\.0\.layer_norm\.(.+)", r"patch_embed.norm.\1"),
    (rf"{_HF}patch_embeddings\.([1-3])\.proj\.(.+)", r"stages.\1.downsample.proj.\2"),
    (rf"{_HF}patch_embeddings\.([1-3])\.layer_norm\.(.+)", r"stages.\1.downsample.norm.\2"),
    (rf"{_HF}layer_norm\.(\d)\.(.+)", r"stages.\1.norm.\2"),
    (
        rf"{_HF}block\.(\d)\.(\d+)\.({'|'.join(map(re.escape, _HF_LAYERS))})\.(weight|bias)",
        lambda m: f"stages.{m[1]}.blocks.{m[2]}.{_HF_LAYERS[m[3]]}.{m[4]}",
    ),
    (r"classifier\.(weight|bias)", None),
]

WRN38: Table = [*wrn38_rows(""), (r"fc8\.weight", None)]
"""PSA's ``res38_cls.pth`` -> `WideResNet38`; its classifier is dropped."""


def rename(state: Mapping[str, Tensor], table: Table) -> StateDict:
    """Rename the keys of a state dict.

    Args:
        state: tensors by old name.
        table: rows of (regular expression, new name or `None` to drop).

    Returns:
        Tensors by new name.

    Raises:
        ValueError: a key matches no row, or two keys get the same new name.
    """
    renamed: StateDict = {}
    unknown = []
    for key, tensor in state.items():
        for pattern, new in table:
            match = re.fullmatch(pattern, key)
            if match is None:
                continue
            if new is not None:
                name = new(match) if callable(new) else match.expand(new)
                if name in renamed:
                    raise ValueError(f"two keys of the checkpoint become {name!r}; one is {key!r}")
                renamed[name] = tensor
            break
        else:
            unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(state)} keys are not known to this table, for example "
            f"{', '.join(unknown[:5])}: is this the checkpoint of another network?"
        )
    return renamed


def split_checkpoint(state: Mapping[str, Tensor], table: Table) -> dict[str, StateDict]:
    """Rename a method's whole checkpoint and sort it into the parts of the method.

    Classifiers stored as 1x1 convolutions become matrices for `TagHead`, and SegFormer's linear
    layers become 1x1 convolutions for `SegFormerHead`.

    Args:
        state: the released state dict.
        table: of the method, e.g. `wsss_lab.methods.acr.keymap.KEYMAP`.

    Returns:
        Part name -> state dict that the part loads strictly.

    Raises:
        ValueError: see `rename`.
    """
    parts: dict[str, StateDict] = {}
    for name, tensor in rename(state, table).items():
        part, _, key = name.partition("/")
        if key == "linear.weight":
            tensor = tensor.flatten(1)
        elif key.startswith("lateral.") and tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        parts.setdefault(part, {})[key] = tensor
    return parts


def mit_from_hub(state: Mapping[str, Tensor]) -> StateDict:
    """Translate a ``nvidia/mit-b*`` file of the Hugging Face hub to timm's PVTv2.

    Args:
        state: tensors named as by transformers 4 (``segformer.encoder.block.0.0...``), in which
            keys and values are separate layers.

    Returns:
        State dict of the timm network; keys and values joined in that order.

    Raises:
        ValueError: see `rename`; or a key projection without its value projection.
    """
    renamed = rename(state, _HF_TABLE)
    joined: StateDict = {}
    for name, tensor in renamed.items():
        if ".attn.v." in name:
            continue
        if ".attn.k." in name:
            value = name.replace(".attn.k.", ".attn.v.")
            if value not in renamed:
                raise ValueError(f"checkpoint has {name} but not {value}: the file is incomplete")
            joined[name.replace(".attn.k.", ".attn.kv.")] = torch.cat([tensor, renamed[value]])
        else:
            joined[name] = tensor
    return joined
