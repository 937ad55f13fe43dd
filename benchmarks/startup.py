"""Processor seconds until a command can work: `python benchmarks/startup.py [--json FILE]`.

Every command runs in a process of its own, in an empty folder; user and system time of the process
are added, and the smallest of several runs that take turns counts, so that other work on the
machine matters little (it does matter: compare with the row of torch alone, of the same minute).
One more run per command tells where the time goes: by package, the time in which the package's
own modules are found and executed, without the modules that they import. What remains is Python's
own start and the work itself.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

import numpy as np
from PIL import Image

COMMANDS = {
    "import torch": None,
    "import timm": None,
    "import lightning_fabric": None,
    "import wsss_lab.refine": None,
    "--help": ["--help"],
    "info": ["info"],
    "train cosa --help": ["train", "cosa", "--help"],
    "train acr --help": ["train", "acr", "--help"],
    "plan cosa --help": ["plan", "cosa", "--help"],
    "predict of one photo": ["predict", "photo.jpg", "--out", "masks", "--overwrite"],
    "predict --weights voc-mini": [
        *("predict", "photo.jpg", "--out", "masks", "--overwrite", "--weights", "voc-mini"),
    ],
}
"""Name -> arguments of `python -m wsss_lab`; None: the name is a statement."""
RUN = "import runpy, sys; runpy.run_module('wsss_lab', run_name='__main__', alter_sys=True)"
CLOCK = """
import atexit, json, sys, time

own, stack, others = {}, [], list(sys.meta_path)

def timed(name, call):
    def run(*arguments):
        package = name.partition(".")[0]
        package = "standard library" if package in sys.stdlib_module_names else package
        stack.append(0.0)
        start = time.process_time()
        try:
            return call(*arguments)
        finally:
            took = time.process_time() - start
            own[package] = own.get(package, 0.0) + took - stack.pop()
            if stack:
                stack[-1] += took
    return run

class Clock:
    @staticmethod
    def find_spec(name, path=None, target=None):
        for finder in others:
            spec = timed(name, finder.find_spec)(name, path, target)
            if spec is not None:
                if spec.loader is not None and not isinstance(spec.loader, type):
                    for step in ("create_module", "exec_module"):
                        setattr(spec.loader, step, timed(name, getattr(spec.loader, step)))
                return spec

sys.meta_path.insert(0, Clock)
record = sys.argv.pop(1)
def write():
    with open(record, "w") as file:
        json.dump({"packages": own, "whole": time.process_time()}, file)
atexit.register(write)
"""
"""What is run before the command to learn the processor seconds of each package's own modules."""


def run(arguments: list[str], folder: Path) -> float:
    """Run Python; return the processor seconds of the process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def by_package(name: str, folder: Path) -> dict[str, float]:
    """Processor seconds by package in one run, largest first; small ones together."""
    code = CLOCK + (name if COMMANDS[name] is None else RUN)
    file = folder / "packages.json"
    run(["-c", code, str(file), *(COMMANDS[name] or [])], folder)
    found = json.loads(file.read_text())
    packages = {key: value for key, value in found["packages"].items() if value >= 0.01}
    shown = {key: packages[key] for key in sorted(packages, key=packages.__getitem__, reverse=True)}
    shown["small packages"] = sum(found["packages"].values()) - sum(packages.values())
    shown["start of Python, and the work"] = found["whole"] - sum(found["packages"].values())
    return {key: round(value, 3) for key, value in shown.items()}


def main() -> None:
    """Measure, print, maybe write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(COMMANDS), default=list(COMMANDS))
    options = parser.parse_args()
    chosen = ["import torch", *(name for name in options.only if name != "import torch")]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coarse = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        photo.save(folder / "photo.jpg", quality=90)
        for _ in range(options.repeats):  # the first also fills the caches of files and byte code
            for name in chosen:
                arguments = COMMANDS[name]
                command = ["-c", name] if arguments is None else ["-m", "wsss_lab", *arguments]
                seconds[name].append(run(command, folder))
        packages = {name: by_package(name, folder) for name in chosen}
    least = {name: round(min(values), 2) for name, values in seconds.items()}
    print(f"{'':28}  processor s  times torch alone")
    for name, value in least.items():
        print(f"{name:28}  {value:11.2f}  {value / least['import torch']:17.2f}")
    for name, costs in packages.items():
        largest = ", ".join(f"{package} {cost:.2f}" for package, cost in list(costs.items())[:-2])
        rest = ", ".join(f"{package} {cost:.2f}" for package, cost in list(costs.items())[-2:])
        print(f"\n{name}: {largest}; {rest}")
    if options.json:
        used = ("torch", "torchvision", "timm", "lightning-fabric")
        record = {
            "processor_s": least,
            "all_runs_s": {name: [round(v, 2) for v in values] for name, values in seconds.items()},
            "s_by_package": packages,
            "repeats": options.repeats,
            "threads": int(os.environ["OMP_NUM_THREADS"]),
            "python": sys.version.partition(" ")[0],
            "versions": {package: metadata.version(package) for package in used},
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
