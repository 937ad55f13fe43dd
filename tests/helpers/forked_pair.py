"""Two processes as torchrun starts them, forked from this one."""

import os
import socket


def fork_pair(work):
    """Fork two processes, with the variables that torchrun sets, and return their ids.

    Each ends with the exit code that `work(rank)` returns.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(2):
        if pid := os.fork():
            pids.append(pid)
            continue
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
        names |= {"GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ["TORCHELASTIC_RUN_ID"] = "test"
        code = 1
        try:
            code = work(rank)
        finally:
            os._exit(code)  # without the clean-up of the process that was forked
    return pids


def exit_code(pid):
    """Wait for a process; its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
