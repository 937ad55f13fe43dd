"""What the book needs beyond Jupyter Book: shape lines, a run stamp, pages that ask no network."""

import importlib
import json
import pkgutil
import re
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

LOGGER = logging.getLogger(__name__)

LETTERS = frozenset({"b", "k", "k1", "h", "w", "gh", "gw", "n", "a", "l", "d"})
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
            raise self.error(
                "a shape line needs at least one `name (axes)`, e.g. `image (b 3 h w)`"
            )
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


def handed_on(package) -> dict[str, str]:
    """Public names that a package imports from its own modules, with the module each is from."""
    return {
        name: value.__module__
        for name, value in sorted(vars(package).items())
        if not name.startswith("_")
        and hasattr(value, "__qualname__")
        and str(value.__module__).startswith(f"{package.__name__}.")
    }


def public_modules(name: str, inner: bool = False) -> list[str]:
    """A layer such as `wsss_lab.data` and the modules in it.

    Of a package inside a layer only the modules count whose names it hands on, if it does: the rest
    is how it works, not what it offers.
    """
    module = importlib.import_module(name)
    below = [info.name for info in pkgutil.iter_modules(getattr(module, "__path__", []))]
    below = [f"{name}.{part}" for part in sorted(below) if not part.startswith("_")]
    if inner and (homes := set(handed_on(module).values())):
        below = [part for part in below if part in homes]
    return [name, *(found for part in below for found in public_modules(part, inner=True))]


class Api(SphinxDirective):
    """The reference of some layers: a section for each module, found, not listed."""

    required_arguments = 1
    final_argument_whitespace = True

    def imported_names(self, package):
        """A line that says what a package hands on from its modules, or nothing."""
        homes = handed_on(importlib.import_module(package))
        links = ", ".join(f":py:obj:`~{home}.{name}`" for name, home in homes.items())
        return [f"Import from ``{package}``: {links}.", ""] if links else []

    def section(self, module):
        section = nodes.section(ids=[f"api-{module.replace('.', '-').replace('_', '-')}"])
        title = nodes.title()
        title += nodes.literal("", module)
        section += title
        options = ["   :members:", "   :ignore-module-all:", "   :exclude-members: set", ""]
        lines = ["```{eval-rst}", f".. automodule:: {module}", *options]
        lines += [*self.imported_names(module), "```"]
        self.state.nested_parse(StringList(lines, source=module), self.content_offset, section)
        return section

    def run(self):
        sections = []
        for layer in self.arguments[0].split():
            first, *modules = public_modules(layer)
            sections.append(self.section(first))
            # Answers stay out: the modules in `exercises` hold what readers are asked to find.
            if not layer.endswith(".exercises"):
                sections[-1] += [self.section(module) for module in modules]
        return sections


def keep_colons(app, what, name, obj, options, lines):
    """Napoleon reads `Words: more words` under a constant as its type; an empty comment helps."""
    if what in ("attribute", "data", "property") and lines:
        lines[:0] = ["..", ""]


def markdown_tables(app, what, name, obj, options, lines):
    """Tables in docstrings are written the Markdown way, which reads well in an editor."""
    out, rows = [], []
    for line in [*lines, ""]:
        if line.strip().startswith("|") and line.strip().endswith("|"):
            rows.append([cell.strip() for cell in line.strip().strip("|").split("|")])
            continue
        if rows:
            out += ["", ".. list-table::", "   :header-rows: 1", ""]
            for row in (row for row in rows if not all(set(c) <= set("-: ") for c in row)):
                out += [f"   {'  ' if i else '* '}- {cell}" for i, cell in enumerate(row)]
            out.append("")
            rows = []
        out.append(line)
    lines[:] = out


def internal_type(app, env, node, contnode):
    """A type of ours that exists but has no entry, such as a private one, is shown without link."""
    module, _, name = node.get("reftarget", "").rpartition(".")
    if not module.startswith("wsss_lab."):
        return None
    try:
        found = hasattr(importlib.import_module(module), name)
    except ModuleNotFoundError:
        return None
    return contnode if found else None


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


SIGNATURE_LINES = re.compile(r"<dl>\n((?:<dd>.*?</dd>\n?)+)</dl>", re.S)


def repair_markup(app, pagename, templatename, context, doctree):
    """Replace markup that Sphinx writes and that screen readers cannot make sense of."""
    body = context.get("body")
    if not body:
        return

    def lines(match):
        inner = match[1].replace("<dd>", '<span class="sig-line">').replace("</dd>", "</span>")
        return f'<span class="sig-lines">{inner}</span>'

    body = SIGNATURE_LINES.sub(lines, body)  # a list of descriptions without anything described
    body = body.replace(' role="doc-biblioentry"', "")  # deprecated in ARIA 1.3
    # the label of a folded cell differs from the words that are shown on it
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    context["body"] = body.replace(' role="list" class="citation-list"', ' class="citation-list"')


def share_navigation(app, pagename, templatename, context, doctree):
    """Make the navigation of source pages once for each depth of their folder.

    None of the hundreds of pages below `_modules` stands in the table of contents, so theirs are
    alike but for the way up to the root; resolving it anew for each took half of the build.
    """
    if not pagename.startswith("_modules/"):
        return
    depth, resolve = pagename.count("/"), context["toctree"]
    made = app.builder.__dict__.setdefault("wsss_navigation", {})

    def toctree(**kwargs):
        key = (depth, *sorted(kwargs.items()))
        if key not in made:
            made[key] = resolve(**kwargs)
        return made[key]

    context["toctree"] = toctree


def setup(app):
    app.add_directive("shape", Shape)
    app.add_directive("api", Api)
    app.connect("autodoc-process-docstring", markdown_tables, priority=300)
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("missing-reference", internal_type)
    app.connect("doctree-read", add_run_stamp)
    # before the theme, which asks for the navigation at priority 500
    app.connect("html-page-context", share_navigation, priority=400)
    app.connect("html-page-context", keep_pages_local, priority=900)
    app.connect("html-page-context", repair_markup, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
