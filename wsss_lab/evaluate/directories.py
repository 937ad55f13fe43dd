"""Score one folder of label images against another, with the protocol in the report."""

import os
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.data.files import composed, existing, read_text
from wsss_lab.data.masks import read_mask
from wsss_lab.data.name_lists import name_of_line
from wsss_lab.evaluate.mask_names import find_class_names
from wsss_lab.metrics import ConfusionMatrix, Protocol, Report, pair_counts
from wsss_lab.printable import one_line
from wsss_lab.progress import Countdown

SHOWN = 20
"""So many problems are listed; the rest is counted."""
VOC_CLASSES = 21
"""Classes where nothing names them, background included."""


class LabelFilesError(ValueError):
    """Error of label images that cannot be compared; names all of them."""


def evaluate_directories(
    pred_dir: str | Path,
    truth_dir: str | Path,
    list_file: str | Path,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    *,
    protocol: Protocol | None = None,
    workers: int | None = None,
    ignore: int = IGNORE,
    on_note: Callable[[str], None] | None = None,
) -> Report:
    """Compare `pred_dir/NAME.png` with `truth_dir/NAME.png` for every name of a list.

    Label images are 8-bit PNG, palette ("P") or grey ("L"), whose values are the classes: 0
    background, then 1..k, 255 not counted. Every pixel is compared at the truth's size.

    Args:
        pred_dir: predictions.
        truth_dir: true masks.
        list_file: one name per line, as in VOC's ImageSets. Of "images/a.jpg masks/a.png" the
            name is "a"; empty lines are skipped.
        num_classes: background included: 21 for VOC. None: as many as there are names, else 21.
        class_names: `num_classes` names, background first. None takes those that the folders
            have, see `wsss_lab.evaluate.mask_names`.
        protocol: how the predictions were made; the number of images and, if not stated, split
            and resolution are filled in here. Its `unlabelled` decides about predictions of 255.
        workers: threads that read; None takes one per core, at most 8.
        ignore: value of pixels without a class, in both folders.
        on_note: called with a line on what looks odd without being wrong, and on progress where
            it takes long.

    Returns:
        Scores with the protocol.

    Raises:
        LabelFilesError: once, with all problems of files: missing, other sizes, other image modes,
            values that are no class.
        ValueError: duplicate or no names; classes of both folders, or their number, differ; a truth
            without any class whose objects are 255.
    """
    protocol = protocol or Protocol()
    return score_directories(
        Path(pred_dir), Path(truth_dir), Path(list_file), num_classes, class_names,
        protocol, workers, ignore, on_note,
    )[0]  # fmt: skip


def score_directories(
    pred_dir: Path,
    truth_dir: Path,
    list_file: Path,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    protocol: Protocol,
    workers: int | None = None,
    ignore: int = IGNORE,
    on_note: Callable[[str], None] | None = None,
) -> tuple[Report, float]:
    """Score two folders; returns the report and the share of labelled pixels without a prediction.

    See `evaluate_directories`.
    """
    names = read_names(list_file, _names_in(truth_dir) | _names_in(pred_dir))
    class_names = class_names or find_class_names(pred_dir, truth_dir, names)
    if num_classes is None:
        num_classes = len(class_names) if class_names else VOC_CLASSES
    if ignore != IGNORE and not num_classes <= ignore <= IGNORE:
        raise ValueError(
            f"ignore: expected a value that is no class, {num_classes}..{IGNORE}, got {ignore}"
        )
    confusion = ConfusionMatrix(num_classes, unlabelled=protocol.unlabelled)
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(
            f"classes: expected {len(class_names)} with background, as the folders name "
            f"{', '.join(class_names[:6])}{', ...' if len(class_names) > 6 else ''}; got "
            f"{num_classes}"
        )

    def count(name: str, classes: int = num_classes) -> Int[Tensor, "256 256"]:
        return _compare(pred_dir, truth_dir, name, classes, class_names, ignore)

    truths = _count_all(confusion, count, names, workers, on_note)
    if _only_ignored(sum(truths, start=torch.zeros(256, dtype=torch.int64)), num_classes):
        raise ValueError(
            f"{truth_dir}: no true mask holds a class, only 0 and {IGNORE}, and {IGNORE} means "
            f"ignored; write the classes as 1 to {num_classes - 1} instead of {IGNORE}, in the "
            "predictions, too"
        )
    odd = sum(_only_ignored(truth, num_classes) for truth in truths)
    if odd and on_note is not None:
        on_note(
            f"{odd} of {len(names)} true masks hold {IGNORE} and no class; {IGNORE} is left out of "
            "the score, so if it means an object there, write its mask value"
        )
    report = Report.from_confusion(
        confusion.compute(), _filled(protocol, list_file, len(names)), class_names
    )
    return report, int(confusion.counts[:, -1].sum()) / max(1, int(confusion.counts.sum()))


def _compare(
    pred_dir: Path,
    truth_dir: Path,
    name: str,
    num_classes: int,
    class_names: Sequence[str] | None,
    ignore: int,
) -> Int[Tensor, "256 256"]:
    """Count the pairs of values of one image; pixels of the value `ignore` count as 255."""
    legal = num_classes if ignore == IGNORE else IGNORE + 1  # other values: `ConfusionMatrix`
    files = (existing(folder / f"{name}.png") for folder in (pred_dir, truth_dir))
    pred, truth = (torch.from_numpy(read_mask(file, legal, classes=class_names)) for file in files)
    pred, truth = (x.masked_fill(x == ignore, IGNORE) for x in (pred, truth))
    if pred.shape != truth.shape:
        raise ValueError(
            f"{pred_dir / f'{name}.png'}: {pred.shape[1]}x{pred.shape[0]} px, but the truth "
            f"is {truth.shape[1]}x{truth.shape[0]}; save predictions at the image's size"
        )
    return pair_counts(pred, truth)


def _count_all(
    confusion: ConfusionMatrix,
    count: Callable[[str], Tensor],
    names: Sequence[str],
    workers: int | None,
    log: Callable[[str], None] | None,
) -> list[Int[Tensor, "256"]]:
    """Add all images to `confusion`; returns how often each value occurs in each truth.

    Raises:
        LabelFilesError: images that cannot be counted, when all others are.
    """
    problems: list[str] = []
    truths = []
    progress = Countdown("eval", len(names), log, brief=True)
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for name, result in _in_order(pool, count, names):
            progress.add(1)
            try:
                pairs = result.result()
            except ValueError as error:
                problems.append(one_line(error))
                continue
            try:
                confusion.update_pairs(pairs)
            except ValueError as error:
                problems.append(one_line(f"{name}: {error}"))
            truths.append(pairs.sum(1))
    if problems:
        shown = [f"problems in {len(problems)} of {len(names)} images", *problems[:SHOWN]]
        if len(problems) > SHOWN:
            shown.append(f"and {len(problems) - SHOWN} more")
        raise LabelFilesError("\n  ".join(shown))
    return truths


def _only_ignored(truth: Int[Tensor, "256"], num_classes: int) -> bool:
    """Whether label counts hold no foreground class although some pixels are ignored."""
    return bool(num_classes > 1 and truth[IGNORE] > 0 and truth[1:num_classes].sum() == 0)


def _names_in(folder: Path) -> set[str]:
    """Names of a folder's PNG files."""
    if not folder.is_dir():
        return set()
    return {composed(f[: -len(".png")]) for f in os.listdir(folder) if f.endswith(".png")}


def read_names(list_file: str | Path, have: Container[str] = ()) -> list[str]:
    """Read image names from a list file, see `wsss_lab.data.name_lists.read_list`.

    Args:
        list_file: text file in UTF-8.
        have: names that exist; a line that is one of them is never taken apart.

    Raises:
        ValueError: if there is no such file, no name in it, or a name twice.
    """
    path = Path(list_file)
    if not path.is_file():
        raise ValueError(f"list_file must be a text file with one name per line, got {path}")
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = [name_of_line(line, have) for line in lines]
    if not names:
        raise ValueError(f"list_file must hold at least one name, {path} is empty")
    if twice := [name for name, times in Counter(names).items() if times > 1][:5]:
        raise ValueError(f"list_file must hold each name once, {path} repeats {twice}")
    return names


def _in_order(
    pool: ThreadPoolExecutor, count: Callable[[str], Tensor], names: Sequence[str]
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
