"""Script: train with one process and with two, and print how far apart they end as JSON.

Run as `two_processes.py FOLDER`. Starts its processes as torchrun does, and as a notebook does.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch
from forked_pair import exit_code, fork_pair
from lightning_fabric.utilities import imports
from tiny_method import OPTIM, data, digest, tiny

from wsss_lab.config import RunConfig
from wsss_lab.data.augment import augment
from wsss_lab.data.loader import StepSampler
from wsss_lab.train.fit import fit, in_memory

RUN = RunConfig(steps=10, batch=8, log_every=4, save_every=4, keep=5, accelerator="cpu")
PAIR = dataclasses.replace(RUN, devices=2)


def train(run, out=None, noise=False, broken=False):
    images, tags = data()
    whole = in_memory(images, tags, StepSampler(32, 8), transform=augment)

    def batches(step):
        batch = whole(step)
        if broken and step == 5 and os.environ["RANK"] == "1":
            batch["images"] = batch["images"] * torch.nan
        return batch

    method = tiny(noise=noise)
    history = fit(method, batches, run, OPTIM, out=out, log=None)
    return method, history


def as_torchrun(*arguments):
    """Train in two processes as torchrun starts them; returns their exit codes."""

    def work(rank):
        try:
            method, history = train(*arguments)
            if rank == 0:
                torch.save((method.state_dict(), history), arguments[1] / "result.pt")
            return 0
        except FloatingPointError as error:
            (arguments[1] / f"error_{rank}").write_text(str(error))
            return 3
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            return 1

    return [exit_code(pid) for pid in fork_pair(work)]


def apart(first, second):
    """Largest difference of any trained weight."""
    return max((first[k] - second[k]).abs().max().item() for k in first if "queue" not in k)


def main(folder):
    torch.set_num_threads(1)
    alone, history = train(RUN)
    expected = alone.state_dict()
    found = {"weights_moved": apart(tiny(noise=False).state_dict(), expected)}

    out = folder / "torchrun"
    found["exit"] = as_torchrun(PAIR, out)
    state, pair_history = torch.load(out / "result.pt", weights_only=True)
    found["torchrun"] = apart(expected, state)
    losses = [[entry["loss"] for entry in each] for each in (history, pair_history)]
    found["losses"] = max(abs(a - b) for a, b in zip(*losses, strict=True))
    found["steps"] = [entry["step"] for entry in pair_history]

    parts, _ = train(dataclasses.replace(RUN, accumulate=2))
    found["accumulated"] = apart(expected, parts.state_dict())

    imports._IS_INTERACTIVE = True
    forked, forked_history = train(PAIR)
    imports._IS_INTERACTIVE = False
    found["notebook"] = apart(expected, forked.state_dict())
    found["notebook_steps"] = [entry["step"] for entry in forked_history]

    out = folder / "noise"  # with dropout: every process has its own random numbers
    found["exit"] += as_torchrun(PAIR, out, True)
    whole = torch.load(out / "result.pt", weights_only=True)[0]
    (out / "checkpoints" / "step_00000010.pt").unlink()
    found["exit"] += as_torchrun(PAIR, out, True)
    again = torch.load(out / "result.pt", weights_only=True)[0]
    found["resumed_equal"] = all(torch.equal(whole[k], again[k]) for k in whole)
    found["rows"] = (out / "log.csv").read_text().count("\n")

    out = folder / "broken"  # one process meets nan, both stop
    found["broken_exit"] = as_torchrun(PAIR, out, False, True)
    found["broken"] = [(out / f"error_{rank}").read_text() for rank in range(2)]
    found["one_is_deterministic"] = digest(alone) == digest(train(RUN)[0])
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
