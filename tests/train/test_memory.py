"""Memory that a step frees is there for the next step, and given back after training."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import wsss_lab

IS_GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {}) and bool(
    os.confstr("CS_GNU_LIBC_VERSION")
)
needs_glibc = pytest.mark.skipif(not IS_GLIBC, reason="only glibc is told to keep memory")
SCRIPT = """
import resource, torch
from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.methods.common.base import Method, StepOutput
from wsss_lab.train.fit import fit
from wsss_lab.train.memory import kept_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

found = []
class Hungry(Method):
    uses_tags = False
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
    def training_step(self, batch, step):
        before = faults()
        big = sum(torch.ones(9_000_000).add_(1).mean() for _ in range(2))
        found.append(faults() - before)
        return StepOutput(loss=self.weight.sum() * big, parts={})
    def param_groups(self, lr, head_lr, weight_decay):
        return [{"params": [self.weight], "lr": lr}]

fit(Hungry(), lambda step: {"images": torch.zeros(1, 3, 8, 8)}, RunConfig(4, batch=1, log_every=0),
    OptimConfig(), log=None)
with kept_memory() as acts:
    pass
print(max(found[2:]), resident(), acts)
"""
PAGES = 36_000_000 // resource.getpagesize()
"""Pages of the largest tensor of a step. glibc never keeps blocks above 32 MiB unasked."""


def run(**variables: str) -> tuple[int, float, bool]:
    """Page faults of a late step, MiB that remain after training, whether memory may be kept."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if key != "GLIBC_TUNABLES" and not key.startswith("MALLOC_")
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=clean | variables | {"PYTHONPATH": str(Path(wsss_lab.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    faults, resident, acts = done.stdout.split()
    return int(faults), float(resident), acts == "True"


@needs_glibc
def test_a_step_meets_no_new_pages_and_training_leaves_none_behind() -> None:
    faults, resident, acts = run()
    assert acts
    assert faults < PAGES / 20
    others, before, acts = run(MALLOC_ARENA_MAX="8")
    assert not acts, "an environment that tunes the allocator is left alone"
    assert others > PAGES
    assert resident < before + 20
