"""Weights files of runs: safetensors with what is needed to build the network again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsss_lab.config import write_atomically
from wsss_lab.models.state import read_file, require_finite
from wsss_lab.runs.settings import plain

METADATA = "wsss_lab"
"""Key of a weights file's metadata. One key: the order of several is not fixed, and equal runs are
to give equal files."""


def save_weights(
    path: Path,
    module: nn.Module,
    facts: Mapping[str, Any],
    announce: Callable[[str], None] | None = None,
) -> None:
    """Write a network as safetensors, with what is needed to build it again.

    Args:
        path: target; equal weights and facts give equal bytes.
        module: its state is written.
        facts: plain values: method, part, classes, config; go into the file's metadata, with
            the SHA-256 of the tensors.
        announce: called with the SHA-256 of the file before it is written.

    Raises:
        OutputError: it cannot be written.
        FloatingPointError: a weight is not finite.
    """
    state = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    require_finite(state, f"weights for {path}")
    text = json.dumps(plain(facts) | {"sha256": tensors_digest(state)}, sort_keys=True)
    data = safetensors.torch.save(state, {METADATA: text})
    if announce is not None:
        announce(hashlib.sha256(data).hexdigest())
    write_atomically(path, lambda file: file.write(data))


def tensors_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of tensors by name: names, kinds, shapes and bytes."""
    found = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def require_sound(path: Path, facts: Mapping[str, Any] | None, state: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not those the file was written with; older files carry no hash.

    Raises:
        ValueError: they have changed.
    """
    noted = (facts or {}).get("sha256")
    if noted is not None and noted != tensors_digest(state):
        raise ValueError(
            f"{path}: damaged (its tensors do not have the hash it was written with); copy it "
            "again, or delete it and resume the run"
        )


def read_facts(path: Path) -> dict[str, Any] | None:
    """Read the description in a weights file of this library; None for other files."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        facts = json.loads(metadata[METADATA])
    except (KeyError, ValueError, OSError, RecursionError, safetensors.SafetensorError):
        return None
    return facts if isinstance(facts, dict) else None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a weights file that `save_weights` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        state = read_file(path)
    except ValueError as error:
        raise ValueError(f"{error}; delete it and resume the run") from error
    require_sound(path, read_facts(path), state)
    return state
