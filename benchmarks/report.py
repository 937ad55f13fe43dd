"""What the scripts beside it do with what they found."""

import json
from pathlib import Path
from typing import Any


def report(result: dict[str, Any], path: Path | None) -> None:
    """Print as JSON, and write the same to a file if there is one."""
    text = json.dumps(result, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n")
