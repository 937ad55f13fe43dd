"""Worker processes end with their parent, however that one is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

SLEEPER = """
import os, sys, time
from wsss_lab.data import workers
def at_work(_):
    time.sleep(0.5)
    return os.getpid()
def hang(_):
    time.sleep(300)
"""
MAIN = {
    "pool": SLEEPER
    + """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
with ProcessPoolExecutor(2, get_context("fork"), workers.start_worker, (os.getpid(),)) as pool:
    print(*set(pool.map(at_work, range(4))), flush=True)
    list(pool.map(hang, range(2)))
""",
    "loader": SLEEPER
    + """
from torch.utils.data import DataLoader
class Images:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        return at_work(0) if index < 4 else hang(0)
loader = iter(DataLoader(Images(), batch_size=None, num_workers=2,
                         worker_init_fn=workers.LoaderWorker()))
print(*{next(loader) for _ in range(4)}, flush=True)
next(loader)
""",
    "watched": SLEEPER
    + """
workers._ask_kernel = lambda: False
parent = os.getpid()
if not (child := os.fork()):
    workers.end_with_parent(parent)
    hang(0)
print(child, flush=True)
hang(0)
""",
}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def started(kind):
    """The script's process, and the ids of its workers."""
    process = subprocess.Popen([sys.executable, "-c", MAIN[kind]], stdout=subprocess.PIPE)
    return process, [int(pid) for pid in process.stdout.readline().split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kind", sorted(MAIN))
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(kind, how):
    process, workers = started(kind)
    assert workers
    assert all(map(alive, workers))
    process.send_signal(how)
    process.wait(timeout=60)
    end = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < end:
        time.sleep(0.05)
    left = [pid for pid in workers if alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_loader_worker_outlives_a_sigterm_so_that_its_parent_gets_its_batches():
    process, workers = started("loader")
    for pid in workers:
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.5)
    still = [alive(pid) for pid in workers]
    process.kill()
    process.wait(timeout=60)
    assert all(still)


def test_a_parent_that_ended_before_the_call_is_noticed():
    script = "from wsss_lab.data.workers import end_with_parent; end_with_parent(1 << 22)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 1
