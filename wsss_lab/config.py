"""Run settings as frozen dataclasses, provenance of results, and atomic writes."""

import contextlib
import dataclasses
import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from wsss_lab.ranges import Batch, Count, Factor, Range, Seed, Settings, Share, Whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB in [0, 1]. All four released codes use it, also with weights trained for 0.5."""
IMAGENET_STD = (0.229, 0.224, 0.225)
"""RGB in [0, 1]."""


@dataclasses.dataclass(frozen=True)
class OptimConfig(Settings):
    """Optimiser, learning rate schedule and gradient clipping.

    The defaults are a sane recipe for small networks. Those of the released codes, oddities
    included, are in each method's `config`, e.g. `wsss_lab.methods.cosa.config.OPTIM`.
    """

    name: Literal["adamw", "sgd"] = "adamw"
    """AdamW decays weights separately from the gradient; SGD adds the decay to the gradient."""
    lr: Annotated[float, Range("[0, 1e6]")] = 1e-3
    """Peak learning rate of the body."""
    head_lr_factor: Factor = 3.0
    """Learning rate of freshly made heads, as a multiple of `lr`."""
    weight_decay: Factor = 0.05
    """Decay of matrices and filters; a method's `param_groups` exempts others."""
    betas: Annotated[tuple[float, float], Range("[0, 1)")] = (0.9, 0.999)
    """Decay rates of AdamW's two running averages."""
    momentum: Annotated[float, Range("[0, 1)")] = 0.9
    """SGD's momentum."""
    schedule: Literal["cosine", "poly", "constant"] = "cosine"
    """Schedule after the warm-up: half a cosine to zero, (1 - t/T)^power, or constant."""
    power: Factor = 0.9
    """Exponent of `poly`."""
    warmup: Factor = 0.08
    """Linear rise at the start: below 1 a share of the steps, from 1 a number of steps."""
    warmup_start: Share | None = None
    """Factor on `lr` at step 0, from which the rise would reach 1 at step W. None: W equal rises,
    1/W at step 0 and 1 at step W-1. TSCD and CoSA: 1e-6 (released codes)."""
    decay_from: Literal["warmup", "start"] = "warmup"
    """Step 0 of `poly` and `cosine`. "start" makes the rate drop when the warm-up ends, as in the
    released codes of TSCD and CoSA."""
    decay_steps: Whole = 0
    """T of the schedule; 0 takes the run's steps. ACR and ASDT (released codes) train one step
    more than T. Steps from T on keep the last rate."""
    clip: Factor = 2.0
    """Largest gradient norm; 0 does not clip. None of the four released codes clips."""


@dataclasses.dataclass(frozen=True)
class RunConfig(Settings):
    """Length, devices, precision and checkpoints of a training run."""

    steps: Count = 500
    """Optimiser steps."""
    batch: Batch = 32
    """Images per step, over all devices and all accumulated parts."""
    accumulate: Batch = 1
    """Parts into which every device cuts its share of the batch to save memory."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic, by Fabric's name. bf16 on a CPU is fast only with AVX512-BF16 or AMX; 16-mixed
    needs a GPU."""
    seed: Seed = 0
    """Seed of head initialisation, data order and augmentation."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """auto: a GPU if there is one."""
    devices: Count = 1
    """Processes per machine, one GPU (or, with `accelerator="cpu"`, one CPU process) each."""
    nodes: Count = 1
    """Machines."""
    workers: Annotated[int, Range("[0, 4096]")] = 0
    """Processes per device that load data; 0 loads in the training process."""
    log_every: Whole = 50
    """Steps between log lines; 0 for none."""
    save_every: Whole = 500
    """Steps between checkpoints, where the run has a folder; 0 saves at the end only."""
    keep: Count = 2
    """Checkpoints kept; with 2 or more, a damaged newest one can be replaced by its predecessor."""
    nonfinite: Literal["stop", "skip"] = "stop"
    """Reaction to a loss or gradient that is not finite: an error, or the next step. The bad step
    never changes the weights."""
    tensorboard: bool = False
    """Also log for TensorBoard, into the run's folder."""
    progress: bool = False
    """Show a progress bar where the output is no terminal, too; in a terminal there is one (off:
    TQDM_DISABLE=1 in the environment)."""


def git_revision() -> str:
    """Return the commit of the imported checkout, with `+` if it has changes, or `unknown`."""
    here = Path(__file__).parent
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        changes = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return sha + ("+" if changes else "")


def cpu_model() -> str:
    """Return the name of the processor and the machine's number of logical cores."""
    names = []
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or 'unknown'}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results."""
    names = ("torch", "torchvision", "timm", "numpy", "wsss-lab")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance(config: Any, *, seed: int, device: str, **facts: Any) -> dict[str, Any]:
    """Collect the facts about a run that `metrics.json` records besides the numbers.

    Args:
        config: a dataclass or mapping with the settings of the run.
        seed: seed of the run.
        device: `cpu`, or the name of the accelerator.
        **facts: further entries, e.g. `weights="toy_cnn"`.
    """
    settings = dataclasses.asdict(config) if dataclasses.is_dataclass(config) else config  # type: ignore[arg-type]
    return {
        "config": settings,
        "seed": seed,
        "device": device,
        "cpu": cpu_model(),
        "git": git_revision(),
        "versions": versions(),
        **facts,
    }


class OutputError(RuntimeError):
    """Error of a failed write; an earlier file is untouched."""


def write_atomically(path: Path | str, write: Callable[[BinaryIO], Any]) -> None:
    """Write a file atomically, so that a crash at any moment leaves the old or the new one.

    The bytes go to a temporary file in the same folder (`.NAME.PID.tmp`), are synced to disk, and
    only then get the name. Only SIGKILL or a power cut can leave the temporary file behind.

    Args:
        path: the file; its folder is created.
        write: writes the content into an open binary file.

    Raises:
        OutputError: no space, no permission, no such folder; the message has path and reason.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:  # Ctrl-C and SIGTERM leave nothing behind either
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError | RuntimeError):  # torch.save wraps a full disk as the latter
            raise output_error(path, error) from error
        raise


def is_full(error: Exception, path: Path) -> bool:
    """Return whether a write failed because there is no room on the disk or in the quota.

    Args:
        error: what the write raised; torch's own errors carry no number, so the disk is asked.
        path: the file.
    """
    number = getattr(error, "errno", None)
    if number is not None:
        return number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    with contextlib.suppress(OSError):
        return isinstance(error, RuntimeError) and shutil.disk_usage(path.parent).free < 1 << 16
    return False


def output_error(path: Path, error: Exception) -> OutputError:
    """Make the error of a failed write, with path and reason; a full disk is named as such."""
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    if is_full(error, path):
        reason = f"disk full: {reason}"
    return OutputError(
        f"{path}: cannot be written ({reason}); what was there before is untouched. Free "
        "some space or choose another folder, then start again"
    )


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; only POSIX can open a folder for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text_atomically(path: Path | str, text: str) -> None:
    """Write text as UTF-8, atomically, creating the folder.

    Raises:
        OutputError: if that is not possible.
    """
    write_atomically(path, lambda file: file.write(text.encode()))


def write_json(path: Path | str, content: dict[str, Any]) -> None:
    """Write JSON with sorted keys and a final newline, atomically, creating the folder.

    Raises:
        OutputError: if that is not possible.
    """
    write_text_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Args:
        path: the file.
        remedy: end of the message.

    Raises:
        ValueError: no JSON, too deep, or no object; the message has path and remedy.
        OSError: it cannot be opened.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path}: damaged ({reason}); {remedy}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: damaged (expected an object, got {shortened(content)}); {remedy}"
        )
    return content


def shortened(value: Any, length: int = 60) -> str:
    """Show a value that a file holds, in at most so many characters of one printable line."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep; a whole number of too many digits
        return f"a {type(value).__name__}"
    return text if len(text) <= length else f"{text[: length - 3]}..."
