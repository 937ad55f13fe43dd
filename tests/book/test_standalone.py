"""Chapters that install the library: what they hold, what their first cell does, where they are."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import standalone
import yaml
from hygiene import code_cells, source
from IPython.core.inputtransformer2 import TransformerManager

import wsss_lab

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_keeps_its_code_and_its_words(path):
    chapter = json.loads(path.read_text(encoding="utf-8"))
    made = standalone.standalone(chapter)
    nbformat.validate(made)
    first, *code = [source(cell) for cell in code_cells(made)]
    assert first == standalone.install_cell()
    assert code == [source(cell) for cell in code_cells(chapter)]
    prose = "\n".join(source(c) for c in made["cells"] if c["cell_type"] == "markdown")
    assert re.findall(r"^(?::::|```\{).*|\{[a-z:]+\}`[^`]*`|^\$\$ \(eq.*", prose, re.M) == []
    titles = re.findall(r"^#+ .*", prose, re.M)
    assert titles == [
        line
        for cell in chapter["cells"]
        if cell["cell_type"] == "markdown"
        for line in re.findall(r"^#+ .*", standalone.plain(source(cell)), re.M)
    ]


def test_markup_becomes_plain_words():
    text = """(here)=
:::{admonition} In this chapter
:class: chapter-card

See {doc}`cam` and {term}`a map <map>`.

```bash
make test
```
:::

$$
M = 1
$$ (eq-one)

```{shape}
maps (b k)
```"""
    assert standalone.plain(text).splitlines() == [
        "**In this chapter**",
        "",
        "",
        f"See [cam]({standalone.PAGES}/book/cam.html) and a map.",
        "",
        "```bash",
        "make test",
        "```",
        "",
        "$$",
        "M = 1",
        "\\tag{one}",
        "$$",
        "",
        "*Shapes:* `maps (b k)`",
    ]


def installed(monkeypatch, there: bool) -> list[str]:
    """What the first cell asks pip for, in the present folder."""
    asked = []
    find = (lambda name: object()) if there else (lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", find)
    cell = TransformerManager().transform_cell(standalone.install_cell())
    space = {}

    def run_line_magic(name, line):
        asked.append(f"{name} {line}".format(**space))

    space["get_ipython"] = lambda: SimpleNamespace(run_line_magic=run_line_magic)
    exec(cell, space)
    return asked


def test_the_first_cell_installs_what_lies_beside_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert installed(monkeypatch, there=True) == []
    wheel = f"wsss_lab-{wsss_lab.__version__}-py3-none-any.whl"
    (asked,) = installed(monkeypatch, there=False)
    assert asked == f'pip install --quiet "wsss-lab[chapters] @ {standalone.PAGES}/wheel/{wheel}"'
    (tmp_path / wheel).touch()
    (asked,) = installed(monkeypatch, there=False)
    assert asked.endswith(f'@ {(tmp_path / wheel).resolve().as_uri()}"')


def buttons(monkeypatch, colab: str, page: str = "book/start"):
    monkeypatch.setenv("WSSS_LAB_COLAB", colab)
    groups = [{"label": "download-buttons", "buttons": []}]
    context = {"header_buttons": groups, "pathto": lambda name, resource: f"../{name}"}
    standalone.offer(SimpleNamespace(srcdir=ROOT), page, "page.html", context, None)
    return [button["url"] for button in groups[0]["buttons"]]


def test_pages_offer_colab_only_where_there_is_something_to_open(monkeypatch):
    assert buttons(monkeypatch, "") == ["../standalone/start.ipynb"]
    assert buttons(monkeypatch, "some/copy/blob/colab") == [
        "../standalone/start.ipynb",
        "https://colab.research.google.com/github/some/copy/blob/colab/start.ipynb",
    ]
    assert buttons(monkeypatch, "", page="book/glossary") == []


def test_the_branch_that_pages_name_is_the_one_that_is_pushed():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "pages.yml").read_text())
    steps = {name: job["steps"] for name, job in workflow["jobs"].items()}
    place = next(s["env"]["WSSS_LAB_COLAB"] for s in steps["build"] if "env" in s)
    assert place == "${{ github.repository }}/blob/colab"
    push = steps["colab"][-1]["run"]
    assert "standalone.py --out colab" in push
    assert push.strip().endswith("colab")
    assert any("_build/html/wheel" in s.get("run", "") for s in steps["build"])
