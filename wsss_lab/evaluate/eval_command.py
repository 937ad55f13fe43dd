"""Command line `eval` of two folders of label images: a table or JSON, and what was refused."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss_lab import IGNORE
from wsss_lab.evaluate.directories import LabelFilesError, score_directories
from wsss_lab.evaluate.mask_names import label_folder
from wsss_lab.evaluate.tables import COLUMNS, protocol_text
from wsss_lab.metrics import Protocol
from wsss_lab.printable import one_line, printable

READING = {"wrong": "count as wrong", "ignored": "are left out of the score"}
"""Treatment of pixels without a prediction in words, by `Protocol.unlabelled`."""


def run_eval(
    pred: str | Path,
    truth: str | Path,
    list_file: str | Path,
    classes: int | None = None,
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
        pred: folder of predictions, or of a run, whose labels are taken.
        truth: folder of true masks.
        list_file: names, one per line.
        classes: number of classes with background; None takes as many as the folders name.
        as_json: print `Report.to_json()` instead of the table.
        class_names: names for the table.
        protocol: what is known about the predictions.
        ignore: value of pixels without a class, in both folders.

    Returns:
        0, or 1 or 2 if the input was refused; the reason goes to standard error.
    """
    stated, masks = protocol or Protocol(), label_folder(Path(pred))
    if masks != Path(pred):
        _print_note(f"{pred} is a run; its labels are compared, {masks}")
    try:
        report, without = score_directories(
            masks, Path(truth), Path(list_file), classes, class_names, stated,
            ignore=ignore, on_note=_print_note,
        )  # fmt: skip
    except LabelFilesError as error:  # a line each
        print(f"eval: {printable(str(error))}", file=sys.stderr)
        return 1
    except ValueError as error:
        print(f"eval: {one_line(error)}", file=sys.stderr)
        return 2
    if as_json:
        content = json.loads(report.to_json()) | {"unlabelled_share": without}
        print(json.dumps(content, indent=2, allow_nan=False))
        return 0
    print(f"{report.scores()}\n{COLUMNS}\n{protocol_text([('', report.protocol)])}")
    if without:
        print(
            f"{100 * without:.2f} % of the labelled pixels have no prediction ({ignore}): they "
            f"{READING[stated.unlabelled]}"
        )
    return 0


def _print_note(line: str) -> None:
    print(f"note: {one_line(line)}", file=sys.stderr)
