"""A recipe that costs nothing: it adds up numbers, with checkpoints, and fails on demand."""

import json
import random
import time
from dataclasses import dataclass, field
from pathlib import Path

from wsss_lab.config import RunConfig, git_revision, versions, write_json
from wsss_lab.runs.recipe import Recipe


@dataclass(frozen=True)
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    gain: float = 1.0
    scales: tuple[float, ...] = (1.0,)
    pause: float = 0.0
    root: str = "/home/someone/data"
    fail_at: int = -1
    start: str = ""


PRESETS = {"toy": Config(run=RunConfig(steps=3, save_every=1))}


def train(config, out, resume=False, log=print):
    checkpoints = out / "stage" / "checkpoints"
    step, total = 0, float(Path(config.start).read_text()) if config.start else 0.0
    if there := sorted(checkpoints.glob("step_*.pt")):
        step, total = json.loads(there[-1].read_text()).values()
        log(f"goes on after step {step}")
    while step < config.run.steps:
        if step == config.fail_at:
            raise FloatingPointError(f"loss is nan\nat step {step} in {out.resolve()}")
        total += config.gain * random.Random(f"{config.run.seed} {step}").random()
        time.sleep(config.pause)
        step += 1
        if step % config.run.save_every == 0:
            state = {"step": step, "total": total}
            write_json(checkpoints / f"step_{step:08d}.pt", state)
        log(f"step {step}")
    (out / "weights.txt").write_text(str(total))
    settings = {"run": {"seed": config.run.seed, "steps": config.run.steps}, "gain": config.gain}
    settings["start"] = config.start
    metrics = {
        "config": settings | {"data": {"root": config.root}},
        "git": git_revision(),
        "versions": versions(),
        "device": "cpu",
        "weights": "none",
        "results": {
            "val": {"score": total, "odd": None if config.run.seed == 1 else total, "protocol": "p"}
        },
    }
    write_json(out / "metrics.json", metrics)
    return metrics


def not_here(*_):
    raise TypeError("this recipe has no network")


RECIPE = Recipe(
    name="fake",
    summary="adds up numbers",
    config=Config,
    presets=PRESETS,
    build=not_here,
    train=train,
    load_method=not_here,
    load_views=not_here,
    plan=not_here,
)
