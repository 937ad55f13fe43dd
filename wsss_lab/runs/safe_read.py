"""Read a weights file of any origin without running anything that is stored in it.

Files are read with `torch.load(weights_only=True)`. Checkpoints of the papers' codes also hold
settings (an `argparse.Namespace`, paths, NumPy numbers); the few harmless classes in `RECORDS` are
read as inert records, and anything else is refused.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from wsss_lab.config import shortened
from wsss_lab.models.state import named_tensors, read_file

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
    content = read_file(path, [(Record, name) for name in RECORDS])
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected tensors by name")
    for wrapper in ("", *WRAPPERS):
        inner = content if not wrapper else content.get(wrapper)
        try:
            state = named_tensors(inner)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if state is not None:
            rest = {str(k): v for k, v in content.items() if wrapper and k != wrapper}
            return state, rest | ({"wrapper": wrapper} if wrapper else {})
    keys = ", ".join(shortened(key, 40) for key in list(content)[:5])
    raise ValueError(f"{path}: no tensors by name; its keys are {keys or 'none'}")
