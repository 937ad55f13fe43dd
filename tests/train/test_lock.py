"""One folder, one owner: the lock is held by a living process and ends with it, however it ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

from wsss_lab.train.lock import FolderLock, hold, own

OWNER = """
import os, sys, time
from pathlib import Path
from wsss_lab.train.lock import FolderLock
assert FolderLock(Path(sys.argv[1])).acquire()
child = os.fork() if sys.argv[2] == "forks" else None
if child != 0:
    print(child, flush=True)
time.sleep(60 if sys.argv[2] != "short" else 3)
"""


@pytest.fixture
def owner(tmp_path):
    """Start a process that owns the folder; returns it, and what it has forked."""
    started = []

    def start(kind="long"):
        command = [sys.executable, "-c", OWNER, str(tmp_path), kind]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_folder_in_use_is_refused_and_its_owner_named(tmp_path, owner):
    process, _ = owner()
    assert FolderLock(tmp_path).is_held()
    refused = pytest.raises(FileExistsError, match=f"is in use: process {process.pid} on ")
    with refused, own(tmp_path, wait=0.2):
        pass
    with hold(tmp_path, 0.2) as mine:
        assert not mine


def test_the_lock_ends_with_its_process_and_not_with_what_it_has_forked(tmp_path, owner):
    process, child = owner("forks")
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        os.kill(int(child), 0)  # it lives
        with own(tmp_path, wait=10):  # the child may not have run since the fork
            assert FolderLock(tmp_path).owner()["pid"] == os.getpid()
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_patient_one_says_for_whom_it_waits_and_goes_on(tmp_path, owner):
    process, _ = owner("short")
    lines = []
    with own(tmp_path, patient=True, log=lines.append, wait=0.2):
        assert process.poll() is not None or process.wait(10) is not None
    (line,) = lines
    assert f"process {process.pid}" in line


def test_a_process_does_not_wait_for_itself(tmp_path):
    with own(tmp_path):
        with pytest.raises(FileExistsError, match="in use"), own(tmp_path, patient=True, wait=0):
            pass
        assert FolderLock(tmp_path).is_held()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_that_ends_leaves_the_lock_to_its_parent(tmp_path):
    lock = FolderLock(tmp_path)
    assert lock.acquire()
    pid = os.fork()
    if not pid:
        lock.release()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert FolderLock(tmp_path).is_held()
    lock.release()
    assert not FolderLock(tmp_path).is_held()


def test_a_lock_whose_file_was_removed_is_not_taken_for_ones_own(tmp_path, monkeypatch):
    """The last owner removes the file; who had it open then must look again."""
    lock, samestat = FolderLock(tmp_path), os.path.samestat

    def removed_meanwhile(*stats):
        monkeypatch.setattr(os.path, "samestat", samestat)
        lock.path.unlink()
        lock.path.touch()
        return samestat(os.stat(lock.path), stats[0])

    monkeypatch.setattr(os.path, "samestat", removed_meanwhile)
    assert not lock.acquire()
    assert lock.acquire()
    lock.release()


def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    start = time.monotonic()
    with own(tmp_path):
        assert time.monotonic() - start < 1
