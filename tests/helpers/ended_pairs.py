"""Script: two processes of which one is asked to end, or hangs, or is stopped; prints JSON.

Run as `ended_pairs.py FOLDER`.
"""

import dataclasses
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from forked_pair import exit_code, fork_pair
from tiny_method import OPTIM, data, tiny

from wsss_lab.config import RunConfig
from wsss_lab.data.loader import StepSampler
from wsss_lab.train.devices import make_fabric
from wsss_lab.train.fit import fit, in_memory
from wsss_lab.train.hang import VARIABLE, HangWatch
from wsss_lab.train.stop import Terminated, held_back

RUN = RunConfig(steps=10, batch=8, log_every=4, save_every=0, accelerator="cpu", devices=2)


def train(out, what):
    images, tags = data()
    whole = in_memory(images, tags, StepSampler(32, 8))

    def batches(step):
        if step == 5 and os.environ["RANK"] == "1":
            if what == "asked":
                os.kill(os.getpid(), signal.SIGTERM)
            elif what == "hangs":
                time.sleep(60)
            elif what == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
        return whole(step)

    fabric = make_fabric(RUN)
    fabric.launch()
    with held_back(), HangWatch(fabric):
        fit(tiny(), batches, RUN, OPTIM, out=out, log=None, fabric=fabric)


def pair(out, what):
    """Exit codes of both, and what they say."""

    def work(rank):
        os.dup2(os.open(out / f"said_{rank}", os.O_CREAT | os.O_WRONLY), 2)
        try:
            train(out, what)
            return 0
        except Terminated as stop:
            print(stop, file=sys.stderr, flush=True)
            return 143
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            return 1

    pids = fork_pair(work)
    first = exit_code(pids[0])
    if what == "stopped":
        os.kill(pids[1], signal.SIGKILL)
    second = exit_code(pids[1])
    said = [(out / f"said_{rank}").read_text() for rank in range(2)]
    return {"exit": [first, second], "said": said, "pids": pids}


def main(folder):
    torch.set_num_threads(1)
    make_fabric(dataclasses.replace(RUN, devices=1))  # imports Lightning here, not in every process
    os.environ[VARIABLE] = "4"
    found = {}
    for what in ("asked", "hangs", "stopped"):
        out = folder / what
        out.mkdir()
        found[what] = pair(out, what)
        found[what]["checkpoints"] = [file.name for file in out.rglob("step_*.pt")]
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
