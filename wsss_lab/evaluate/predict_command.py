"""Command line `predict`: a line per image, then what was skipped, and what could not be done."""

import sys
from pathlib import Path
from typing import Any

from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.files import list_pictures
from wsss_lab.data.images import TURN, read_orientation
from wsss_lab.evaluate.predict import image_files, predict_folder
from wsss_lab.printable import one_line


def run_predict(
    source: Path, out: Path, threshold: float = 0.4, *, note: str = "", **options: Any
) -> int:
    """Write masks and overlays, and print a line per image.

    Args:
        source: an image file, or a folder of them.
        out: folder of the results.
        threshold: see `predict_folder`.
        note: printed on standard error before the first line.
        **options: of `predict_folder`.

    Returns:
        Exit code: 0, or 1 if some images of a folder could not be done; they are named at the end.

    Raises:
        FileNotFoundError, ValueError: see `predict_folder`.
    """
    notes = _notes(source)
    problems: list[Problem] = []
    if source.is_dir():
        options["on_problem"] = problems.append
    done = 0
    for line in predict_folder(source, out, threshold, **options):
        if note and not done:  # not before an error that there would be with any network
            print(f"note: {note}", file=sys.stderr, flush=True)
        print(line, flush=True)
        done += 1
    for text in notes:
        print(f"note: {one_line(text)}", file=sys.stderr)
    for problem in problems:
        print(f"error: {one_line(problem)}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} of {done + len(problems)} images not done", file=sys.stderr)
    return 1 if problems else 0


def _notes(source: Path) -> list[str]:
    """What is skipped, and photos that viewers show turned."""
    files = image_files(source)
    notes = [list_pictures(source).skipped_note()] if source.is_dir() else []
    turned = [file.name for file in files.values() if _is_turned(file)]
    if turned:
        shown = ", ".join(turned[:5]) + (f" and {len(turned) - 5} more" if turned[5:] else "")
        notes.append(
            f"viewers turn {len(turned)} of the images by their EXIF orientation ({shown}); masks "
            f"belong to the pixels as stored. {TURN}"
        )
    return [note for note in notes if note]


def _is_turned(file: Path) -> bool:
    try:
        return read_orientation(file) > 1
    except DataError:
        return False
