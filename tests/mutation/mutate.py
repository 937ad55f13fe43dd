"""Put small faults into the library, one at a time, and list those that no test notices.

    python tests/mutation/mutate.py map map.json              # which test calls which function
    python tests/mutation/mutate.py map map.json --only tests/refine        # some of them anew
    python tests/mutation/mutate.py run map.json report.json  # 60 numbers, 60 operators
    python tests/mutation/mutate.py again map.json report.json new.json   # only its survivors

Every fault meets the tests that call its function, fastest first, within `--seconds` by the clock
of the map; a fault outside functions meets the tests of its room and of the presets. Tests run in a
fork of this process, one at a time: libraries are imported once. Files are never changed: the fork
imports the faulty text in the place of the file. What `equivalent.txt` lists changes no result and
is not counted.
"""

import argparse
import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from mutants import ROOT, Mutant, sample

EQUIVALENT = Path(__file__).with_name("equivalent.txt")
PRESETS = ("tests/recipes/test_preset_numbers.py", "tests/recipes/test_released_constants.py")
TESTS = ("tests/golden", "tests/methods", "tests/cam", "tests/refine", "tests/test_ema.py")
LONGEST = 8.0
"""Seconds of a test that is left out of the rounds."""
LIMIT = 240
"""Seconds by the wall clock after which a fault counts as noticed: it hangs."""


class Recorder:
    """Pytest plug-in: functions of the package that a test calls, and its seconds."""

    def __init__(self) -> None:
        self.tests: dict[str, dict] = {}

    def pytest_runtest_logreport(self, report) -> None:
        entry = self.tests.setdefault(report.nodeid, {"seconds": 0.0, "calls": set()})
        entry["seconds"] += report.duration
        if report.failed or report.skipped:
            entry["out"] = True

    def pytest_runtest_setup(self, item) -> None:
        calls = self.tests.setdefault(item.nodeid, {"seconds": 0.0, "calls": set()})["calls"]
        package = str(ROOT / "wsss_lab")

        def seen(frame, event, _) -> None:
            code = frame.f_code
            if event == "call" and code.co_filename.startswith(package):
                calls.add((code.co_filename[len(str(ROOT)) + 1 :], code.co_qualname))

        sys.setprofile(seen)

    def pytest_runtest_teardown(self, item) -> None:
        sys.setprofile(None)


class Witness:
    """Pytest plug-in: the first test that failed, written to a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.file.write_text(report.nodeid)


class Faulty(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Import one module from a changed text."""

    def __init__(self, mutant: Mutant) -> None:
        self.path = ROOT / mutant.path
        parts = Path(mutant.path).with_suffix("").parts
        self.package = parts[-1] == "__init__"
        self.name = ".".join(parts[:-1] if self.package else parts)
        self.text = mutant.apply(self.path.read_text())

    def find_spec(self, name, path=None, target=None):
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(
            name,
            self.path,
            loader=self,
            submodule_search_locations=[str(self.path.parent)] if self.package else None,
        )

    def get_source(self, fullname):
        return self.text

    def is_package(self, fullname):
        return self.package

    def exec_module(self, module):
        exec(compile(self.text, str(self.path), "exec"), module.__dict__)


def pytest_in_fork(arguments: list[str], plugins: list, before=None) -> int:
    """Run pytest in a fork of this process; its exit status, or -1 after the limit."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest

        try:
            if before is not None:
                before()
            status = int(pytest.main(arguments, plugins=plugins))
        except BaseException:
            status = 1
        os._exit(status)
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


def record(out: Path, golden: str, only: list[str]) -> None:
    """Run tests once and write what each calls; `only` some renews their entries."""
    import pytest

    recorder = Recorder()
    tests = only or [test for test in (*TESTS, *PRESETS) if (ROOT / test).exists()]
    pytest.main([*tests, "-p", "no:cacheprovider", "--golden", golden], plugins=[recorder])
    known = json.loads(out.read_text()) if only else {}
    found = {
        name: {"seconds": round(entry["seconds"], 3), "calls": sorted(entry["calls"])}
        for name, entry in recorder.tests.items()
        if "out" not in entry
    }
    out.write_text(json.dumps(known | found))


def chooser(path: Path, seconds: float):
    """(mutant) -> names of the tests that it meets."""
    known = {k: v for k, v in json.loads(path.read_text()).items() if v["seconds"] < LONGEST}
    callers = defaultdict(list)
    for test, entry in known.items():
        for file, function in entry["calls"]:
            callers[file, function.replace(".<locals>", "")].append(test)
            callers[file].append(test)

    def choose(mutant: Mutant) -> list[str]:
        room = Path(mutant.path).parent.name
        tests = callers.get((mutant.path, mutant.function)) if mutant.function else None
        if not tests:
            presets = [test for test in known if test.startswith(PRESETS)]
            tests = presets + callers[mutant.path] + [test for test in known if f"/{room}/" in test]
        tests = sorted(
            set(tests), key=lambda test: (not test.startswith(PRESETS), known[test]["seconds"])
        )
        chosen, left = [], seconds
        for test in tests:
            if (left := left - known[test]["seconds"]) < 0:
                break
            chosen.append(test)
        return chosen

    return choose


def noticed_by(mutant: Mutant, tests: list[str], golden: str) -> str | None:
    """The test that fails with the fault, or what else does; None if all pass."""

    def install() -> None:
        sys.meta_path.insert(0, Faulty(mutant))

    arguments = [*tests, "-x", "-q", "-p", "no:cacheprovider", "--golden", golden]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "failed"
        status = pytest_in_fork(arguments, [Witness(file)], install)
        if status == 0:
            return None
        return file.read_text() if file.exists() else "time limit" if status < 0 else "import"


def preload() -> None:
    """Import what is slow to import, but nothing of the package under test."""
    import numpy  # noqa: F401
    import pytest  # noqa: F401
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    assert not any(name.split(".")[0] == "wsss_lab" for name in sys.modules)


def equivalent() -> set[tuple[str, str, str]]:
    """(path, text of the line, new text) of faults that change no result."""
    lines = EQUIVALENT.read_text().splitlines() if EQUIVALENT.exists() else []
    rows = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    return {(path, code, new) for path, code, new, _ in rows}


def key_of(mutant: Mutant) -> tuple[str, str, str]:
    line = (ROOT / mutant.path).read_text().splitlines()[mutant.line - 1].strip()
    return mutant.path, line, f"{mutant.old} -> {mutant.new}"


def run(args: argparse.Namespace, mutants: list[Mutant], out: Path) -> None:
    """Run all faults and write the report after each."""
    choose, skipped = chooser(args.map, args.seconds), equivalent()
    mutants = [mutant for mutant in mutants if key_of(mutant) not in skipped]
    results: list[dict] = []
    for number, mutant in enumerate(mutants, 1):
        tests, began = choose(mutant), time.monotonic()
        by = noticed_by(mutant, tests, args.golden) if tests else None
        path, line, change = key_of(mutant)
        results.append(
            {
                "survived": by is None,
                "by": by,
                "tests": len(tests),
                **mutant._asdict(),
                "code": line,
            }
        )
        state = "SURVIVED" if by is None else "noticed"
        took = time.monotonic() - began
        print(
            f"{number}/{len(mutants)} {state} {path}:{mutant.line} {change} ({took:.0f} s)",
            flush=True,
        )
        out.write_text(json.dumps(results, indent=1))
    alive = [result for result in results if result["survived"]]
    print(f"{len(alive)} of {len(results)} faults survive")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("map", "run", "again"))
    parser.add_argument("map", type=Path)
    parser.add_argument("report", type=Path, nargs="?")
    parser.add_argument("new", type=Path, nargs="?")
    parser.add_argument("--golden", default="auto")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--constants", type=int, default=60)
    parser.add_argument("--operators", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20.0)
    args = parser.parse_args()
    os.chdir(ROOT)
    if args.what == "map":
        record(args.map, args.golden, args.only)
        return
    preload()
    if args.what == "run":
        run(args, sample(args.constants, args.operators, args.seed), args.report)
        return
    fields = Mutant._fields
    last = [r for r in json.loads(args.report.read_text()) if r["survived"]]
    run(args, [Mutant(*(r[name] for name in fields)) for r in last], args.new)


if __name__ == "__main__":
    main()
