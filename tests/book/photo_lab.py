"""The page *Bring your own photo* without Sphinx: its own markup, in a page of nothing else."""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "book" / "photo.md"
STATIC = ROOT / "book" / "_static"
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from photo_page import photos_script  # noqa: E402


def markup() -> str:
    """The raw HTML of the page."""
    return re.search(r"```\{raw\} html\n(.*?)```", SOURCE.read_text(encoding="utf-8"), re.S)[1]


THEME = """<style>
html { --pst-color-background: #fff; --pst-color-text-base: #222; }
html[data-theme="dark"] { --pst-color-text-base: #ced6dd; }
body { background: var(--pst-color-background); color: var(--pst-color-text-base); }
a { color: var(--pst-color-link); }
</style>"""
"""Colours that the theme of the book would set."""


def make(folder: Path) -> Path:
    """Write the page and what it loads, as the book would; return it."""
    shutil.copytree(STATIC / "photo", folder / "_static" / "photo")
    shutil.copy(STATIC / "wsss.css", folder / "_static")
    (folder / "_static" / "photo" / "photos.js").write_text(photos_script(), encoding="ascii")
    page = folder / "book" / "photo.html"
    page.parent.mkdir()
    page.write_text(
        '<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">'
        '<title>Photo</title><link rel="stylesheet" href="../_static/wsss.css">'
        f'{THEME}<main class="bd-article"><h1>Photo</h1>{markup()}</main></html>',
        encoding="utf-8",
    )
    return page
