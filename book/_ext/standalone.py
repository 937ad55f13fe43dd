"""Chapters as notebooks that install the library where it is missing, for Colab and any machine.

    python book/_ext/standalone.py --out DIR

writes them; a build of the book writes them to its folder `standalone` and offers them beside each
chapter. They have no outputs, and Markdown that any reader of notebooks shows. With the environment
variable WSSS_LAB_COLAB, `owner/repository/blob/branch` of a public copy of DIR, pages also offer to
open them in Colab; without it there would be nothing to open. Needs nothing but Python.
"""

import argparse
import importlib.util
import json
import os
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = "https://wsss-lab.github.io/wsss-lab"
COLAB = "https://colab.research.google.com/github"

INSTALL = """\
# Does nothing where the library is there. Elsewhere, as on Colab, it installs the wheel that lies
# beside this notebook or, without one, that of the book's pages.
import importlib.util
from pathlib import Path

if importlib.util.find_spec("wsss_lab") is None:
    beside = sorted(Path().glob("wsss_lab-*.whl"))
    wheel = beside[-1].resolve().as_uri() if beside else "{wheel}"
    %pip install --quiet "wsss-lab[chapters] @ {{wheel}}"
"""
OPENS = re.compile(r"^(`{3,}|:{3,})\{([\w-]+)\}\s*(.*)$")
OPTION = re.compile(r"^:[\w-]+:")
LABEL = re.compile(r"^\([\w-]+\)=$")


def version() -> str:
    """That of the checkout, or of the installed library where a book is built elsewhere."""
    found = ROOT / "wsss_lab" / "__init__.py"
    if not found.is_file():
        found = Path(importlib.util.find_spec("wsss_lab").origin)
    text = found.read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"', text, re.M)[1]


def install_cell() -> str:
    return INSTALL.format(wheel=f"{PAGES}/wheel/wsss_lab-{version()}-py3-none-any.whl")


def role(match: re.Match) -> str:
    """What a reference of MyST reads like without Sphinx."""
    kind, text = match[1], " ".join(match[2].split())
    named = re.fullmatch(r"(.+?)\s*<([^>]+)>", text)
    words, target = (named[1], named[2]) if named else (text, text)
    if kind == "doc":
        return f"[{words}]({PAGES}/book/{target}.html)"
    if kind == "numref":
        return f"figure *{target.removeprefix('fig-')}*"
    if kind == "eq":
        return f"({target.removeprefix('eq-')})"
    if kind.startswith("cite"):
        return f"[{words}]"
    return words


def plain(text: str) -> str:
    """Markdown of a chapter without directives and roles; words and formulas stay."""
    lines, fresh, open_ = [], False, []
    for line in text.splitlines():
        if opened := OPENS.match(line):
            kind, title = opened[2], opened[3]
            open_.append((opened[1], kind))
            fresh = True
            head = {
                "exercise-start": f"**Exercise. {title}**",
                "solution-start": "**Solution**",
                "admonition": f"**{title}**",
                "literalinclude": f"Here the book shows `{title.lstrip('./')}`.",
            }.get(kind, "")
            lines += [head, ""] if head else []
        elif open_ and line == open_[-1][0]:
            open_.pop()
            fresh = False
        elif (fresh and OPTION.match(line)) or LABEL.match(line):
            continue
        elif open_ and open_[-1][1] == "shape":
            lines.append(f"*Shapes:* `{line}`")
        else:
            fresh = fresh and not line.strip()
            lines.append(line)
    shown = re.sub(r"\{([a-z]+(?::[a-z]+)?)\}`([^`]+)`", role, "\n".join(lines))
    return re.sub(r"\n\$\$ \(eq-([\w-]+)\)", r"\n\\tag{\1}\n$$", shown)


def standalone(notebook: dict) -> dict:
    """A chapter with a cell that installs the library, plain Markdown and no outputs."""
    cells = [{"cell_type": "code", "id": "install", "source": install_cell()}]
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        cells.append(
            {
                "cell_type": cell["cell_type"],
                "id": cell["id"],
                "source": source if is_code else plain(source),
            }
        )
    for cell in cells:
        cell["metadata"] = {}
        if cell["cell_type"] == "code":
            cell |= {"execution_count": None, "outputs": []}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    kept = [cell for cell in cells if cell["source"].strip()]
    return {"cells": kept, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def write(folder: Path, chapters: list[Path]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in chapters:
        text = json.dumps(standalone(json.loads(path.read_text(encoding="utf-8"))), indent=1)
        (folder / path.name).write_text(text + "\n", encoding="utf-8")


def offer(app, pagename, templatename, context, doctree):
    """Add the notebook, and Colab where there is something to open, to a chapter's downloads."""
    path = Path(app.srcdir) / f"{pagename}.ipynb"
    groups = [g for g in context.get("header_buttons", []) if g["label"] == "download-buttons"]
    if not path.is_file() or not groups:
        return
    buttons = [
        {
            "type": "link",
            "url": context["pathto"](f"standalone/{path.name}", 1),
            "text": ".ipynb that installs the library",
            "tooltip": "Download a notebook for Colab and other machines",
            "icon": "fas fa-box-open",
            "label": "download-standalone-button",
        }
    ]
    if place := os.environ.get("WSSS_LAB_COLAB", ""):
        buttons.append(
            {
                "type": "link",
                "url": f"{COLAB}/{place}/{path.name}",
                "text": "Colab",
                "tooltip": "Open this chapter in Colab",
                "icon": "fas fa-cloud",
                "label": "colab-button",
            }
        )
    groups[0]["buttons"] += buttons


def finish(app, exception):
    if exception is None and app.builder.name == "html":
        found = [Path(app.env.doc2path(name)) for name in sorted(app.env.found_docs)]
        write(Path(app.outdir) / "standalone", [path for path in found if path.suffix == ".ipynb"])


def setup(app):
    app.connect("html-page-context", offer, priority=900)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    write(parser.parse_args().out, sorted((ROOT / "book").glob("*.ipynb")))


if __name__ == "__main__":
    main()
