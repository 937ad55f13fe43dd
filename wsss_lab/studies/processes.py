"""The processes of a runner: how they are ended, and why they ended."""

import contextlib
import os
import signal
import subprocess


def end_process(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """End a process and its children: by SIGTERM, then by SIGKILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    if process.stdin:
        process.stdin.close()


def exit_reason(code: int) -> str:
    """Return in words how a process ended; negative codes are signals."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = ", perhaps for want of memory" if name == "SIGKILL" else ""
    return f"was ended by {name}{hint}"


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def require_device(profile: str) -> None:
    """Check that there is a GPU for the full profile.

    Raises:
        ValueError: there is none; the message names the other profile.
    """
    import torch

    if profile == "full" and not torch.cuda.is_available():
        raise ValueError("profile: full needs a GPU, but there is none; cpu is a reduced one")
