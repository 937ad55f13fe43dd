"""A small book of its own around the demo notebook, built once."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEMO_TOC = {
    "format": "jb-book",
    "root": "book/demo",
    "chapters": [{"file": f"book/{page}"} for page in ("glossary", "bibliography", "notation")],
}


def build(folder: Path, notebook: Path) -> subprocess.CompletedProcess:
    """Build a book in `folder` from one notebook, with the configuration of the real one."""
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


@pytest.fixture(scope="session")
def demo_html(tmp_path_factory):
    pytest.importorskip("jupyter_book")
    folder = tmp_path_factory.mktemp("demo-book")
    result = build(folder, Path(__file__).parent / "demo.ipynb")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return folder / "_build" / "html"
