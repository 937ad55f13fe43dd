"""How near to the limit of one core is each part? `python benchmarks/limits.py [--json FILE]`.

One run of a part is taken apart, operation by operation, as PyTorch executes it, and each gets the
least time that it could take here: its arithmetic at the rate of a large float32 matrix product or
its traffic at the rate of memory, whichever is longer. Arithmetic is that of matrix products,
convolutions, attention and weighted sums of rows, two operations a multiplication; traffic is every
argument read once and every result written once, at the rate that an addition of tensors as large
reaches (small ones stay in the caches). The sum over all operations is the limit of the part as it
is written; `arithmetic_s` alone is the limit of any program with the same products. Shares are
these limits over the processor time that other runs of the same part took, without the counting.

`where` tells, of the run that was counted, how limits and processor time fall to products (matrix
products, dense convolutions, attention), to depthwise convolutions, which have little arithmetic
for their traffic, to sums of chosen rows, which PAR, VARM and the lattice of CRF and energy visit
their neighbours with, and to everything else; `outside` is time in no operation of PyTorch: Python,
NumPy, reading and writing of files.

Parts: every kind of step and every stage with images of a preset, as `plan` tries them, each method
in a process of its own; refinement, CRF and energy of an image of VOC's size.
"""

import argparse
import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from flops import convolution_backward
from report import report
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wsss_lab.config import cpu_model

METHODS = ("cam_baseline", "tscd", "asdt", "acr", "cosa")
WARM = 2
"""Steps that the probe takes before those it times."""
SIZES_MIB = (0.25, 1, 4, 16, 64, 256)
"""Traffic of an addition whose rate is measured."""
FUSED = ("wsss_lab::linear", "mkldnn::_linear_pointwise", "mkldnn::_convolution_pointwise")
"""Products that PyTorch's table of operations does not list."""
ROW_SUMS = ("aten::_embedding_bag", "aten::_embedding_bag_forward_only")
"""Weighted sums of chosen rows of a table: how PAR, VARM and the lattice visit neighbours."""
GROUPS = ("products", "depthwise", "sums of rows", "others")
WHERE = (*GROUPS, "outside")
UNTOUCHED = ("aten::empty", "aten::new_empty", "aten::empty_like", "aten::empty_strided")


def matrix_rate() -> float:
    """Operations per second of a square float32 product by MKL or oneDNN, the largest of some."""
    from wsss_lab.models.onednn import onednn_linear

    best = 0.0
    for side in (512, 1024, 2048):
        a, b = torch.randn(side, side), torch.randn(side, side)
        for product in (torch.mm, lambda x, y: onednn_linear(x, y, None)):
            for _ in range(8):
                start = time.process_time()
                product(a, b)
                best = max(best, 2 * side**3 / (time.process_time() - start))
    return best


def memory_rates() -> list[tuple[float, float]]:
    """Bytes of traffic of an addition, and bytes per second, the largest of some runs."""
    rates = []
    for mib in SIZES_MIB:
        a, b, out = (torch.ones(int(mib * 2**20 / 12)) for _ in range(3))
        repeats = max(1, int(64 / mib))
        best = 0.0
        for _ in range(6):
            start = time.process_time()
            for _ in range(repeats):
                torch.add(a, b, out=out)
            best = max(best, repeats * 12 * len(a) / (time.process_time() - start))
        rates.append((12.0 * len(a), best))
    return rates


def operations(func: Any, args: tuple[Any, ...], out: Any) -> float:
    """Floating point operations of products; 0 for all else."""
    packet, name = func.overloadpacket, func._schema.name
    if name == "aten::convolution_backward":
        shapes = (x.shape for x in args[:3])
        return float(convolution_backward(*shapes, *args[3:]))
    if packet in flop_registry:
        return float(flop_registry[packet](*args, out_val=out))
    if name in FUSED:
        return 2.0 * out.numel() * args[1].shape[1:].numel()
    if name in ROW_SUMS:
        return 2.0 * args[1].numel() * args[0].shape[1]
    return 0.0


def kind_of(func: Any, args: tuple[Any, ...], count: float) -> str:
    """Group of an operation for `where`."""
    if count and "convolution" in func._schema.name:
        weight = args[2] if "backward" in func._schema.name else args[1]
        return "depthwise" if weight.shape[1] == 1 and weight.shape[0] > 1 else "products"
    if func._schema.name in ROW_SUMS:
        return "sums of rows"
    return "products" if count else "others"


def touched(value: Tensor) -> int:
    """Bytes that a tensor has of its own: expanded axes count once."""
    sizes = [n for n, stride in zip(value.shape, value.stride(), strict=True) if stride]
    return math.prod(sizes) * value.element_size() if value.numel() else 0


def traffic(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> int:
    """Bytes read and written; views and fresh memory have none."""
    schema = func._schema
    if schema.name in UNTOUCHED:
        return 0
    aliases = [r.alias_info for r in schema.returns]
    if aliases and all(a is not None and not a.is_write for a in aliases):
        return 0
    written = {id(t): t for t in tree_leaves(out) if isinstance(t, Tensor)}
    read = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
    most = sum(touched(t) for t in written.values())
    gathers = any(word in schema.name for word in ("index", "gather", "embedding", "scatter"))
    total = most
    for key, value in read.items():
        size = touched(value)
        total += min(size, most) if gathers and key not in written else size
    return total


class Meter(TorchDispatchMode):
    """Counts and times every operation that PyTorch executes inside."""

    def __init__(self, matrix: float, memory: list[tuple[float, float]]) -> None:
        super().__init__()
        self.matrix, self.memory = matrix, memory
        self.rows: dict[str, dict[str, float]] = {}
        self.arithmetic = self.bytes = 0.0
        self.began = self.took = 0.0

    def __enter__(self) -> "Meter":
        self.began = time.process_time()
        return super().__enter__()

    def __exit__(self, *trouble: Any) -> None:
        super().__exit__(*trouble)
        self.took = time.process_time() - self.began

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        start = time.process_time()
        out = func(*args, **kwargs)
        took = time.process_time() - start
        count = operations(func, args, out)
        size = traffic(func, args, kwargs, out)
        moving = size / self._rate(size)
        if func._schema.name in ROW_SUMS:  # every chosen row is read, from where the table fits
            table = args[0]
            rows = args[1].numel() * table.shape[1] * table.element_size()
            size += rows
            moving += rows / self._rate(touched(table))
        least = max(count / self.matrix, moving)
        for key in (kind_of(func, args, count), func._schema.name):
            row = self.rows.setdefault(key, {"calls": 0, "limit_s": 0.0, "took_s": 0.0})
            row["calls"] += 1
            row["limit_s"] += least
            row["took_s"] += took
        self.arithmetic += count
        self.bytes += size
        return out

    def _rate(self, size: float) -> float:
        for bytes_, rate in self.memory:
            if size <= bytes_:
                return rate
        return self.memory[-1][1]

    def found(self, seconds: float, per: float = 1) -> dict[str, Any]:
        """What was counted, beside the seconds that the part took when nothing was counted.

        Args:
            seconds: of one run.
            per: divides everything: images of a step, say.
        """
        groups = {key: self.rows.pop(key) for key in GROUPS
                  if key in self.rows}  # fmt: skip
        limit = sum(row["limit_s"] for row in groups.values())
        inside = sum(row["took_s"] for row in groups.values())
        arithmetic = self.arithmetic / self.matrix
        slow = sorted(self.rows.items(), key=lambda item: item[1]["limit_s"] - item[1]["took_s"])
        return {
            "processor_s": digits(seconds / per),
            "limit_s": digits(limit / per),
            "arithmetic_s": digits(arithmetic / per),
            "share_of_limit": digits(limit / seconds, 2),
            "share_of_arithmetic": digits(arithmetic / seconds, 2),
            "gflop": digits(self.arithmetic / per / 1e9),
            "gb": digits(self.bytes / per / 1e9),
            "operations": sum(int(row["calls"]) for row in groups.values()),
            "where": {
                name: {
                    "limit_s": digits(row["limit_s"] / per),
                    "took_s": digits(row["took_s"] / per),
                }
                for name, row in groups.items()
            }
            | {"outside": {"took_s": digits(max(0.0, seconds - inside) / per)}},
            "furthest_from_their_limit": {
                name: [digits(row["limit_s"] / per), digits(row["took_s"] / per)]
                for name, row in slow[:4]
            },
        }


def digits(value: float, count: int = 3) -> float:
    """So many digits."""
    return float(f"{value:.{count}g}")


def part(meter: Callable[[], Meter], work: Callable[[], Any], repeats: int) -> dict[str, Any]:
    """Limit and smallest time of a piece of work."""
    work()
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    with meter() as counting:
        work()
    return counting.found(best)


@contextlib.contextmanager
def watched(meter: Callable[[], Meter], steps: int) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Count what the probes of `plan` do: a step of every kind, an image of every stage."""
    from wsss_lab.plan import probe
    from wsss_lab.recipes import end_to_end_plan
    from wsss_lab.recipes.acr import plan as acr_plan
    from wsss_lab.recipes.cam_baseline import plan as cam_plan
    from wsss_lab.runs.images import FirstImages

    found: dict[str, list[dict[str, Any]]] = {"steps": [], "images": []}
    fit, images_of = probe.fit, probe.probe_images

    def watched_fit(method: Any, batches: Any, run: Any, *rest: Any, **named: Any) -> Any:
        clock, times, counting = named.pop("on_step"), [], meter()
        last = WARM + steps - 1

        def on_step(step: int, output: Any) -> None:
            times.append(time.process_time())
            if step == last:
                counting.__enter__()
            elif step == last + 1:
                counting.__exit__(None, None, None)
            clock(step, output)

        done = fit(method, batches, run, *rest, on_step=on_step, **named)
        taken = [b - a for a, b in zip(times[WARM - 1 : -1], times[WARM:-1], strict=False)]
        found["steps"].append(counting.found(min(taken), run.batch) | {"batch": run.batch})
        return done

    def watched_images(work: Any, images: Any, count: int) -> Any:
        done = images_of(work, images, count)
        few = FirstImages(images, count)
        start = time.process_time()
        work(few)
        seconds = time.process_time() - start
        with meter() as counting:
            work(few)
        found["images"].append(counting.found(seconds, len(few)))
        return done

    modules: tuple[Any, ...] = (probe, cam_plan, acr_plan, end_to_end_plan)
    for module in modules:
        module.probe_images = watched_images
    probe.fit = watched_fit  # type: ignore[assignment]
    try:
        yield found
    finally:
        probe.fit = fit
        for module in modules:
            module.probe_images = images_of


def method_parts(
    meter: Callable[[], Meter], method: str, preset: str, root: Path | None, steps: int, images: int
) -> dict[str, Any]:
    """Steps and stages with images of a method's preset, an image each."""
    import dataclasses

    from wsss_lab.runs.recipe import find_recipe

    recipe = find_recipe(method)
    config = recipe.preset(preset)
    if root is not None:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, root=root))
    with tempfile.TemporaryDirectory() as folder, watched(meter, steps) as found:
        plan = recipe.plan(config, Path(folder), steps + 1, images)
    names = {
        unit: [stage.name for stage in plan.stages if stage.unit == unit]
        for unit in ("steps", "images")
    }
    parts = {}
    for unit, rows in found.items():
        own = names[unit] if len(names[unit]) == len(rows) else map(str, range(len(rows)))
        parts |= {f"{method} {preset}, {name}": row for name, row in zip(own, rows, strict=True)}
    return parts


def refinements(meter: Callable[[], Meter], repeats: int, size: tuple[int, int]) -> dict[str, Any]:
    """PAR, VARM, the CRF and the energy of one image."""
    from refine_global import CLASSES, scene

    from wsss_lab.refine import PAR, VARM, DenseEnergyLoss
    from wsss_lab.runs.recipe import find_crf

    image, probs = scene(1, size, 8.0)
    floats = image / 255
    crf: Any = find_crf("tscd-eval")
    small, logits = scene(2, (224, 224), 8.0)
    logits = logits.log().requires_grad_()
    labels = logits.argmax(1)
    valid = torch.ones(2, 224, 224, dtype=torch.bool)
    energy = DenseEnergyLoss()

    def both_ways() -> None:
        energy(logits.softmax(1), small, valid, labels).backward()
        logits.grad = None

    work: dict[str, Callable[[], Any]] = {
        "PAR, 10 iterations": lambda: PAR(iterations=10)(floats, probs),
        "VARM, 10 iterations": lambda: VARM(iterations=10)(floats, probs),
        f"dense CRF tscd-eval, {crf.iterations} iterations": lambda: crf(image, probs),
    }
    shape = f"{CLASSES} classes, {size[0]} x {size[1]} px"
    parts = {f"{name}, {shape}": part(meter, job, repeats) for name, job in work.items()}
    name = f"dense energy, forward and backward, 2 images, {CLASSES} classes, 224 x 224 px"
    return parts | {name: part(meter, both_ways, repeats)}


def rows(result: dict[str, Any]) -> list[str]:
    """Rows of the table in `README.md`: ms, shares, and where the time goes, in percent."""
    found = []
    for name, one in result["parts"].items():
        where = one["where"]
        whole = sum(group["took_s"] for group in where.values())
        share = [f"{100 * where[g]['took_s'] / whole:.0f}" if g in where else "–" for g in WHERE]
        times = [f"{1000 * one[key]:.3g}" for key in ("processor_s", "limit_s")]
        shares = [f"{100 * one[f'share_of_{key}']:.0f}" for key in ("limit", "arithmetic")]
        found.append(f"| {' | '.join([name, *times, *shares, ' / '.join(share)])} |")
    return found


def main() -> None:
    """Measure the rates, then every part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="toy")
    parser.add_argument(
        "--root", type=Path, help="folder of the data set, where the preset has one"
    )
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--no-refinement", action="store_true")
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), metavar=("H", "W"))
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    matrix, memory = matrix_rate(), memory_rates()

    def meter() -> Meter:
        return Meter(matrix, memory)

    if options.only:
        sizes = (options.root, options.steps, options.images)
        parts = method_parts(meter, options.only, options.preset, *sizes)
        print("\n" + json.dumps(parts))
        return
    result: dict[str, Any] = {
        "machine": f"{cpu_model()}, torch {torch.__version__}",
        "threads": 1,
        "load_before": round(os.getloadavg()[0], 1),
        "matrix_product_gflop_per_s": digits(matrix / 1e9),
        "addition_gb_per_s": {f"{s / 2**20:.3g} MiB": digits(r / 1e9) for s, r in memory},
        "parts": {} if options.no_refinement else refinements(meter, 3, tuple(options.size)),
    }
    for method in options.methods:
        command = [sys.executable, __file__, "--only", method, "--preset", options.preset]
        command += ["--steps", str(options.steps), "--images", str(options.images)]
        if options.root is not None:
            command += ["--root", str(options.root)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
        result["parts"] |= json.loads(done.stdout.splitlines()[-1])
    report(result, options.json)


if __name__ == "__main__":
    main()
