"""Script: kill runs by SIGKILL in many places, resume them, and print what they end with as JSON.

Run as `killed_runs.py FOLDER`. Forks, so that torch is imported once.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from tiny_method import OPTIM, data, digest, tiny

from wsss_lab.config import RunConfig
from wsss_lab.data.augment import augment
from wsss_lab.data.loader import StepSampler
from wsss_lab.train.devices import make_fabric
from wsss_lab.train.fit import fit, in_memory

RUN = RunConfig(steps=20, batch=8, save_every=3, log_every=2)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(function, number):
    """The function, until its call `number`, which does not return."""
    calls = iter(range(number + 1))

    def wrapped(*args, **kwargs):
        if next(calls, number) == number:
            die()
        return function(*args, **kwargs)

    return wrapped


def half_written(number):
    """torch.save, whose call `number` writes a part of the file and dies."""
    save, calls = torch.save, iter(range(number + 1))

    def wrapped(content, file):
        if next(calls, number) < number:
            return save(content, file)
        file.write(b"PK\x03\x04" + bytes(1000))
        file.flush()
        os.fsync(file.fileno())
        return die()

    return wrapped


def train(out, place, number):
    """One process: train, and die in some place."""
    images, tags = data()
    batches = in_memory(images, tags, StepSampler(32, 8), transform=augment)
    if place == "batch":
        at = batches
        batches = lambda step: die() if step == number else at(step)  # noqa: E731
    elif place == "write":
        torch.save = half_written(number)
    elif place in {"fsync", "open"}:
        setattr(os, place, at_call(getattr(os, place), number))
    elif place == "rename":
        Path.replace = at_call(Path.replace, number)
    method = tiny()
    fit(method, batches, RUN, OPTIM, out=out, log=None)
    (out / "digest").write_text(digest(method))


def child(out, place, number):
    """Fork, train, and say by which signal it ended."""
    pid = os.fork()
    if not pid:
        try:
            train(out, place, number)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    if place == "time":
        time.sleep(number / 1000)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def result(out, ends):
    columns = [line.split(",") for line in (out / "log.csv").read_text().splitlines()]
    speed = columns[0].index("images_per_s")
    rows = [cells[:speed] + cells[speed + 1 :] for cells in columns]
    files = sorted(path.name for path in out.rglob("*") if path.is_file())
    return {"digest": (out / "digest").read_text(), "rows": rows, "ends": ends, "files": files}


def main(folder):
    torch.set_num_threads(1)
    make_fabric(RUN)  # imports Lightning here, not in every process
    draw = random.Random(0)
    places = [("none", 0), ("batch", 0), ("batch", 1), ("write", 0), ("write", 2), ("rename", 3)]
    places += [("fsync", 2), ("open", 1), *(("batch", draw.randrange(2, 20)) for _ in range(3))]
    places += [("time", draw.randrange(20, 300)) for _ in range(3)]
    results = {}
    for place, number in places:
        out = folder / f"{place}_{number}"
        ends = [child(out, place, number), child(out, "none", 0)]
        results[out.name] = result(out, ends)
    out = folder / "often"  # killed at every second step, in the write, at the rename
    ends = [child(out, "batch", step) for step in range(0, 20, 2)]
    ends += [child(out, "write", 0), child(out, "rename", 1), child(out, "none", 0)]
    results["often"] = result(out, ends)
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
