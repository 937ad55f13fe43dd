"""State dicts: read without executing anything, loaded only if every tensor fits and is finite."""

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

WIDENED = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
"""Types of numbers that another one holds without loss."""
COUNTER = "num_batches_tracked"
"""Ending of the counters of batch normalisation."""
SHOWN = 5
"""Names in a message, at most."""


def widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return half-precision numbers as float32, which loses nothing; others stay as they are."""
    return {key: value.to(WIDENED.get(value.dtype, value.dtype)) for key, value in state.items()}


def read_file(path: Path, records: Sequence[Any] = ()) -> Any:
    """Read a file of tensors without executing anything stored in it.

    Args:
        path: `.safetensors`, or a file that `torch.save` wrote.
        records: harmless classes that may be in it, as for `torch.serialization.safe_globals`.

    Raises:
        ValueError: it is damaged, or asks for code; the message has the path and a remedy.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(records)):
            warnings.simplefilter("ignore")  # about the pickle's age; what matters is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        text = str(error)
        if found := _CODE.search(text):
            raise ValueError(
                f"{path}: not safe to load, it holds pickled Python objects and asks for "
                f"{(found[1] or 'code').rstrip('.,')}; re-save its tensors alone where you trust it"
            ) from error
        size = path.stat().st_size if path.is_file() else 0
        said = text.rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
        raise ValueError(
            f"cannot read {path} ({size} bytes): it is truncated or not a weights file, download "
            f"it again and compare the size ({' '.join(said.partition(chr(10))[0].split())[:120]})"
        ) from error


_CODE = re.compile(
    r"[Uu]nsupported (?:global: |class |type )?GLOBAL (\S+)|blocklisted|is blocked|disallowed|"
    r"[Cc]an only (?:build|call|create)|Trying to (?:call|instantiate)"
)
"""PyTorch's words for a file that asks for something else than tensors."""


def named_tensors(content: Any) -> dict[str, Tensor] | None:
    """Tensors by name, without a leading "module."; None if a file's content is something else.

    Raises:
        ValueError: they are tensors, but without values here (meta) or not dense.
    """
    if not isinstance(content, Mapping) or not content:
        return None
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return None
    for name, value in content.items():
        if value.is_meta or value.layout is not torch.strided or value.is_quantized:
            kind = "has no values" if value.is_meta else "is not dense"
            raise ValueError(f"the tensor {name} {kind}: save a plain state dict on the CPU")
    return {name.removeprefix("module."): value for name, value in content.items()}


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
    state = read_file(file)
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    try:
        tensors = named_tensors(state)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    if tensors is None:
        raise ValueError(f"{file} holds no state dict (a dictionary of tensors by name)")
    return tensors


def not_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold a NaN or an infinity; waits for the device once."""
    floats = {k: v for k, v in state.items() if v.is_floating_point() and not v.is_meta}
    if not floats:
        return []
    device = next(iter(floats.values())).device
    sound = [torch.isfinite(value.detach()).all().to(device) for value in floats.values()]
    flags = torch.stack(sound).tolist()
    return [name for name, fine in zip(floats, flags, strict=True) if not fine]


def require_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Refuse weights that hold a NaN or an infinity, before they are saved or scored.

    Raises:
        FloatingPointError: names the tensors.
    """
    if broken := not_finite(state):
        raise FloatingPointError(
            f"{what}: {len(broken)} of {len(state)} tensors are not finite ({shown(broken)}); "
            "lower the learning rate, or use another seed or arithmetic"
        )


def shown(names: Iterable[str]) -> str:
    """The first names of a list."""
    names = list(names)
    return "; ".join(names[:SHOWN]) + ("; ..." if len(names) > SHOWN else "")


def load_strictly(
    module: nn.Module, state: Mapping[str, Tensor], what: str, *, widen: bool = False
) -> None:
    """`load_state_dict` that reports every kind of misfit at once.

    Counters of batch normalisation may be absent, because older checkpoints have none, and of any
    type, because no result depends on them.

    Args:
        module: receives the tensors; untouched if anything does not fit.
        state: tensors by name.
        what: name of the source, for the message.
        widen: take half-precision numbers where the module has float32, which loses nothing; no
            other conversion is ever made.

    Raises:
        ValueError: keys are missing or unexpected, shapes or types of numbers differ, or a value is
            not finite.
    """
    own = module.state_dict()
    both = {k: v for k, v in state.items() if k in own}
    found = {
        "missing": [k for k in own if k not in state and not k.endswith(COUNTER)],
        "unexpected": [k for k in state if k not in own],
        "of another shape": [
            f"{k} is {tuple(v.shape)}, needs {tuple(own[k].shape)}"
            for k, v in both.items()
            if v.shape != own[k].shape
        ],
        "of another type": [
            f"{k} is {_type(v)}, needs {_type(own[k])}"
            for k, v in both.items()
            if v.dtype != own[k].dtype
            and not (widen and WIDENED.get(v.dtype) == own[k].dtype)
            and not k.endswith(COUNTER)
        ],
        "not finite": not_finite(both),
    }
    problems = [f"{len(names)} {kind} ({shown(names)})" for kind, names in found.items() if names]
    if problems:
        raise ValueError(f"{what} does not fit {type(module).__name__}: {', '.join(problems)}")
    module.load_state_dict(dict(state), strict=False)


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
