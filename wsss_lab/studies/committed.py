"""Whether git has a declaration as it lies there."""

import subprocess
from pathlib import Path


def is_committed(path: Path) -> bool | None:
    """Return whether git has exactly this version of the file; None if git does not track it."""

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", *arguments, "--", path.name]
        return subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)

    try:
        status = git("status", "--porcelain", "--ignored")
    except OSError:
        return None
    if status.returncode or status.stdout.startswith("!!"):
        return None
    return not status.stdout.strip()
