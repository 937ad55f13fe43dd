"""The folder of a run: its files, and the rules for resuming it.

=====================  ============================================================================
``config.json``        method, settings, git revision and versions at the start; written first
``STAGE/``             checkpoints, `log.csv` and `stage.json` of each training stage
``model.safetensors``  the trained network, written when it is done
``plan.json``          what it was expected to take, if it was planned beforehand
``metrics.json``       scores with protocol and provenance, written last
=====================  ============================================================================
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from wsss_lab.config import (
    git_revision,
    output_error,
    read_json,
    shortened,
    versions,
    write_atomically,
    write_json,
)
from wsss_lab.data.class_names import require_same_classes
from wsss_lab.runs.contents import PLANS, discard_run, require_inputs_elsewhere
from wsss_lab.runs.settings import differences, plain
from wsss_lab.runs.stage_record import conditions_of
from wsss_lab.train.environment import arithmetic


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
        listed = [f for f in _entries(out) if not f.name.startswith(".") and f.name not in PLANS]
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
        used = {**conditions_of(self.path), "scores": [thread_counts()]}
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
        raise FileNotFoundError(
            f"{out} holds no run: there is no config.json in it; give the folder that "
            "`train --out` wrote"
        )
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


def device_name(device: torch.device) -> str:
    """Name of the accelerator a run used, or the kind of device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
