"""Run notebooks top to bottom and store their outputs so that a second run changes nothing.

    python book/_ext/execute.py book/*.ipynb

Each notebook runs in its own folder and a fresh kernel. What differs between two equal runs is
removed: timestamps, widget state, kernel details. The stamp at the end of a page (date, duration,
versions) is renewed only when an output, a source or a version has changed.
"""

import argparse
import copy
import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

STAMPED = ("torch", "torchvision", "timm", "numpy", "matplotlib")
STRIP = "cell.metadata.execution metadata.language_info metadata.widgets metadata.papermill"


def machine() -> str:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return f"{os.cpu_count()} CPU cores"
    import torch

    return (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    )


def versions() -> dict[str, str]:
    found = {"Python": platform.python_version()}
    return found | {name: importlib.metadata.version(name).split("+")[0] for name in STAMPED}


def clean(path: Path) -> None:
    """The same nbstripout call as in .pre-commit-config.yaml."""
    options = ["--keep-output", "--keep-count", "--keep-id", "--extra-keys", STRIP]
    subprocess.run([sys.executable, "-m", "nbstripout", *options, str(path)], check=True)


def without_stamp(notebook):
    bare = copy.deepcopy(notebook)
    bare.metadata.pop("wsss_lab", None)
    return bare


def tidy_outputs(notebook) -> None:
    """Drop what no reader sees, and join prints that a busy machine delivered in pieces."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if "remove-output" in cell.metadata.get("tags", []):
            cell.outputs = []
        joined = []
        for output in cell.outputs:
            previous = joined[-1] if joined else None
            both_print = previous is not None and previous.output_type == "stream"
            if both_print and output.output_type == "stream" and output.name == previous.name:
                previous.text += output.text
            else:
                joined.append(output)
        cell.outputs = joined


def execute(path: Path, timeout: int, stamp: bool = False) -> str:
    before = nbformat.read(path, as_version=4)
    notebook = copy.deepcopy(before)
    os.environ["WSSS_LAB_EXPLORER_ENDS"] = "1"  # the kernel inherits it; see viz.explorer
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": path.parent}},
    )
    client.execute()
    seconds = time.perf_counter() - start
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    tidy_outputs(notebook)
    old = notebook.metadata.pop("wsss_lab", None)
    nbformat.write(notebook, path)
    clean(path)
    after = nbformat.read(path, as_version=4)
    unchanged = after == without_stamp(before) and old and old["versions"] == versions()
    unchanged = unchanged and not stamp
    after.metadata["wsss_lab"] = (
        old
        if unchanged
        else {
            "executed": datetime.date.today().isoformat(),
            "seconds": round(seconds),
            "device": machine(),
            "versions": versions(),
        }
    )
    nbformat.write(after, path)
    return f"{path}: {seconds:.0f} s, {'unchanged' if unchanged else 'outputs stored'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--timeout", type=int, default=300, help="seconds for one cell")
    parser.add_argument("--stamp", action="store_true", help="renew the stamp in any case")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        print(execute(path, arguments.timeout, arguments.stamp), flush=True)


if __name__ == "__main__":
    main()
