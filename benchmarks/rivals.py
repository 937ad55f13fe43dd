"""Rivals in one run: `OMP_NUM_THREADS=1 python benchmarks/rivals.py [--json FILE] [--only crf]`.

Class maps against grad-cam and torch-cam, the dense CRF against pydensecrf2, the mixture against
scikit-learn, scores against torchmetrics, photos against torchvision, refinement, losses and whole
steps against the released formulas, transcribed. Nothing is installed: a rival that is not there
has a row that says how to get it.

Each pair has the same input, and its results are compared before anything is timed; where they
differ by more than the stated tolerance, there is no time, and the script ends with code 1. Then
both take turns, and who begins changes from turn to turn, so that other work on the machine hits
both alike. Processor seconds count (of all threads of this process), wall seconds stand beside
them. The ratio is ours / theirs: below 1, ours is the cheaper one.
"""

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rivals_pairs import FULL, GROUPS, TINY, Pair

from wsss_lab.config import cpu_model, git_revision

LEAST = 0.05
"""Processor seconds that one side's turn takes at least: shorter calls are repeated within it."""
PACKAGES = ("torch", "torchvision", "timm", "numpy")


def clock(job: Callable[[], object], calls: int) -> tuple[float, float]:
    """Processor and wall seconds of a call: the mean over some."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        job()
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def take_turns(pair: Pair, repeats: int, least: float) -> dict[str, Any]:
    """Times of both sides, and the ratio of theirs."""
    jobs = {"ours": pair.ours, "theirs": pair.theirs}
    calls = {}
    for who, job in jobs.items():  # also warms up
        calls[who] = max(1, min(1000, math.ceil(least / max(clock(job, 1)[0], 1e-6))))
    times: dict[str, list[tuple[float, float]]] = {who: [] for who in jobs}
    for turn in range(repeats):
        for who in list(jobs)[:: 1 if turn % 2 == 0 else -1]:
            times[who].append(clock(jobs[who], calls[who]))
    row: dict[str, Any] = {}
    for who, found in times.items():
        cpu, wall = zip(*found, strict=True)
        row[who] = {
            "cpu_s_smallest": _digits(min(cpu)),
            "cpu_s_median": _digits(statistics.median(cpu)),
            "wall_s_smallest": _digits(min(wall)),
            "calls_per_turn": calls[who],
        }
    least_of = [min(cpu for cpu, _ in found) for found in times.values()]
    row["ratio_of_smallest"] = _digits(least_of[0] / least_of[1])
    both = zip(times["ours"], times["theirs"], strict=True)
    row["ratio_paired_median"] = _digits(statistics.median(a[0] / b[0] for a, b in both))
    return row


def _digits(value: float) -> float:
    """Four digits: the fourth is noise already."""
    return float(f"{value:.4g}")


def measure(pair: Pair, repeats: int, least: float) -> dict[str, Any]:
    """The row of a pair: its results compared, and, if they are the same, its times."""
    gap = pair.gap(pair.ours(), pair.theirs())
    facts = {"what": pair.what, "rival": pair.rival}
    facts |= {"difference": gap, "tolerance": pair.tolerance, "difference_is": pair.unit}
    if not gap <= pair.tolerance:  # NaN, too
        return {**facts, "state": "differs, not timed"}
    return {**facts, "state": "timed", **take_turns(pair, repeats, least)}


def rows_of(name: str, options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All rows of a group; what goes wrong becomes a row, and the others go on."""
    package, make = GROUPS[name]
    facts = {"group": name, "what": name, "rival": package or "formula, transcribed"}
    try:
        pairs = make(TINY if options.tiny else FULL, folder)
    except ImportError as error:
        hint = f"not installed: pip install {package}" if package else "error"
        return [{**facts, "state": hint, "error": str(error)}]
    except Exception as error:
        return [{**facts, "state": "error", "error": f"{type(error).__name__}: {error}"}]
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        try:
            row = measure(pair, options.repeats, options.least)
        except Exception as error:
            row = {"what": pair.what, "rival": pair.rival, "state": "error"}
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append({"group": name, **row})
        print(line(rows[-1]), flush=True)
    return rows


def line(row: dict[str, Any]) -> str:
    """One line of the table."""
    head = f"{row['what'][:66]:66}  {row['rival'][:36]:36}"
    gap = f"{row['difference']:8.1e} of {row['tolerance']:g}" if "difference" in row else ""
    if row["state"] != "timed":
        return f"{head}  {row['state']} {gap or row.get('error', '')}"
    ours, theirs = (row[who]["cpu_s_smallest"] for who in ("ours", "theirs"))
    ratios = f"{row['ratio_of_smallest']:6.3g}  {row['ratio_paired_median']:6.3g}"
    return f"{head}  {ours:9.4g}  {theirs:9.4g}  {ratios}  {gap}"


def installed() -> dict[str, str]:
    """Versions of what takes part."""
    found = {"python": platform.python_version()}
    for name in [*PACKAGES, *(package for package, _ in GROUPS.values() if package)]:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def limit_threads(count: int) -> None:
    """Let torch, NumPy and scikit-learn use so many threads."""
    torch.set_num_threads(count)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:  # comes with scikit-learn; without it, NumPy has little to do here
        return
    threadpool_limits(count)


def main() -> None:
    """Measure, print, maybe write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5, help="turns of each side")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), default=list(GROUPS))
    parser.add_argument("--tiny", action="store_true", help="small inputs: a rehearsal, no result")
    parser.add_argument("--least", type=float, default=LEAST, help="processor seconds of a turn")
    options = parser.parse_args()
    limit_threads(options.threads)
    warnings.filterwarnings("ignore")  # rivals' remarks on torch would tear the table apart
    result: dict[str, Any] = {
        "tiny": options.tiny,
        "threads": options.threads,
        "repeats": options.repeats,
        "cpu": cpu_model(),
        "git": git_revision(),
        "versions": installed(),
        "load_before": os.getloadavg(),
    }
    print(f"{'':104}  processor seconds     ours / theirs   difference")
    print(f"{'':104}       ours     theirs  of least  paired  of what is allowed")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for group in options.only:
            folder = Path(name) / group
            folder.mkdir()
            found = rows_of(group, options, folder)
            if found[0]["what"] == group:
                print(line(found[0]), flush=True)
            rows += found
    result |= {"load_after": os.getloadavg(), "rows": rows}
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if any(row["state"].startswith("differs") for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
