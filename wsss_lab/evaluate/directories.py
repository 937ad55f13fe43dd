"""Score one folder of label images against another, with the protocol in the report."""

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.data.class_names import BACKGROUND, read_classes, require_same_classes
from wsss_lab.data.errors import DataError
from wsss_lab.data.files import composed, existing, read_text
from wsss_lab.data.masks import mask_classes, read_mask
from wsss_lab.data.name_lists import name_of_line
from wsss_lab.metrics import ConfusionMatrix, Protocol, Report, pair_counts
from wsss_lab.printable import one_line

SHOWN = 20
"""So many problems are listed; the rest is counted."""


class LabelFilesError(ValueError):
    """Error of label images that cannot be compared; names all of them."""


def evaluate_directories(
    pred_dir: str | Path,
    truth_dir: str | Path,
    list_file: str | Path,
    num_classes: int,
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
        num_classes: background included: 21 for VOC.
        class_names: `num_classes` names, background first. None takes those that the folders
            have: a `classes.txt` in them or beside them, or names that the files carry.
        protocol: how the predictions were made; the number of images and, if not stated, split
            and resolution are filled in here. Its `unlabelled` decides about predictions of 255.
        workers: threads that read; None takes one per core, at most 8.
        ignore: value of pixels without a class, in both folders.
        on_note: called with a line on what looks odd without being wrong.

    Returns:
        Scores with the protocol.

    Raises:
        LabelFilesError: once, with all problems of files: missing, other sizes, other image modes,
            values that are no class.
        ValueError: duplicate or no names; classes of both folders, or their number, differ; a truth
            without any class whose objects are 255.
    """
    protocol = protocol or Protocol()
    return _score(
        Path(pred_dir), Path(truth_dir), Path(list_file), num_classes, class_names,
        protocol, workers, ignore, on_note,
    )[0]  # fmt: skip


def _score(
    pred_dir: Path,
    truth_dir: Path,
    list_file: Path,
    num_classes: int,
    class_names: Sequence[str] | None,
    protocol: Protocol,
    workers: int | None,
    ignore: int,
    on_note: Callable[[str], None] | None,
) -> tuple[Report, float]:
    """Score two folders; returns the report and the share of labelled pixels without a prediction.

    See `evaluate_directories`.
    """
    if ignore != IGNORE and not num_classes <= ignore <= IGNORE:
        raise ValueError(
            f"ignore: expected a value that is no class, {num_classes}..{IGNORE}, got {ignore}"
        )
    names = read_names(list_file, _names_in(truth_dir) | _names_in(pred_dir))
    confusion = ConfusionMatrix(num_classes, unlabelled=protocol.unlabelled)
    class_names = class_names or _find_class_names(pred_dir, truth_dir, names)
    if class_names is not None and len(class_names) != num_classes:
        raise ValueError(
            f"classes: expected {len(class_names)} with background, as the folders name "
            f"{', '.join(class_names[:6])}{', ...' if len(class_names) > 6 else ''}; got "
            f"{num_classes}"
        )

    def count(name: str) -> Int[Tensor, "256 256"]:
        return _compare(pred_dir, truth_dir, name, num_classes, class_names, ignore)

    truths = _count_all(confusion, count, names, workers)
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
) -> list[Int[Tensor, "256"]]:
    """Add all images to `confusion`; returns how often each value occurs in each truth.

    Raises:
        LabelFilesError: images that cannot be counted, when all others are.
    """
    problems: list[str] = []
    truths = []
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


def _find_class_names(
    pred_dir: Path, truth_dir: Path, names: Sequence[str]
) -> tuple[str, ...] | None:
    """Class names of two folders, background first; None where neither has any.

    Raises:
        DataError: both have, and they differ.
    """
    truth, pred = (_names_of_folder(folder, names) for folder in (truth_dir, pred_dir))
    if truth is not None and pred is not None:
        remedy = "Bring both into one order: equal mask values mean different classes"
        require_same_classes(truth, pred, f"those of {truth_dir}", str(pred_dir), remedy)
    return pred if truth is None else truth


def _names_of_folder(folder: Path, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the names that the first mask carries, else those of `classes.txt` in or beside it."""
    first = next((f for n in names if (f := existing(folder / f"{n}.png")).is_file()), None)
    try:
        carried = mask_classes(first) if first is not None else None
    except DataError:  # a broken file is reported with all others
        carried = None
    if carried is not None:
        return carried
    listed = (folder / "classes.txt", folder.absolute().parent / "classes.txt")
    found = next((path for path in listed if path.is_file()), None)
    return None if found is None else (BACKGROUND, *read_classes(found))


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


def run_eval(
    pred: str | Path,
    truth: str | Path,
    list_file: str | Path,
    classes: int,
    *,
    as_json: bool = False,
    class_names: Sequence[str] | None = None,
    protocol: Protocol | None = None,
    ignore: int = IGNORE,
) -> int:
    """Command line `eval`: print a table, or JSON, and return the exit code.

    The code is 1 if some files cannot be compared; then all others were read, and there is no
    score, because it would be of another list. It is 2 for a wrong argument.

    Args:
        pred: folder of predictions.
        truth: folder of true masks.
        list_file: names, one per line.
        classes: number of classes with background.
        as_json: print `Report.to_json()` instead of the table.
        class_names: names for the table.
        protocol: what is known about the predictions.
        ignore: value of pixels without a class, in both folders.

    Returns:
        0, or 2 if the input was refused; the reason goes to standard error.
    """
    stated, listed = protocol or Protocol(), Path(list_file)
    try:
        report, without = _score(
            Path(pred), Path(truth), listed, classes, class_names, stated, None, ignore, _print_note
        )
    except ValueError as error:
        print(f"eval: {one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, LabelFilesError) else 2
    if as_json:
        content = json.loads(report.to_json()) | {"unlabelled_share": without}
        print(json.dumps(content, indent=2, allow_nan=False))
        return 0
    print(report.table())
    if without:
        reading = {"wrong": "count as wrong", "ignored": "are left out of the score"}
        print(
            f"{100 * without:.2f} % of the labelled pixels have no prediction ({ignore}): they "
            f"{reading[stated.unlabelled]}"
        )
    return 0


def _print_note(line: str) -> None:
    print(f"note: {one_line(line)}", file=sys.stderr)
