"""Read a weights file of any origin without running anything that is stored in it.

Files are read with `torch.load(weights_only=True)`. Checkpoints of the papers' codes also hold
settings (an `argparse.Namespace`, paths, NumPy numbers); the few harmless classes in `RECORDS` are
read as inert records, and anything else is refused.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

RECORDS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib._local.PosixPath",
    "pathlib.WindowsPath",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "_codecs.encode",
)
"""Classes in checkpoints that stand for settings or numbers, never for code."""
WRAPPERS = ("model", "state_dict", "net", "ema", "student", "teacher")
"""Keys under which checkpoints keep their tensors by name."""

State = dict[str, Tensor]


class Record:
    """Stand-in for an object stored in a file: names and values, no behaviour."""

    values: tuple[Any, ...] = ()

    def __init__(self, *values: Any):
        self.values = values

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.values = (*self.values, state)


def read_checkpoint(path: Path) -> tuple[State, dict[str, Any]]:
    """Tensors by name, and what else stands beside them.

    Args:
        path: `.safetensors`, or a file that `torch.save` wrote.

    Returns:
        The tensors without a leading "module."; and the rest of the outermost dictionary, with
        `wrapper`, the key the tensors were under.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, not safe to load, or without tensors by name.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}")
    content = _read(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected tensors by name")
    for wrapper in ("", *WRAPPERS):
        inner = content if not wrapper else content.get(wrapper)
        if isinstance(inner, Mapping) and inner and _all_tensors(inner):
            state = {str(k).removeprefix("module."): v for k, v in inner.items()}
            rest = {str(k): v for k, v in content.items() if wrapper and k != wrapper}
            return state, rest | ({"wrapper": wrapper} if wrapper else {})
    keys = ", ".join(map(str, list(content)[:5]))
    raise ValueError(f"{path}: no tensors by name; its keys are {keys or 'none'}")


def _all_tensors(values: Mapping[Any, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in values.values())


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        records: Any = [(Record, name) for name in RECORDS]
        with warnings.catch_warnings(), torch.serialization.safe_globals(records):
            warnings.simplefilter("ignore")  # about the pickle's age; what matters is an error
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        text = str(error)
        found = re.search(r"Unsupported global: GLOBAL (\S+)|blocklisted|disallowed", text)
        if found or ("weights_only" in text.lower() and "unsupported" in text.lower()):
            what = found[1] if found and found[1] else "code"
            raise ValueError(
                f"{path}: not safe to load, it asks for {what}; re-save its tensors alone where "
                "you trust it"
            ) from error
        reason = text.partition("\n")[0][:120]
        raise ValueError(f"{path}: truncated or no weights file ({reason})") from error
