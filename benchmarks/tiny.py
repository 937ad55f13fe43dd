"""Processor seconds of `train METHOD --preset tiny`, by stage: `python benchmarks/tiny.py`.

Every method runs once, to its end, in a process of its own with one thread and in an empty folder.
User and system time are added, from the start of Python on: other work on the machine lengthens
wall time most, but through shared caches and cores this sum, too. A row also has the scores that
the run prints; with `--json` the rows of other methods in that file stay. Options after `--` go to
`train`, so `--preset toy` and other lengths can be measured.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from report import report

METHODS = ("cam_baseline", "tscd", "asdt", "acr", "cosa", "mix")


def seconds() -> float:
    """Processor seconds of this process and its children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(arguments: list[str]) -> int:
    """Train in this process; print after which seconds each stage began, and the last word."""
    from wsss_lab.__main__ import main as command
    from wsss_lab.progress import Headings

    begun, opened = [("start", 0.0)], Headings.open

    def stamped(self: Headings, name: str, what: str, leaves: str) -> None:
        begun.append((name, seconds()))
        opened(self, name, what, leaves)

    Headings.open = stamped  # type: ignore[method-assign]
    status = command(arguments)
    begun.append(("end", seconds()))
    stages = {name: round(after - at, 1) for (name, at), (_, after) in pairwise(begun)}
    print("\n" + json.dumps({"all": round(begun[-1][1], 1), "stages": stages}), flush=True)
    return status


def miou(results: Any, path: str = "") -> dict[str, float]:
    """Every mIoU of a run, in percent, by its place in `metrics.json`."""
    if not isinstance(results, dict):
        return {}
    found = {path: round(100 * results["miou"], 1)} if "miou" in results else {}
    for name, part in results.items():
        found |= miou(part, f"{path}/{name}" if path else name)
    return found


def case(method: str, preset: str, more: list[str]) -> dict[str, Any]:
    """Run `measure` in a process."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        arguments = ["train", method, "--preset", preset, "--out", str(run), *more]
        begun = time.perf_counter()
        done = subprocess.run(
            [sys.executable, __file__, "--measure", "--", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
        wall = round(time.perf_counter() - begun, 1)
        metrics = json.loads((run / "metrics.json").read_text())
    return {
        "processor_s": json.loads(done.stdout.splitlines()[-1]),
        "wall_s": wall,
        "miou": miou(metrics["results"]),
        "settings": {name: metrics["config"]["data"][name] for name in ("count", "val_count")}
        | {name: metrics["config"]["run"][name] for name in ("steps", "batch")},
    }


def main() -> None:
    """Measure, print, maybe write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    rest = rest[1:] if rest[:1] == ["--"] else rest
    if options.measure:
        sys.exit(measure(rest))
    there = options.json is not None and options.json.exists()
    before = json.loads(options.json.read_text())["methods"] if there else {}
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "threads": 1,
        "preset": options.preset,
        "methods": before,
    }
    for method in options.methods:
        load = round(os.getloadavg()[0], 1)
        found = case(method, options.preset, rest)
        result["methods"][method] = {"load_before": load} | found
        report(result, options.json)


if __name__ == "__main__":
    main()
