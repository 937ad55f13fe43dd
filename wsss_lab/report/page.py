"""The page: its sections, its style, and the file that it becomes."""

from collections.abc import Callable, Iterable
from pathlib import Path

from wsss_lab.config import write_text_atomically
from wsss_lab.outputs import guard_outputs
from wsss_lab.printable import one_line
from wsss_lab.report import parts
from wsss_lab.report.gather import RunFacts, gather
from wsss_lab.report.markup import Markup, element, escaped, joined, note, section
from wsss_lab.report.scores import all_scores
from wsss_lab.report.settings import changed_settings
from wsss_lab.report.style import STYLE
from wsss_lab.runs.contents import REPORT, input_paths, run_files

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is loaded, and nothing runs, whatever the files of a run hold."""


def report_page(found: RunFacts, shown: int = 3) -> str:
    """Write the page about a run; it needs no other file and no network.

    Args:
        found: see `gather`.
        shown: images of each list in the gallery.
    """
    sections = {
        "Scores": lambda: _scores(found),
        "Plan and what happened": lambda: parts.plan_beside(found),
        "Curves": lambda: parts.curves(found),
        "Gallery": lambda: parts.gallery(found, shown),
        "Settings": lambda: changed_settings(found),
        "More": lambda: parts.more(found),
    }
    made = [section(title, _tried(found, title, make)) for title, make in sections.items()]
    top = _tried(found, "Heading", lambda: parts.heading(found))
    notes = [note("Damaged: ", line) for line in found.problems]
    body = element("main", top, *notes, *made)
    title = escaped(f"{found.method}: report on {found.folder.resolve().name}")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _scores(found: RunFacts) -> Markup:
    if found.metrics is None:
        return note("There is no metrics.json that can be read: the run has not been scored yet.")
    return all_scores(found.metrics["results"])


def _tried(found: RunFacts, title: str, make: Callable[[], Markup]) -> Markup:
    """A section; where a file holds what nobody foresaw, the reason instead of it."""
    try:
        return make()
    except Exception as error:
        reason = f"{type(error).__name__}: {one_line(error)[:200]}"
        line = f"{title}: a file of the run holds what cannot be shown ({reason})"
        found.problems.append(line)
        return joined([note(f"This part is missing, because a file is damaged ({reason}).")])


def write_report(
    folder: Path,
    out: Path | None = None,
    plan: Path | None = None,
    root: Path | None = None,
    shown: int = 3,
    *,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> tuple[Path, list[str]]:
    """Write the page about a run.

    Args:
        folder: of the run, finished or not.
        out: HTML file to write; None takes `report.html` in the folder.
        plan: file of a plan; None takes the one in the folder, if there is one.
        root: folder of the data, where it has moved since.
        shown: images of each list in the gallery; 0 loads no network and no data.
        overwrite: replace the file `out`, if there is one; never a file of the run or of its data.
        inputs: further files that must not be replaced.

    Returns:
        The file, and what is damaged, a line each.

    Raises:
        FileNotFoundError, ValueError: no run there, or its `config.json` is damaged.
        FileExistsError: `out` is there, or is an input.
        OutputError: the page cannot be written.
    """
    found = gather(folder, plan, root)
    out = folder / REPORT if out is None else out
    guard_outputs([out], [*_read_by(found, out), *inputs], overwrite=overwrite)
    write_text_atomically(out, report_page(found, shown))
    return out, found.problems


def _read_by(found: RunFacts, out: Path) -> list[Path]:
    """Files that a report reads, and `out` itself where it would replace one of the data."""
    own = [file for file in run_files(found.folder) if file != found.folder / REPORT]
    own += [found.plan_file] if found.plan_file else []
    if found.config is not None:
        for path in input_paths(found.config).values():
            inside = path.is_dir() and out.resolve().is_relative_to(path.resolve())
            own += [out] if inside and out.exists() else [path]
    return own
