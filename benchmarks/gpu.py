"""Measure this library on a GPU within ten minutes: `python benchmarks/gpu.py [--minutes 10]`.

| part | what is measured |
|---|---|
| `peak` | largest rate of a matrix product (bf16, float32, TF32) and of a copy on this device |
| `steps` | one training step of each preset at its own crop and batch, forward to optimiser |
| `backbones` | forward and backward of ViT-B, MiT-B1, ResNet-50, WRN-38 in bf16, 16 x 448 px |
| `crf`, `energy`, `local` | dense CRF, dense energy with gradient, PAR, VARM and PAMR |
| `localise` | ACR's class maps by attention and gradients |
| `photos` | decoding and cutting photos, by this process, by workers, by the GPU |

Weights and images are random, so nothing is downloaded; the cost is the same. Images per second,
memory, and MFU: operations of matrix products, convolutions and attention in forward and backward
pass, as `flops.py` counts them, over the time of the whole step, as a share of the
rate that a large matrix product of the same arithmetic reaches on this device (`peak`). Where the
maker's number is known, the share of it stands beside.

What goes wrong, or does not fit into memory or time, becomes a row that says so, and the rest goes
on; after out of memory, half the batch is tried. The file is written anew after every row. On a
machine without a GPU, `--tiny` is a rehearsal in seconds, and its numbers mean nothing.

To send results, see "Send a measurement" in the README.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_parts import BF16, PARTS, Bench, Numbers, dataclass_facts, digits, free

from wsss_lab.config import cpu_model, git_revision, versions
from wsss_lab.train.environment import arithmetic

VENDOR_BF16_TFLOP = {
    "NVIDIA A100-SXM4-40GB": 312,
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA A100-PCIE-40GB": 312,
    "NVIDIA A100 80GB PCIe": 312,
    "NVIDIA H100 80GB HBM3": 989,
    "NVIDIA H100 PCIe": 756,
    "NVIDIA H200": 989,
    "NVIDIA L4": 121,
    "NVIDIA L40S": 362,
}
"""Device -> dense bf16 TFLOP/s on the maker's data sheet (without sparsity). Others: unknown."""
QUERY = ("driver_version", "power.limit", "clocks.max.sm", "clocks.max.memory", "compute_mode")
LEAST = 2.0
"""Seconds that a job needs at least; with less left it is skipped."""


class OutOfTime(BaseException):
    """The time of a job is over; no `except Exception` on the way may take it for its own."""


def device_facts(device: torch.device) -> Numbers:
    """Name, memory, driver and libraries of the device."""
    facts: Numbers = {"type": device.type}
    if device.type != "cuda":
        facts["name"] = cpu_model() if device.type == "cpu" else platform.processor()
        return facts
    found = torch.cuda.get_device_properties(device)
    facts |= {
        "name": found.name,
        "memory_gb": digits(found.total_memory / 1e9),
        "capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "visible_devices": torch.cuda.device_count(),
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),
        "maker_bf16_tflop_per_s": VENDOR_BF16_TFLOP.get(found.name),
    }
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader"]
    if uuid := getattr(found, "uuid", None):  # numbers may differ where some devices are hidden
        command.append(f"--id=GPU-{uuid}")
    try:
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
        values = text.stdout.strip().split("\n")[0].split(", ")
        facts |= dict(zip(QUERY, values, strict=True))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        facts["nvidia_smi"] = f"no answer: {type(error).__name__}"
    return facts


def facts_of(bench: Bench, options: argparse.Namespace) -> Numbers:
    """All that a number depends on."""
    return {
        "format": 1,
        "device": device_facts(bench.device),
        "host": {"cpu": cpu_model(), "system": platform.system(), "threads": options.threads},
        "git": git_revision(),
        "versions": versions() | {"torch_build": torch.__version__},
        "settings": dataclass_facts(bench) | {"minutes": options.minutes, "parts": options.only},
        "tf32": {
            "matmul": torch.get_float32_matmul_precision(),
            "convolution": torch.backends.cudnn.allow_tf32,
        },
        "environment": arithmetic(),
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def guarded(job: Callable[[], Numbers], seconds: float) -> Numbers:
    """Run a job; errors and lack of time become its row."""

    def stop(*_: Any) -> None:
        raise OutOfTime

    can_stop = hasattr(signal, "setitimer")
    before = signal.signal(signal.SIGALRM, stop) if can_stop else None
    try:
        if can_stop:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        return {"state": "measured", **job()}
    except OutOfTime:
        return {"state": "stopped: out of time"}
    except Exception as error:
        return {"state": "error", "error": f"{type(error).__name__}: {str(error)[:500]}"}
    finally:
        if can_stop:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def measure(
    bench: Bench, options: argparse.Namespace, keep: Callable[[list[Numbers]], None]
) -> list[Numbers]:
    """All parts, one row per job."""
    rows: list[Numbers] = []
    start, whole, share = time.monotonic(), 60 * options.minutes, 0.0
    total = sum(PARTS[part][0] for part in options.only)
    maker = VENDOR_BF16_TFLOP.get(torch.cuda.get_device_name(0)) if bench.cuda else None
    for part in options.only:
        share += PARTS[part][0] / total
        until = start + share * whole  # what earlier parts have left is in it
        try:
            jobs = list(PARTS[part][1](bench))
        except Exception as error:
            text = f"{type(error).__name__}: {str(error)[:500]}"
            rows.append({"part": part, "name": part, "state": "error", "error": text})
            print(line(rows[-1]), flush=True)
            keep(rows)
            continue
        for name, job in jobs:
            begun = time.monotonic()
            if until - begun < LEAST:
                row: Numbers = {"state": "skipped: out of time"}
            else:
                # one that hangs must leave the later parts something
                row = guarded(job, until - begun + (start + whole - until) / 2)
                row["job_s"] = digits(time.monotonic() - begun)
            free()
            rows.append({"part": part, "name": name, **row})
            if maker and "tflop_per_s" in row and row.get("arithmetic") == BF16:
                rows[-1]["mfu_of_makers_peak"] = digits(row["tflop_per_s"] / maker)
            print(line(rows[-1]), flush=True)
            keep(rows)
    return rows


def line(row: Numbers) -> str:
    """One line of the table."""
    head = f"{row['part']:9}  {row['name'][:52]:52}"
    if row["state"] != "measured":
        return f"{head}  {row['state']}  {row.get('error', '')[:120]}".rstrip()
    cells = [
        f"{row[key]:9.4g} {unit}"
        for key, unit in (
            ("ms_median", "ms"),
            ("images_per_s", "images/s"),
            ("tflop_per_s", "TFLOP/s"),
            ("mfu_of_measured_peak", "of peak"),
            ("gb_per_s", "GB/s"),
            ("peak_memory_gb", "GB"),
        )
        if key in row
    ]
    fewer = f"  batch {row['batch']}, wanted {row['batch_wanted']}" if "batch_wanted" in row else ""
    return f"{head}  {'  '.join(cells)}{fewer}"


def write(path: Path, content: Numbers) -> None:
    """Write JSON; a half-written file never has the name."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    beside.replace(path)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="default: gpu_NAME.json, by the device")
    parser.add_argument("--minutes", type=float, default=10.0, help="for everything")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", choices=("auto", "cuda", "mps", "cpu"), default="auto")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile")
    parser.add_argument("--tiny", action="store_true", help="small sizes: a rehearsal, no result")
    parser.add_argument("--threads", type=int, default=0, help="of the host; 0: as torch chooses")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.threads = torch.get_num_threads()
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    kind = (found.type if found else "cpu") if options.device == "auto" else options.device
    if kind == "cpu" and not options.tiny:
        sys.exit("there is no GPU that torch can use; --tiny rehearses on the CPU")
    warnings.filterwarnings("ignore")
    device = torch.device(kind)
    bench = Bench(device, options.tiny, 0.2 if options.tiny else 5.0, options.compile)
    facts = facts_of(bench, options)
    name = re.sub(r"[^a-z0-9]+", "_", facts["device"]["name"].lower()).strip("_")
    path = options.json or Path(f"gpu_{name}.json")
    start = time.monotonic()

    def keep(rows: list[Numbers]) -> None:
        took = {"seconds": digits(time.monotonic() - start)}
        write(path, facts | took | {"peaks_flop_per_s": bench.peaks, "rows": rows})

    print(f"{facts['device']['name']}, torch {torch.__version__}, git {facts['git']}")
    rows = measure(bench, options, keep)
    keep(rows)
    states = [row["state"].partition(":")[0] for row in rows]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    print(f"{counts}; {time.monotonic() - start:.0f} s; written: {path}")


if __name__ == "__main__":
    main()
