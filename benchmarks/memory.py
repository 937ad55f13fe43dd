"""Page faults and time of a training step, freed memory kept or not: `python benchmarks/memory.py`.

Trains each method for a few steps, in a process of its own, on scenes of the toy world and, with
`--root VOC_MINI`, on photos: per step, processor seconds of the program and of the kernel and pages
touched for the first time; at the end the largest resident memory. "Not kept" is glibc's own rule:
`MALLOC_ARENA_MAX` in the environment makes `wsss_lab.train.memory` stand back.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from report import report

METHODS = ("cam_baseline", "tscd", "asdt", "acr", "cosa")
FIRST = 4
"""Steps before the measured ones."""


def measure(steps: int, arguments: list[str]) -> None:
    """Train in this process and print the numbers after so many steps; does not come back."""
    from wsss_lab.__main__ import main as command
    from wsss_lab.train import fit

    factor, seen = fit.lr_factor, []

    def count(*given: Any) -> float:  # `fit` asks for the factor once a step, before all else
        seen.append(resource.getrusage(resource.RUSAGE_SELF))
        if len(seen) > FIRST + steps:
            first, last = seen[FIRST], seen[-1]
            found = {
                "program_s": round((last.ru_utime - first.ru_utime) / steps, 3),
                "kernel_s": round((last.ru_stime - first.ru_stime) / steps, 3),
                "faults": round((last.ru_minflt - first.ru_minflt) / steps),
                "peak_mib": round(last.ru_maxrss / 1024),
            }
            print("\n" + json.dumps(found), flush=True)
            os._exit(0)
        return factor(*given)

    fit.lr_factor = count
    sys.argv = ["wsss_lab", *arguments]
    command()


def case(method: str, preset: str, steps: int, root: Path | None, kept: bool) -> dict[str, Any]:
    """Run `measure` in a process."""
    clean = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES" and "MALLOC_" not in k}
    if not kept:
        clean["MALLOC_ARENA_MAX"] = str(8 * (os.cpu_count() or 1))  # the number it would be anyway
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["train", method, "--preset", preset, "--out", folder, "--overwrite"]
        arguments += ["--run.save-every", "0"]
        if preset == "toy":
            arguments += ["--data.count", "64", "--data.val-count", "4"]
        if root is not None:
            arguments += ["--data.root", str(root)]
        done = subprocess.run(
            [sys.executable, __file__, "--measure", str(steps), "--", *arguments],
            env=clean,
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Print the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--root", type=Path, help="folder of voc-mini, for its presets as well")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.measure:
        measure(options.measure, rest[1:] if rest[:1] == ["--"] else rest)
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "steps": options.steps,
        "cases": {},
    }
    for preset, root in (("toy", None), ("voc-mini", options.root)):
        if preset == "toy" or root is not None:
            for method in options.methods:
                result["cases"][f"{method}, {preset}"] = {
                    name: case(method, preset, options.steps, root, kept)
                    for name, kept in (("not kept", False), ("kept", True))
                }
    report(result, options.json)


if __name__ == "__main__":
    main()
