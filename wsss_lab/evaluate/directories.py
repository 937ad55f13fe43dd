"""Score one folder of label images against another, with the protocol in the report."""

import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from wsss_lab.data.masks import read_mask
from wsss_lab.metrics import ConfusionMatrix, Protocol, Report, pair_counts
from wsss_lab.printable import one_line

SHOWN = 20
"""So many problems are listed; the rest is counted."""


def evaluate_directories(
    pred_dir: str | Path,
    truth_dir: str | Path,
    list_file: str | Path,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    *,
    protocol: Protocol | None = None,
    workers: int | None = None,
) -> Report:
    """Compare `pred_dir/NAME.png` with `truth_dir/NAME.png` for every name of a list.

    Label images are 8-bit PNG, palette ("P") or grey ("L"), whose values are the classes: 0
    background, then 1..k, 255 not counted. Every pixel is compared at the truth's size.

    Args:
        pred_dir: predictions.
        truth_dir: true masks.
        list_file: one name per line, as in VOC's ImageSets. Of "images/a.jpg masks/a.png" the
            name is "a"; empty lines are skipped.
        num_classes: background included: 21 for VOC.
        class_names: `num_classes` names, background first.
        protocol: how the predictions were made; the number of images and, if not stated, split
            and resolution are filled in here. Its `unlabelled` decides about predictions of 255.
        workers: threads that read; None takes one per core, at most 8.

    Returns:
        Scores with the protocol.

    Raises:
        ValueError: once, with all problems: missing files, other sizes, other image modes, values
            that are no class, duplicate or no names.
    """
    pred_dir, truth_dir, list_file = Path(pred_dir), Path(truth_dir), Path(list_file)
    protocol = protocol or Protocol()
    names = read_names(list_file)
    confusion = ConfusionMatrix(num_classes, unlabelled=protocol.unlabelled)
    problems: list[str] = []

    def count(name: str) -> Int[Tensor, "256 256"]:
        pred = torch.from_numpy(read_mask(pred_dir / f"{name}.png", num_classes))
        truth = torch.from_numpy(read_mask(truth_dir / f"{name}.png", num_classes))
        if pred.shape != truth.shape:
            raise ValueError(
                f"{pred_dir / f'{name}.png'}: {pred.shape[1]}x{pred.shape[0]} px, but the truth "
                f"is {truth.shape[1]}x{truth.shape[0]}; save predictions at the image's size"
            )
        return pair_counts(pred, truth)

    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for name, result in _in_order(pool, count, names):
            try:
                pairs = result.result()
            except ValueError as error:
                problems.append(str(error))
                continue
            try:
                confusion.update_pairs(pairs)
            except ValueError as error:
                problems.append(f"{name}: {error}")
    if problems:
        shown = [f"problems in {len(problems)} of {len(names)} images", *problems[:SHOWN]]
        if len(problems) > SHOWN:
            shown.append(f"and {len(problems) - SHOWN} more")
        raise ValueError("\n  ".join(shown))
    return Report.from_confusion(
        confusion.compute(), _filled(protocol, list_file, len(names)), class_names
    )


def read_names(list_file: str | Path) -> list[str]:
    """Read image names from a list file: first field of each line, without folder and extension.

    Raises:
        ValueError: if there is no such file, no name in it, or a name twice.
    """
    path = Path(list_file)
    if not path.is_file():
        raise ValueError(f"list_file must be a text file with one name per line, got {path}")
    fields = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    names = [_stem(field[0]) for field in fields if field]
    if not names:
        raise ValueError(f"list_file must hold at least one name, {path} is empty")
    if twice := [name for name, times in Counter(names).items() if times > 1][:5]:
        raise ValueError(f"list_file must hold each name once, {path} repeats {twice}")
    return names


def _stem(field: str) -> str:
    """Name of a file; a name like "a.b" that has no image extension keeps its dot."""
    path = Path(field)
    known = {".png", ".jpg", ".jpeg", ".bmp", ".webp"}
    return path.stem if path.suffix.lower() in known else path.name


def _in_order(
    pool: ThreadPoolExecutor, count: Callable[[str], Tensor], names: list[str]
) -> Iterator[tuple[str, Future]]:
    """Submit a bounded number of jobs ahead, so that memory does not grow with the list."""
    ahead: deque[tuple[str, Future]] = deque()
    for name in names:
        ahead.append((name, pool.submit(count, name)))
        if len(ahead) >= 32:
            yield ahead.popleft()
    yield from ahead


def _filled(protocol: Protocol, list_file: Path, images: int) -> Protocol:
    """Add what the evaluation itself knows."""
    blank = Protocol()
    return replace(
        protocol,
        images=images,
        split=list_file.stem if protocol.split == blank.split else protocol.split,
        resolution="original" if protocol.resolution == blank.resolution else protocol.resolution,
    )


def run_eval(
    pred: str | Path,
    truth: str | Path,
    list_file: str | Path,
    classes: int,
    *,
    as_json: bool = False,
    class_names: Sequence[str] | None = None,
    protocol: Protocol | None = None,
) -> int:
    """Command line `eval`: print a table, or JSON, and return the exit code.

    Args:
        pred: folder of predictions.
        truth: folder of true masks.
        list_file: names, one per line.
        classes: number of classes with background.
        as_json: print `Report.to_json()` instead of the table.
        class_names: names for the table.
        protocol: what is known about the predictions.

    Returns:
        0, or 2 if the input was refused; the reason goes to standard error.
    """
    try:
        report = evaluate_directories(
            pred, truth, list_file, classes, class_names, protocol=protocol
        )
    except ValueError as error:
        print(f"eval: {one_line(error)}", file=sys.stderr)
        return 2
    print(report.to_json() if as_json else report.table())
    return 0
