"""Log of a run: one line of text, a row of log.csv, TensorBoard where it is on."""

import contextlib
import csv
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from wsss_lab.config import OutputError, RunConfig, output_error, write_atomically
from wsss_lab.progress import above_bars, open_bar, speed_text, time_left

History = list[dict[str, float]]
"""One entry per logged step: step, loss, its parts, lr_factor, images_per_s."""


class Journal:
    """Pass an entry every `log_every` steps to all listeners.

    Args:
        run: uses `steps`, `batch`, `tensorboard`, `progress`.
        peak_lr: learning rate that `lr_factor` multiplies, for the line of text.
        out: folder of log.csv; None writes nothing. Give it to the first process only.
        log: gets the line of text; None for silence.
        history: entries of the run so far; log.csv is made anew from them, so that a resumed run
            neither repeats nor lacks a row.

    Raises:
        OutputError: if log.csv cannot be written.
        ValueError: if TensorBoard is asked for but not installed.
    """

    def __init__(
        self,
        run: RunConfig,
        peak_lr: float,
        out: Path | None = None,
        log: Callable[[str], None] | None = None,
        history: History | None = None,
    ):
        self.run, self.peak_lr, self.log = run, peak_lr, log
        self.history: History = list(history or [])
        self.csv = out / "log.csv" if out else None
        self.columns: list[str] = []
        self._behind = False
        self._remarked: set[Path] = set()
        if self.csv:
            self._write_all()
        first = int(self.history[-1]["step"]) + 1 if self.history else 0
        self.board_folder = (out or Path()) / "tensorboard"
        self.board = _board(self.board_folder, first) if out and run.tensorboard else None
        self._clock, self._images = time.perf_counter(), 0

    def count(self, images: int) -> None:
        """Note that so many images have been trained on since the last entry."""
        self._images += images

    def enter(self, step: int, numbers: dict[str, float], factor: float) -> None:
        """Log a step.

        Args:
            step: 0-based.
            numbers: loss and its parts.
            factor: on the peak learning rate.
        """
        seconds = max(time.perf_counter() - self._clock, 1e-9)
        speed = self._images / seconds
        entry = {"step": step, **numbers, "lr_factor": factor, "images_per_s": speed}
        self.history.append(entry)
        if self.csv:
            with self._outlived(self.csv):
                self._write_row(entry)
                self._behind = False
        if self.board:
            with self._outlived(self.board_folder):
                for name, value in entry.items():
                    self.board.add_scalar(name, value, step)
        if self.log:
            self.log(line(entry, self.run, self.peak_lr))
        self._clock, self._images = time.perf_counter(), 0

    def close(self) -> None:
        """Hand the last numbers to TensorBoard, and rows that had no room to log.csv."""
        if self.board:
            with self._outlived(self.board_folder):
                self.board.close()
        if self.csv and self._behind:
            with self._outlived(self.csv):
                self._write_all()

    @contextlib.contextmanager
    def _outlived(self, path: Path) -> Iterator[None]:
        """Inside, a failing write costs a remark, not the run; rows follow once there is room."""
        try:
            yield
        except (OSError, OutputError) as error:
            if path not in self._remarked and self.log:
                self.log(
                    f"{error if isinstance(error, OutputError) else output_error(path, error)}"
                    "; training goes on"
                )
            self._remarked.add(path)
            self._behind = True

    def _write_all(self) -> None:
        self.columns = list(dict.fromkeys(name for entry in self.history for name in entry))
        text = io.StringIO()
        if self.columns:
            rows = csv.DictWriter(text, self.columns, lineterminator="\n")
            rows.writeheader()
            rows.writerows(self.history)
        write_atomically(self.csv, lambda file: file.write(text.getvalue().encode()))  # type: ignore[arg-type]

    def _write_row(self, entry: dict[str, float]) -> None:
        """Append; a new column, e.g. of a loss that starts later, makes the file anew."""
        if self._behind or not entry.keys() <= set(self.columns):
            self._write_all()
            return
        text = io.StringIO()
        csv.DictWriter(text, self.columns, lineterminator="\n").writerow(entry)
        try:
            with self.csv.open("a") as file:  # type: ignore[union-attr]
                file.write(text.getvalue())
        except OSError as error:
            raise output_error(self.csv, error) from error  # type: ignore[arg-type]


def steadfast(log: Callable[[str], None]) -> Callable[[str], None]:
    """Make a log that never ends a training: closed pipe, full disk, closed terminal.

    Args:
        log: gets lines; one that fails is not called again, and a remark goes to standard error.
    """
    if getattr(log, "steadfast", False):
        return log
    lost = False

    def written(line: str) -> None:
        nonlocal lost
        if lost:
            return
        try:
            with above_bars():
                log(line)
                if log is print:  # else an error would show at the end only
                    sys.stdout.flush()
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            if isinstance(error, ValueError) and "closed file" not in str(error):
                raise
            lost = True
            if log is print:
                _silence()
            with contextlib.suppress(OSError, ValueError, AttributeError):
                print(f"no more lines: {error}; the run goes on", file=sys.stderr, flush=True)

    written.steadfast = True  # type: ignore[attr-defined]
    return written


def _silence() -> None:
    """Lead standard output nowhere: what is in its buffer would fail again at the end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def read_log(path: Path) -> History:
    """The entries of a `log.csv`; an entry lacks what its step did not log.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged.
    """
    try:
        with path.open(newline="") as file:
            entries = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
        if not all("step" in entry for entry in entries):
            raise ValueError("a row without its step")
        return entries
    except (ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path}: no log of a training ({error}); delete it") from error


def line(entry: dict[str, float], run: RunConfig, peak_lr: float) -> str:
    """One entry as text: step, losses, learning rate, speed, time to go, memory."""
    known = {"step", "images_per_s", "lr_factor"}
    terms = [value for name, value in entry.items() if name not in known | {"loss"}]
    if terms == [entry.get("loss")]:  # the only term is the loss
        known |= set(entry) - {"loss"}
    parts = "  ".join(f"{name} {value:.4f}" for name, value in entry.items() if name not in known)
    speed, rate = entry["images_per_s"], entry["lr_factor"] * peak_lr
    left = time_left((run.steps - entry["step"] - 1) * run.batch, speed)
    return (
        f"step {int(entry['step']) + 1:>5}/{run.steps}  {parts}  lr {rate:.1e}"
        f"  {speed_text(speed)} images/s  {left} left  {memory():.1f} GB"
    )


def memory() -> float:
    """Largest memory so far in GB: of the GPU where there is one in use, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 1e9
    try:
        import resource  # not on Windows
    except ImportError:
        return float("nan")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / (1e9 if sys.platform == "darwin" else 1e6)


def _board(folder: Path, first: int) -> Any:
    """TensorBoard's writer; what it holds from step `first` on is of a killed run and goes."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            "tensorboard: asked for, but not installed; pip install tensorboard, or leave it out"
        ) from error
    return SummaryWriter(str(folder), purge_step=first)


def progress_bar(run: RunConfig, start: int, shown: bool) -> Any:
    """A progress bar from `start` to `run.steps`, or something that behaves like one unseen."""
    return open_bar(run.steps, start, "step", shown=shown)
