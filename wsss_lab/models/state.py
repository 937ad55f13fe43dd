"""State dicts: read without executing anything, loaded only if every tensor fits."""

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict without executing anything stored in the file.

    Args:
        path: ``.safetensors``, or a file written by `torch.save`. A state dict wrapped in a
            dictionary under ``state_dict`` or ``model`` is unwrapped, and the prefix ``module.`` of
            data-parallel training is removed.

    Returns:
        Tensors by name, on the CPU.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is truncated or damaged, contains pickled objects other than tensors,
            or holds no state dict.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"there is no weights file {file}: check the path; the packaged toy networks need no "
            "file ('toy')"
        )
    try:
        if file.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        hint = (
            "it holds pickled Python objects, which are not loaded for safety: re-save its tensors"
            if "weights_only" in str(error) and "Unsupported global" in str(error)
            else "it is truncated or not a weights file: download it again and compare the size"
        )
        raise ValueError(f"cannot read {file} ({file.stat().st_size} bytes): {hint}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(value, Tensor) for value in state.values())
    ):
        raise ValueError(f"{file} holds no state dict (a dictionary of tensors by name)")
    return {key.removeprefix("module."): value for key, value in state.items()}


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """`load_state_dict` that reports every kind of misfit at once.

    Counters of batch normalisation may be absent: older checkpoints have none.

    Args:
        module: receives the tensors; untouched if anything does not fit.
        state: tensors by name.
        what: name of the source, for the message.

    Raises:
        ValueError: keys are missing or unexpected, or shapes differ.
    """
    own = module.state_dict()
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in own]
    shapes = [
        f"{k} is {tuple(v.shape)}, needs {tuple(own[k].shape)}"
        for k, v in state.items()
        if k in own and v.shape != own[k].shape
    ]
    problems = [
        f"{len(found)} {kind} ({'; '.join(found[:5])}{'; ...' if len(found) > 5 else ''})"
        for kind, found in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if found
    ]
    if problems:
        raise ValueError(f"{what} does not fit {type(module).__name__}: {', '.join(problems)}")
    module.load_state_dict(dict(state), strict=False)
