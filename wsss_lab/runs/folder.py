"""The folder of a run: its files, rules for resuming it, and weights with their description.

=====================  ============================================================================
``config.json``        method, settings, git revision and versions at the start; written first
``STAGE/``             checkpoints, `log.csv` and `stage.json` of each training stage
``model.safetensors``  the trained network, written when it is done
``metrics.json``       scores with protocol and provenance, written last
=====================  ============================================================================
"""

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wsss_lab.config import (
    OutputError,
    git_revision,
    output_error,
    read_json,
    shortened,
    versions,
    write_atomically,
    write_json,
)
from wsss_lab.data.class_names import require_same_classes
from wsss_lab.models.state import read_file, require_finite
from wsss_lab.ranges import check, checks_later
from wsss_lab.runs.contents import discard_run, require_inputs_elsewhere
from wsss_lab.runs.settings import fitting
from wsss_lab.train.environment import arithmetic

FREE = ("accumulate", "accelerator", "devices", "nodes", "workers", "log_every", "save_every")
FREE_TO_CHANGE = frozenset({*FREE, "keep", "progress", "tensorboard", "root"})
"""Settings that a resumed run may change. They alter speed, not results; where devices, nodes or
accumulation do alter them, `fit` refuses (`wsss_lab.train.conditions`). `root`: data may move."""
METADATA = "wsss_lab"
"""Key of a weights file's metadata. One key: the order of several is not fixed, and equal runs are
to give equal files."""

T = TypeVar("T")


def plain(value: Any) -> Any:
    """Settings as JSON has them: lists for tuples, text for paths."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def restore(kind: type[T], values: Any, source: Path | str = "") -> T:
    """A settings dataclass from what `plain` made of it.

    Args:
        kind: the dataclass.
        values: its fields by name, as JSON has them.
        source: the file they come from, for messages.

    Raises:
        ValueError: a setting that `kind` does not have, of another type, or outside its range.
    """
    try:
        with checks_later():
            restored = _restored(kind, values, "")
        check(restored)
    except (ValueError, TypeError, RecursionError) as error:
        if not source:
            raise ValueError(str(error)) from error
        remedy = "correct it, or begin another run in a new folder"
        raise ValueError(f"{source}: {error}; {remedy}") from error
    return restored


def _restored(kind: type[T], values: Any, prefix: str) -> T:
    if not isinstance(values, Mapping):
        name = prefix.rstrip(".") or "config"
        raise ValueError(f"{name}: expected settings by name, got {shortened(values)}")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(f"{prefix}{name}" for name in set(values) - set(hints)):
        raise ValueError(
            f"{kind.__name__} has no settings {unknown[:5]}; another version wrote them"
        )
    return kind(
        **{name: _typed(hints[name], value, f"{prefix}{name}") for name, value in values.items()}
    )


def _typed(hint: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _restored(typing.cast(type, hint), value, f"{name}.")
    if isinstance(hint, type) and isinstance(value, Mapping) and hint.__subclasses__():
        return _restored(_kind_with(hint, value), value, f"{name}.")
    return fitting(hint, value, name)


def _kind_with(base: type, values: Mapping[str, Any]) -> type:
    """The one kind of `base`, for example of geometric view, that has these settings."""
    kinds: list[Any] = list(filter(dataclasses.is_dataclass, base.__subclasses__()))
    fits = [k for k in kinds if {f.name for f in dataclasses.fields(k)} == set(values)]
    if len(fits) != 1:
        raise ValueError(f"no kind of {base.__name__} has the settings {sorted(values)}")
    return fits[0]


def is_first_process() -> bool:
    """Whether this process was started by the user, not by another one for one more device."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


class RunFolder:
    """A run's folder, open for a run with these settings.

    Args:
        out: new, empty, or holding this run.
        method: name of the method.
        config: its settings.
        resume: go on with what is there.
        overwrite: replace a run that is there; its files go when this one begins.

    Raises:
        FileExistsError: the folder holds a run and `resume` is off, or something else.
        ValueError: the run in it is of another method or has other settings.
    """

    def __init__(self, out: Path, method: str, config: Any, resume: bool, overwrite: bool = False):
        self.path, self.method, self.config = out, method, config
        self.overwrite = overwrite
        self.started: dict[str, Any] | None = None
        if resume and overwrite:
            raise ValueError("overwrite: goes on with nothing; leave out --resume or --overwrite")
        if not is_first_process():
            return
        self.started = self._check(resume)

    def _check(self, resume: bool) -> dict[str, Any] | None:
        """Facts of the run that is there already, if one is; nothing is written yet."""
        out = self.path
        if out.exists() and not out.is_dir():
            raise FileExistsError(f"out: {out} is a file; choose a folder")
        listed = [f for f in _entries(out) if not f.name.startswith(".")]
        if not listed:
            return None
        if not (out / "config.json").is_file():
            raise FileExistsError(f"out: {out} has other content; choose a new or empty folder")
        if self.overwrite:
            read_run(out)  # a `config.json` of something else ends here
            require_inputs_elsewhere(self.config, out)
            return None
        if not resume:
            raise FileExistsError(
                f"out: {out} holds a run already; add --resume to go on with it, --overwrite to "
                "replace it, or choose another folder"
            )
        there = read_run(out)
        if there["method"] != self.method:
            raise ValueError(
                f"out: {out} holds a run of {there['method']}, this one is of {self.method}; "
                "choose another folder"
            )
        differing = differences(there["config"], plain(self.config))
        if differing:
            raise ValueError(
                f"out: {out} holds a run with other settings ({'; '.join(differing[:3])}); use "
                "its settings, or choose another folder"
            )
        return there

    def begin(self, classes: Sequence[str] = ()) -> dict[str, Any]:
        """Write `config.json` unless the run has one; returns its content.

        Args:
            classes: foreground classes of the training list, kept with the run; a run that goes on
                must have the same.

        Raises:
            DataError: the run was started with other classes.
            OutputError: nothing can be written there.
        """
        if self.started is None:
            self.started = {
                "method": self.method,
                "config": plain(self.config),
                "git": git_revision(),
                "versions": versions(),
                **({"classes": list(classes)} if classes else {}),
            }
            if changed := arithmetic():
                self.started["environment"] = changed
            if is_first_process():
                if self.overwrite:
                    discard_run(self.path)
                write_json(self.path / "config.json", self.started)
        elif is_first_process():
            if classes and "classes" not in self.started:  # begun before the lists were read
                self.started["classes"] = list(classes)
                write_json(self.path / "config.json", self.started)
            elif classes:
                owner = f"the run in {self.path}"
                remedy = "Restore the lists of the run, or choose another folder"
                require_same_classes(
                    self.started["classes"], classes, owner, "the training list", remedy
                )
            _require_writable(self.path)
        return self.started

    def write_metrics(self, results: Mapping[str, Any], **facts: Any) -> dict[str, Any]:
        """Write `metrics.json`: results and where they come from; git, versions of the start."""
        from wsss_lab.runs.stage_record import conditions_of

        used = {**conditions_of(self), "scores": [thread_counts()]}
        content = {**self.begin(), **facts, "used": used, "results": dict(results)}
        if is_first_process():
            write_json(self.path / "metrics.json", content)
        return content


def thread_counts() -> dict[str, int]:
    """Threads of torch on the CPU; their number may change the last bit of a sum."""
    return {
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
    }


def read_run(out: Path) -> dict[str, Any]:
    """Method, settings and provenance of the run in a folder.

    Raises:
        FileNotFoundError: no run there.
        ValueError: its `config.json` is damaged.
    """
    file = out / "config.json"
    if not file.is_file():
        raise FileNotFoundError(f"{out} holds no run: there is no config.json in it")
    content = read_json(file, remedy="choose another folder")
    for name, kind in {"method": str, "config": dict, "git": str, "versions": dict}.items():
        if not isinstance(content.get(name), kind):
            found = shortened(content[name]) if name in content else "none"
            raise ValueError(
                f"{file}: damaged (entry {name}: expected a {kind.__name__}, got {found}); choose "
                "another folder"
            )
    return content


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise output_error(folder, error) from error


def _require_writable(folder: Path) -> None:
    """Find out now, not after hours, whether results can be written."""
    write_atomically(folder / ".writable", lambda file: file.write(b"x" * 4096))
    try:
        (folder / ".writable").unlink()
    except OSError as error:
        raise output_error(folder, error) from error


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """List where two plain values differ, but for settings that are free to change."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return [
            line
            for key in dict.fromkeys((*one, *other))
            if key not in FREE_TO_CHANGE
            for line in differences(one.get(key), other.get(key), f"{name}.{key}".lstrip("."))
        ]
    return [] if one == other else [f"{name} is {one} there and {other} here"]


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


def device_name(device: torch.device) -> str:
    """Name of the accelerator a run used, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


__all__ = [
    "FREE_TO_CHANGE",
    "OutputError",
    "RunFolder",
    "device_name",
    "differences",
    "is_first_process",
    "plain",
    "read_facts",
    "read_run",
    "read_tensors",
    "restore",
    "save_weights",
]
