"""Checkpoints of other codes: recognised by their keys, and loaded strictly to prove it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from wsss_lab.models.weights import load_strictly

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Contents:
    """Contents of a checkpoint."""

    kind: str
    """Whose naming it follows."""
    network: str
    """Backbone or method into which it was loaded, strictly."""
    classes: int | None = None
    """Foreground classes, where there is a classifier."""
    details: dict[str, Any] = field(default_factory=dict)
    """Further facts."""


@dataclass(frozen=True)
class CheckpointKind:
    """Checkpoints of one code: their keys, and how one is examined."""

    prefixes: tuple[str, ...]
    """Some key of a checkpoint starts with each of these."""
    examine: Callable[[State], Contents]
    """Load the tensors strictly into networks of their shapes, which may be without storage; raise
    ValueError if they do not fit."""

    def matches(self, state: State) -> bool:
        """Whether the keys are those of such a checkpoint."""
        return all(any(key.startswith(prefix) for key in state) for prefix in self.prefixes)


def fit_parts(modules: Mapping[str, nn.Module], parts: Mapping[str, State], kind: str) -> None:
    """Load every part of a checkpoint into its module, strictly.

    Args:
        modules: by name of the part; may be on the device "meta".
        parts: tensors by part, see `wsss_lab.models.keymaps.split_checkpoint`.
        kind: of the checkpoint, for messages.

    Raises:
        ValueError: a part is missing, left over, or does not fit.
    """
    if missing := sorted(set(modules) ^ set(parts)):
        raise ValueError(f"{kind}: the file lacks, or has too many of, the parts {missing}")
    for name, module in modules.items():
        load_strictly(module, parts[name], what=f"{kind}, part {name}", widen=True)


def rows_of(parts: Mapping[str, State], part: str, key: str) -> int:
    """Return the number of rows of a tensor: the classes or channels that it makes.

    Raises:
        ValueError: the checkpoint lacks it.
    """
    if key not in parts.get(part, {}):
        raise ValueError(f"the file lacks {key} of its {part}")
    return parts[part][key].shape[0]


def vit_side(state: State, key: str = "net.pos_embed", patch: int = 16) -> int:
    """Return the side of the images for which a transformer has positions, px.

    Args:
        state: its tensors by name.
        key: name of the position embeddings, of shape (1, 1 + positions, width).
        patch: side of a patch, px.

    Raises:
        ValueError: there are no position embeddings.
    """
    if key not in state:
        raise ValueError(f"the file lacks the position embeddings {key}")
    return patch * round((state[key].shape[1] - 1) ** 0.5)


def mit_name(state: State, prefix: str = "") -> str:
    """Find which of mit_b0..b5 a state is, by width and number of blocks of the third stage.

    Args:
        state: tensors by official names.
        prefix: in front of the names.

    Raises:
        ValueError: the first tensor is missing, or there is no MiT of these sizes.
    """
    first = f"{prefix}patch_embed1.proj.weight"
    if first not in state:
        raise ValueError(f"the file lacks {first}")
    width = state[first].shape[0]
    pattern = re.compile(rf"{re.escape(prefix)}block3\.(\d+)\.")
    depth = 1 + max((int(m[1]) for k in state if (m := pattern.match(k))), default=0)
    known = {(32, 2): 0, (64, 2): 1, (64, 6): 2, (64, 18): 3, (64, 27): 4, (64, 40): 5}
    if (width, depth) not in known:
        raise ValueError(f"no MiT has a width of {width} and {depth} blocks in its third stage")
    return f"mit_b{known[width, depth]}"
