"""What the book needs beyond Jupyter Book: shape lines, a run stamp, pages that ask no network."""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)

LETTERS = frozenset("b k k1 h w gh gw n a l d".split())
"""The legend of `wsss_lab/__init__.py`; a shape line may use these, numbers and sums of them."""

GROUP = re.compile(r"\(([^()]*)\)")
SUM = re.compile(r"[\w+*/-]+")


def unknown_letters(line: str) -> list[str]:
    """Axis names in a shape line that the legend does not have.

    Axes stand between round brackets, apart by spaces: `features (b d gh gw)`. An axis is a letter
    of the legend, a number, or arithmetic on these such as `2*h` or `gh*gw`.
    """
    found = []
    for group in GROUP.findall(line):
        for axis in group.replace(",", " ").split():
            atoms = re.split(r"[+*/-]", axis)
            if not all(atom in LETTERS or atom.isdigit() for atom in atoms):
                found.append(axis)
    return found


class Shape(SphinxDirective):
    """A line under an equation that names the axes of every array in it."""

    has_content = True

    def run(self):
        text = " ".join(self.content).strip()
        if not GROUP.search(text):
            raise self.error("a shape line needs at least one `name (axes)`, e.g. `image (b 3 h w)`")
        if wrong := unknown_letters(text):
            raise self.error(f"shape line uses {wrong}, which the legend does not have")
        paragraph = nodes.paragraph(classes=["shape-line"])
        paragraph += nodes.inline("", "shapes", classes=["shape-word"])
        paragraph += nodes.Text(" ")
        for part in re.split(r"\s+([·→;])\s+", text):
            if part in "·→;":
                paragraph += nodes.inline("", f" {part} ", classes=["shape-sign"])
            else:
                paragraph += nodes.literal("", part)
        return [paragraph]


def add_run_stamp(app, doctree):
    """Say at the end of an executed page when, with which versions and how long it ran."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    stamp = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("wsss_lab")
    if not stamp:
        LOGGER.warning("%s has no run stamp; use `make execute`", path.name)
        return
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items())
    text = (
        f"Last executed on {stamp['executed']} in {stamp['seconds']} s on {stamp['device']}, "
        f"with {versions}. The outputs on this page are those of that run."
    )
    place = next(doctree.findall(nodes.section), doctree)
    place += nodes.paragraph("", text, classes=["run-stamp"])


def keep_pages_local(app, pagename, templatename, context, doctree):
    """Leave out sphinx-thebe, which declares its address twice and fetches it from the network."""

    def wanted(script):
        attributes = getattr(script, "attributes", {})
        return "THEBE" not in (attributes.get("body") or "") and "thebe" not in str(
            getattr(script, "filename", "") or ""
        )

    context["script_files"] = [s for s in context.get("script_files", []) if wanted(s)]


def setup(app):
    app.add_directive("shape", Shape)
    app.connect("doctree-read", add_run_stamp)
    app.connect("html-page-context", keep_pages_local, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
