"""Command on a run's folder: `report`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from wsss_lab.ranges import Settings, Whole


@dataclass(frozen=True)
class Report(Settings):
    """Write one HTML page about a run: scores, plan, curves, pictures and settings."""

    folder: Positional[Path]
    """Folder of a run, finished or not."""
    out: Path | None = None
    """HTML file to write; else report.html in the run's folder."""
    overwrite: bool = False
    """Replace that file if it is there."""
    plan: Path | None = None
    """JSON file that `plan METHOD --out` wrote; else plan.json in the run's folder."""
    root: Path | None = None
    """Folder of the data, where it is no longer where the run has read it."""
    shown: Whole = 3
    """Images of each list in the gallery; 0 reads no data and loads no network."""

    def run(self) -> int:
        """Write the page; 1 where a file of the run is damaged."""
        from wsss_lab.registry import used_files
        from wsss_lab.report.page import write_report

        out, problems = write_report(
            self.folder, self.out, self.plan, self.root, self.shown,
            overwrite=self.overwrite, inputs=used_files(),
        )  # fmt: skip
        for line in problems:
            print(f"damaged: {line}")
        print(f"report: {out}")
        return 1 if problems else 0
