"""A small book of its own around one notebook, with the configuration of the real one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DEMO_TOC = {
    "format": "jb-book",
    "root": "book/demo",
    "chapters": [{"file": f"book/{page}"} for page in ("glossary", "bibliography", "notation")],
}


def build(folder: Path, notebook: Path) -> subprocess.CompletedProcess:
    """Build a book in `folder`; its root page is the notebook."""
    shutil.copytree(ROOT / "book", folder / "book", ignore=shutil.ignore_patterns("*.ipynb"))
    shutil.copy(notebook, folder / "book" / "demo.ipynb")
    shutil.copy(ROOT / "_config.yml", folder)
    (folder / "_toc.yml").write_text(yaml.safe_dump(DEMO_TOC))
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", str(folder)]
    return subprocess.run(
        [*command, "-n", "-W", "--keep-going"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
    )
