"""What a stored notebook must be, as functions from a notebook to a list of complaints."""

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
from wsss_book import GROUP, unknown_letters  # noqa: E402

MAX_NOTEBOOK = 2_000_000
MAX_OUTPUT = 400_000
MAX_SECONDS = 180
VARIES = "<!-- varies -->"
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
PRIVATE = re.compile(r"(/home/|/root/|/Users/|/tmp/|[A-Z]:\\\\Users)")
EQUATION = re.compile(r"\$\$(.+?)\$\$(?P<rest>[^\n]*)", re.S)
LABEL = re.compile(r"^ \(eq-[a-z0-9-]+\)$")
FIGURE = re.compile(r"\{numref\}`(?:[^`<]*<)?([\w-]+)>?`")
SHAPE = re.compile(r"```\{shape\}\n(.*?)\n```", re.S)


def source(cell) -> str:
    return "".join(cell["source"])


def tags(cell) -> list[str]:
    return cell["metadata"].get("tags", [])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def prose(notebook) -> list[str]:
    return [source(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def outputs(cell, kind: str):
    """The data of every output of a cell that has this MIME type."""
    return [o["data"][kind] for o in cell.get("outputs", []) if kind in o.get("data", {})]


def html_of(cell) -> str:
    return "".join("".join(data) for data in outputs(cell, "text/html"))


def figures(notebook) -> list[str]:
    """Every image has a caption, a name of its own, and a sentence for who cannot see it."""
    found, names = [], set()
    for i, cell in enumerate(code_cells(notebook), 1):
        pictures = [data for kind in PICTURES for data in outputs(cell, kind)]
        if not pictures or "remove-output" in tags(cell):
            continue
        about = cell["metadata"].get("mystnb", {})
        figure, alt = about.get("figure", {}), about.get("image", {}).get("alt", "")
        if len(pictures) > 1:
            found.append(f"code cell {i}: {len(pictures)} images; one figure for each cell")
        if not figure.get("caption") or not figure.get("name", "").startswith("fig-"):
            found.append(f"code cell {i}: mystnb.figure needs a caption and a name like 'fig-...'")
        if figure.get("name") in names:
            found.append(f"code cell {i}: the name {figure['name']!r} is taken")
        names.add(figure.get("name"))
        if len(alt.split()) < 5 or "/" in alt or not alt.endswith("."):
            found.append(f"code cell {i}: mystnb.image.alt must be a sentence, got {alt!r}")
    return found


def mentioned(notebook) -> list[str]:
    """The prose refers to every figure, so that none stands there without a reason."""
    names = [
        c["metadata"].get("mystnb", {}).get("figure", {}).get("name") for c in notebook["cells"]
    ]
    said = set(FIGURE.findall("\n".join(prose(notebook))))
    return [f"no text refers to the figure {name}" for name in names if name and name not in said]


def order(notebook) -> list[str]:
    """Run top to bottom in a fresh kernel, without errors, and nothing left empty."""
    found = []
    for i, cell in enumerate(code_cells(notebook), 1):
        if not source(cell).strip():
            found.append(f"code cell {i} is empty")
        if cell.get("execution_count") != i:
            found.append(f"code cell {i} has execution count {cell.get('execution_count')}")
        errors = [o for o in cell.get("outputs", []) if o["output_type"] == "error"]
        if errors and "raises-exception" not in tags(cell):
            found.append(f"code cell {i} ended in {errors[0].get('ename')}")
        if any(o.get("name") == "stderr" for o in cell.get("outputs", [])):
            found.append(f"code cell {i} wrote to stderr; stop the warning where it comes from")
    return found


def portable(notebook) -> list[str]:
    """No widget state, no timestamps, no paths of one machine, no heavy outputs."""
    found = []
    text = json.dumps(notebook)
    if "widget-view+json" in text or "widgets" in notebook["metadata"]:
        found.append(
            "widget state is stored; tag the cell remove-output and clean with `make execute`"
        )
    if "language_info" in notebook["metadata"] or "papermill" in notebook["metadata"]:
        found.append("kernel details are stored; clean with `make execute`")
    if len(text) > MAX_NOTEBOOK:
        found.append(f"{len(text)} bytes, more than {MAX_NOTEBOOK}")
    for i, cell in enumerate(code_cells(notebook), 1):
        if "execution" in cell["metadata"]:
            found.append(f"code cell {i} has timestamps; clean with `make execute`")
        for output in cell.get("outputs", []):
            if len(json.dumps(output)) > MAX_OUTPUT:
                found.append(f"code cell {i} has an output above {MAX_OUTPUT} bytes")
        # base64 text contains slashes by chance, so pictures are left out of the search
        plain = [o for o in cell.get("outputs", []) if o["output_type"] != "display_data"]
        words = re.sub(r"base64,[\w+/=]+", "", source(cell) + json.dumps(plain))
        words = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", words)
        if match := PRIVATE.search(words):
            found.append(f"code cell {i} names a folder of one machine: {match[0]}")
    return found


def stamp(notebook) -> list[str]:
    """Says when, with what and for how long it ran, and that was not too long."""
    known = notebook["metadata"].get("wsss_lab", {})
    if missing := {"executed", "seconds", "device", "versions"} - set(known):
        return [f"run stamp lacks {sorted(missing)}; use `make execute`"]
    if known["seconds"] > MAX_SECONDS:
        return [f"took {known['seconds']} s, more than {MAX_SECONDS}"]
    return []


def equations(notebook) -> list[str]:
    """Every displayed equation has a label and, next, a shape line in the letters of the legend."""
    found = []
    for text in prose(notebook):
        for match in EQUATION.finditer(text):
            if not LABEL.match(match["rest"]):
                found.append(f"equation without `(eq-...)` after $$: {match[1].strip()[:50]!r}")
            follows = text[match.end() :].lstrip("\n")
            if not follows.startswith("```{shape}"):
                found.append(f"equation without a shape line below it: {match[1].strip()[:50]!r}")
        for line in SHAPE.findall(text):
            if not GROUP.search(line) or unknown_letters(line):
                found.append(f"shape line outside the legend: {line!r} {unknown_letters(line)}")
    return found


def opening(notebook) -> list[str]:
    """Title, then goals, prerequisites and minutes before the first code but a picture's."""
    before = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            if "opening-figure" in tags(cell):
                continue
            break
        before.append(source(cell))
    text = "\n\n".join(before)
    wanted = {
        "a title": r"\A(\(.*\)=\n)?# \S",
        "**Goals.**": r"\*\*Goals\.\*\*",
        "a table of prerequisites": r"^\| Prerequisite",
        "**Minutes.** with a number": r"\*\*Minutes\.\*\*[^\n]*\d",
    }
    return [
        f"the opening lacks {what}" for what, p in wanted.items() if not re.search(p, text, re.M)
    ]


def sweeps(notebook) -> list[str]:
    """At least one frame strip."""
    if any('class="frame-strip"' in html_of(cell) for cell in code_cells(notebook)):
        return []
    return ["no frame strip; show one sweep with wsss_lab.viz.frame_strip"]


def exercise_labels(notebook) -> tuple[set[str], set[str]]:
    text = "\n".join(prose(notebook))
    asked = set(re.findall(r"\{exercise-start\}[^\n]*\n:label: (\S+)", text))
    solved = re.findall(r"\{solution-start\} (\S+)\n:label: \S+\n:class: dropdown", text)
    return asked, set(solved)


def exercises(notebook, least: int = 4) -> list[str]:
    """Enough exercises; each is checked in a code cell and has a collapsed solution."""
    asked, solved = exercise_labels(notebook)
    code = "\n".join(source(cell) for cell in code_cells(notebook))
    checked = set(re.findall(r"check\(\s*[\"']([\w-]+)[\"']", code))
    found = [] if len(asked) >= least else [f"{len(asked)} exercises, expected {least} or more"]
    found += [f"exercise {label} has no collapsed solution" for label in sorted(asked - solved)]
    found += [f"exercise {label} is never checked" for label in sorted(asked - checked)]
    return found


def held(notebook) -> list[str]:
    """Outputs are compared; a table that leaves its numbers out has claims at most two cells on."""
    found, cells = [], code_cells(notebook)
    for i, cell in enumerate(cells, 1):
        if "nbval-ignore-output" in tags(cell):
            found.append(f"code cell {i} is not compared; use `table(varies=True)` and claims")
        varies = any(VARIES in "".join(text) for text in outputs(cell, "text/markdown"))
        if varies and not any("claim(" in source(after) for after in cells[i - 1 : i + 2]):
            found.append(f"code cell {i}: a table that varies, and no claim holds its numbers")
    return found


WORDS_A_MINUTE = 180
FOLDED = ("hide-input", "remove-input", "remove-output", "opening-figure")


def reading_minutes(notebook) -> float:
    """Words at the pace of technical prose, half a minute for a cell of open code, one for an
    equation; exercises are left out."""
    text, cells = "", 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text += source(cell) + "\n"
        elif "## Exercises" not in text or "## Summary" in text:
            cells += not set(tags(cell)) & set(FOLDED)
    text = re.sub(r"## Exercises.*?(?=## Summary|\Z)", "", text, flags=re.S)
    formulas = len(EQUATION.findall(text))
    words = len(re.findall(r"[A-Za-z]+", SHAPE.sub("", EQUATION.sub("", text))))
    return words / WORDS_A_MINUTE + cells / 2 + formulas


def minutes(notebook) -> list[str]:
    """The opening states minutes to read and to run that the page bears out."""
    text = "\n".join(prose(notebook))
    stated = re.search(r"\*\*Minutes\.\*\* (\d+) to read, (less than )?(\d+) to run", text)
    if not stated:
        return ["the opening lacks '**Minutes.** R to read, E to run'"]
    found = []
    measured = reading_minutes(notebook)
    if abs(int(stated[1]) - measured) > 5:
        found.append(f"states {stated[1]} minutes to read, measured {measured:.0f}")
    run = notebook["metadata"].get("wsss_lab", {}).get("seconds", 0) / 60
    if run > int(stated[3]):
        found.append(f"states {stated[3]} minutes to run, its stamp has {run:.1f}")
    return found


def folded(notebook) -> list[str]:
    """Code that draws figures and cells of imports alone are folded away."""
    found = []
    for i, cell in enumerate(code_cells(notebook), 1):
        draws = any(outputs(cell, kind) for kind in PICTURES)
        lines = [line for line in source(cell).splitlines() if line and line[0] not in " #)"]
        imports = len(lines) > 3 and all(re.match("import |from ", line) for line in lines)
        if (draws or imports) and not set(tags(cell)) & set(FOLDED):
            found.append(f"code cell {i} draws or imports only; tag it hide-input")
    return found


EVERY_NOTEBOOK = (order, portable, held)
EVERY_CHAPTER = (*EVERY_NOTEBOOK, figures, mentioned, stamp, equations, opening, sweeps, exercises)
