"""Last lines of a training: where the results are, the headline numbers, what to do next."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsss_lab.commands.options import PROGRAM
from wsss_lab.evaluate.scores import ORACLE
from wsss_lab.runs.contents import LABELS, OVERLAYS, PROPAGATED

FILES = {
    "model.safetensors": "the trained network",
    "metrics.json": "all numbers, with protocol, settings and versions",
    LABELS: "pseudo-labels of the training images",
    PROPAGATED: "pseudo-labels after propagation",
    OVERLAYS: "pseudo-labels over their images",
}
"""Results in a run's folder, with a description."""


def command_line(*words: object) -> str:
    """Write a command of this program to be copied; files of `--use` are part of it."""
    from wsss_lab.registry import used_files

    used = [word for file in used_files() for word in ("--use", file)]
    return f"{PROGRAM} {shlex.join(str(word) for word in (*words, *used))}"


def closing(method: str, out: Path, content: Mapping[str, Any]) -> str:
    """Write the closing block of a training.

    Args:
        method: name of the method.
        out: folder of the run.
        content: of its `metrics.json`.
    """
    there = [(name, text) for name, text in FILES.items() if (out / name).exists()]
    wide = max((len(name) for name, _ in there), default=0) + 1
    lines = [f"\ndone: results in {out}"]
    for name, text in there:
        shown = f"{name}/" if (out / name).is_dir() else name
        lines.append(f"  {shown:<{wide}}  {text}")
    results = content.get("results", {})
    lines += headlines(results)
    lines += ["next", f"  {command_line('predict', 'PHOTOS', '--weights', out, '--out', 'MASKS')}"]
    if (out / "model.safetensors").is_file() and results.get("val"):
        lines.append(f"  {command_line('eval', method, '--weights', out)}")
    return "\n".join(lines)


def headlines(results: Mapping[str, Any]) -> list[str]:
    """Write the mIoU of every kind of prediction, those with the true tags apart.

    Args:
        results: of `metrics.json`.
    """
    rows: dict[str, list[str]] = {"": [], ORACLE: []}
    for part, kinds in results.items():
        for kind, numbers in kinds.items() if isinstance(kinds, Mapping) else ():
            score = numbers.get("miou") if isinstance(numbers, Mapping) else None
            if isinstance(score, int | float):
                told = (numbers.get("protocol") or {}).get("tags_at_test") is True
                split = (numbers.get("protocol") or {}).get("split", part)
                name = kind.removesuffix(ORACLE)
                rows[ORACLE if told else ""].append(f"  {100 * score:6.2f}  {name}, {split}")
    if not any(rows.values()):
        reason = results.get("no_score")
        return [f"not scored: {reason}"] if reason else []
    lines = ["mIoU in %", *rows[""]]
    return lines + (["  with the true tags (an oracle):", *rows[ORACLE]] if rows[ORACLE] else [])
