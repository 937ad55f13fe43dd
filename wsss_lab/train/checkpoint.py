"""Checkpoints from which a run goes on exactly: written whole or not at all, read with suspicion.

A checkpoint is one file, `checkpoints/step_00001000.pt`, for `torch.load(weights_only=True)`:

=============  =================================================================================
key            content
=============  =================================================================================
``format``     1
``method``     class name of the method
``step``       optimiser steps done, so also the next 0-based step
``model``      the method's `state_dict`: weights, and all its other state as buffers
``optimizer``  `state_dict` of the optimiser
``scaler``     state of the loss scaler (16-mixed), else empty
``rng``        per process: generators of torch, CUDA, numpy and Python
``config``     settings of run and optimiser
``history``    the logged steps so far
=============  =================================================================================

The learning rate and the batches are functions of the step and need no entry.
"""

import dataclasses
import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wsss_lab.config import OptimConfig, RunConfig, output_error, shortened, write_atomically
from wsss_lab.models.state import named_tensors, not_finite, shown

FORMAT = 1
SAME_RUN = ("steps", "batch", "seed", "precision")
"""Settings of a run, besides those of the optimiser, that a resumed run must share."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used: damaged, foreign, or of another run."""


def checkpoint_files(out: Path) -> list[Path]:
    """Checkpoints in a run's folder, oldest first; sound or not."""
    return sorted((out / "checkpoints").glob("step_*.pt"))


def save_checkpoint(out: Path, content: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint of `content["step"]` atomically, then drop all but the newest `keep`.

    Raises:
        OutputError: if it cannot be written; older checkpoints are untouched then.
    """
    path = out / "checkpoints" / f"step_{content['step']:08d}.pt"
    write_atomically(path, lambda file: torch.save(dict(content), file))
    for old in checkpoint_files(out)[:-keep]:
        old.unlink(missing_ok=True)
    return path


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint without running any code from it.

    Raises:
        CheckpointError: if the file is cut off, damaged or not a checkpoint of this library.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not look at the checksums
            damaged = archive.testzip()
        if damaged:
            raise CheckpointError(f"{path}: damaged ({damaged} has changed); delete it")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # what a damaged pickle raises is anyone's guess
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: cut off or not a checkpoint ({reason}); delete it"
        ) from error
    if not isinstance(content, dict) or not ENTRIES.keys() <= content.keys():
        raise CheckpointError(f"{path}: not a checkpoint of this library; move it elsewhere")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: expected checkpoint format {FORMAT}, got {shortened(content['format'])}; use "
            "the version of wsss_lab that wrote it"
        )
    _require_entries(path, content)
    return content


ENTRIES = {
    "format": int,
    "method": str,
    "step": int,
    "model": Mapping,
    "optimizer": Mapping,
    "scaler": Mapping,
    "rng": list,
    "config": Mapping,
    "history": list,
}
"""Entries of a checkpoint and their kinds."""


def _require_entries(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was edited, or whose weights are not finite."""
    wrong = [name for name, kind in ENTRIES.items() if not isinstance(content[name], kind)]
    parts = content["config"] if "config" not in wrong else {}
    wrong += [f"config.{p}" for p in ("run", "optim") if not isinstance(parts.get(p), Mapping)]
    if "step" not in wrong and content["step"] < 0:
        wrong.append("step")
    tensors = None if "model" in wrong else named_tensors(content["model"])
    if tensors is None:
        wrong.append("model")
    if wrong:
        raise CheckpointError(
            f"{path}: changed by hand or damaged ({', '.join(wrong)} is not as written); delete it"
        )
    if broken := not_finite(tensors or {}):
        raise CheckpointError(
            f"{path}: {len(broken)} of its tensors are not finite ({shown(broken)}); delete it"
        )


def newest_checkpoint(out: Path, log: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """The newest sound checkpoint of a run; damaged ones are passed over with a line in the log.

    Also removes what a killed write left behind.

    Raises:
        CheckpointError: if there are checkpoints but none is sound.
        OutputError: if a leftover cannot be removed.
    """
    for leftover in (*out.glob(".*.tmp"), *out.glob("checkpoints/.*.tmp")):
        try:
            leftover.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(leftover, error) from error
    problems = []
    for path in reversed(checkpoint_files(out)):
        try:
            return load_checkpoint(path)
        except CheckpointError as error:
            problems.append(str(error))
            if log:
                log(f"passed over {error}")
    if problems:
        raise CheckpointError(
            f"{out}: no sound checkpoint among {len(problems)}; delete them to start from scratch. "
            f"The newest: {problems[0]}"
        )
    return None


def describe_run(run: RunConfig, optim: OptimConfig) -> dict[str, Any]:
    """Settings as they stand in a checkpoint."""
    return {"run": dataclasses.asdict(run), "optim": dataclasses.asdict(optim)}


def require_same_run(
    content: Mapping[str, Any], method: nn.Module, run: RunConfig, optim: OptimConfig
) -> None:
    """Refuse a checkpoint of another method, other settings or other shapes, before touching any.

    Devices, accumulation, workers and how often to log and save may differ.

    Raises:
        CheckpointError: names what the checkpoint has and what is wanted.
    """
    name = type(method).__name__
    if content["method"] != name:
        raise CheckpointError(
            f"the checkpoint is of method {content['method']}, this run trains {name}; choose "
            "another folder"
        )
    saved, wanted = content["config"], describe_run(run, optim)
    keys = [("run", key) for key in SAME_RUN] + [("optim", key) for key in wanted["optim"]]
    others = [
        f"{key} was {saved[part].get(key)}, now {wanted[part][key]}"
        for part, key in keys
        if saved[part].get(key) != wanted[part][key]
    ]
    if others:
        raise CheckpointError(
            f"the checkpoint is of a run with other settings ({'; '.join(others)}); choose another "
            "folder or the same settings"
        )
    require_same_shapes(content["model"], method)


def require_same_shapes(state: Mapping[str, Tensor], method: nn.Module) -> None:
    """Refuse a state with missing, unknown or differently shaped entries.

    Raises:
        CheckpointError: lists the first differences.
    """
    own = {key: tuple(value.shape) for key, value in method.state_dict().items()}
    other = {key: tuple(value.shape) for key, value in state.items()}
    differences = [
        f"{key}: {other.get(key, 'missing')} in the checkpoint, {own.get(key, 'missing')} here"
        for key in sorted(own.keys() | other.keys())
        if own.get(key) != other.get(key)
    ]
    if differences:
        raise CheckpointError(
            f"the checkpoint does not fit {type(method).__name__} in {len(differences)} entries: "
            f"{'; '.join(differences[:3])}; build the same network, e.g. with as many classes"
        )


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every random generator a method may draw from."""
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    state = {
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Bring back what `random_state` saw."""
    torch.set_rng_state(state["torch"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Load an optimiser's state, but keep how this machine computes (`fused`, `foreach`).

    Raises:
        CheckpointError: if the parameter groups differ.
    """
    here = optimizer.state_dict()["param_groups"]
    there = saved["param_groups"]
    if [len(group["params"]) for group in here] != [len(group["params"]) for group in there]:
        raise CheckpointError("the checkpoint's optimiser has other parameter groups than this run")
    groups = [
        {**old, **{key: new[key] for key in ("fused", "foreach", "capturable") if key in new}}
        for old, new in zip(there, here, strict=True)
    ]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
