"""The built book as a reader opens it: from disk, offline, wide and narrow, light and dark.

`make test` builds the book and names its folder in WSSS_LAB_BOOK_HTML. Without it these checks are
skipped and say so; the small demo book is always built and checked.
"""

import importlib.metadata
import json
import os
import re
from pathlib import Path

import browser as look
import nbformat
import pytest
import yaml
from demo_book import build

BOOK = os.environ.get("WSSS_LAB_BOOK_HTML", "")
ROOT = Path(__file__).parents[2]
NEEDS_BOOK = pytest.mark.skipif(
    not BOOK, reason="WSSS_LAB_BOOK_HTML names no built book; `make test` builds one and sets it"
)
NEEDS_BROWSER = pytest.mark.skipif(
    look.find_chromium() is None, reason="no chromium or google-chrome on PATH; install chromium"
)
FOREIGN = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?\b(?:src|href)=["']https?://[^"']*""")


def toc_files(entry) -> list[str]:
    """Every document of a table of contents, the root first."""
    if isinstance(entry, list):
        return [name for item in entry for name in toc_files(item)]
    if not isinstance(entry, dict):
        return []
    own = [entry[key] for key in ("root", "file") if key in entry]
    return own + [n for key in ("parts", "chapters", "sections") for n in toc_files(entry.get(key))]


PAGES = toc_files(yaml.safe_load((ROOT / "_toc.yml").read_text()))


@pytest.fixture(scope="module")
def book():
    return Path(BOOK).resolve()


@pytest.fixture(scope="session")
def chromium():
    with look.chromium() as browser:
        yield browser


def test_jupyter_book_reads_our_configuration():
    """Version 2 ignores _config.yml and builds something else without an error."""
    assert importlib.metadata.version("jupyter-book").startswith("1.0")


@NEEDS_BOOK
@pytest.mark.parametrize(("old", "new"), [("scd", "tscd"), ("dual_teaching", "asdt")])
def test_the_old_address_of_a_chapter_leads_to_the_new_one(book, old, new):
    page = (book / "book" / f"{old}.html").read_text()
    assert re.search(rf"""http-equiv=["']refresh["'][^>]*url={new}\.html""", page)
    assert (book / "book" / f"{new}.html").is_file()


@NEEDS_BOOK
def test_every_page_of_the_toc_is_there(book):
    assert len(set(PAGES)) == len(PAGES)
    missing = [page for page in PAGES if not (book / f"{page}.html").is_file()]
    assert missing == []
    assert len(list(book.rglob("*.html"))) >= len(PAGES)


def foreign_resources(folder: Path) -> list[str]:
    """Scripts, styles, fonts and pictures that a page would fetch from the network."""
    found = []
    for path in folder.rglob("*.html"):
        for match in FOREIGN.findall(path.read_text(encoding="utf-8")):
            if 'rel="canonical"' not in match:
                found.append(f"{path.name}: {match[-120:]}")
    return found


@NEEDS_BOOK
def test_no_page_needs_the_network(book):
    assert foreign_resources(book) == []


@NEEDS_BOOK
def test_every_notebook_page_offers_its_notebook_and_no_launch_elsewhere(book):
    for page in PAGES:
        if (ROOT / f"{page}.ipynb").is_file():
            text = (book / f"{page}.html").read_text(encoding="utf-8")
            assert f'href="../_sources/{page}.ipynb"' in text
            installing = f"standalone/{Path(page).name}.ipynb"
            assert f'href="../{installing}"' in text
            nbformat.read(book / installing, as_version=4)
            offered = (book / "_sources" / f"{page}.ipynb").read_bytes()
            assert offered == (ROOT / f"{page}.ipynb").read_bytes()
            assert not re.search(r"colab\.research|mybinder|/hub/user-redirect", text)


def check_sweeps(page) -> int:
    strips = page.query_selector_all(".frame-strip")
    for strip in strips:
        before, after, value = look.move_sweep(page, strip)
        assert before != after
        assert len(after.split()) >= 5
        assert strip.query_selector("input").get_attribute("aria-valuetext") == value
    return len(strips)


def check_page(chromium, path: Path) -> int:
    """Everything that must hold on every page; returns how many sweeps it has.

    At two widths, then by keyboard, then in light and in dark: one visit, because opening and
    typesetting a chapter takes seconds.
    """
    visit = look.Visit(chromium)
    visit.open(path)
    assert look.unset_math(visit.page) == []
    for width in look.WIDTHS:
        visit.page.set_viewport_size({"width": width, "height": 900})
        assert look.overflow(visit.page) <= 0, f"wider than {width} px"
    visit.page.set_viewport_size({"width": look.WIDTHS[0], "height": 900})
    assert look.cut_in_print(visit.page) == []
    sweeps = check_sweeps(visit.page)
    for scheme in look.SCHEMES:
        look.set_scheme(visit.page, scheme)
        assert look.axe(visit.page) == [], scheme
    assert visit.complaints == []
    visit.close()
    return sweeps


def check_search(chromium, folder: Path, word: str, page: str):
    visit = look.Visit(chromium)
    visit.open(folder / "search.html", f"?q={word}")
    visit.page.wait_for_selector("#search-results ul.search li a", timeout=10_000)
    links = visit.page.eval_on_selector_all(
        "#search-results ul.search li a", "links => links.map(link => link.getAttribute('href'))"
    )
    assert any(page in link for link in links), links
    assert visit.complaints == []
    visit.close()


@NEEDS_BOOK
@NEEDS_BROWSER
@pytest.mark.parametrize("page", PAGES)
def test_page(chromium, book, page):
    sweeps = check_page(chromium, book / f"{page}.html")
    assert sweeps >= (ROOT / f"{page}.ipynb").is_file(), "a chapter has at least one sweep"


@NEEDS_BOOK
@NEEDS_BROWSER
def test_search_finds_a_word(chromium, book):
    check_search(chromium, book, "permutohedral", "glossary")
    check_search(chromium, book, "PAR", "refine")


@NEEDS_BOOK
@NEEDS_BROWSER
def test_index_leads_to_the_first_page(chromium, book):
    visit = look.Visit(chromium)
    visit.page.goto((book / "index.html").as_uri())
    visit.page.wait_for_url(f"**/{PAGES[0]}.html")
    assert visit.complaints == []
    visit.close()


@NEEDS_BROWSER
def test_demo_page(chromium, demo_html):
    assert foreign_resources(demo_html) == []
    page = demo_html / "book" / "demo.html"
    assert check_page(chromium, page) == 1
    check_search(chromium, demo_html, "threshold", "demo")


@NEEDS_BROWSER
def test_demo_figure_solution_and_stamp(chromium, demo_html):
    visit = look.Visit(chromium)
    visit.open(demo_html / "book" / "demo.html")
    page = visit.page
    figure = page.query_selector("figure#fig-demo")
    assert len(figure.query_selector("img").get_attribute("alt").split()) >= 5
    assert figure.query_selector("figcaption").inner_text().startswith("Fig. 1")
    assert "features (b d gh gw)" in page.query_selector("p.shape-line").inner_text()
    stamp = json.loads((Path(__file__).parent / "demo.ipynb").read_text())["metadata"]["wsss_lab"]
    assert stamp["executed"] in page.query_selector("p.run-stamp").inner_text()
    solution = page.query_selector("details:has(.solution), .solution.dropdown")
    assert "demo-1: correct." not in page.inner_text("body")
    solution.query_selector("summary, button").click()
    page.get_by_text("demo-1: correct.").wait_for(state="visible", timeout=5000)
    visit.close()


@NEEDS_BROWSER
def test_a_page_prints_in_light_with_its_solutions(chromium, demo_html):
    visit = look.Visit(chromium, scheme="dark")
    visit.open(demo_html / "book" / "demo.html")
    theme = "document.documentElement.dataset.theme"
    hidden = "document.querySelectorAll('.solution.toggle-hidden').length"
    assert visit.page.evaluate(hidden) > 0
    assert look.when_printed(visit.page, f"[{theme}, {hidden}]") == ["light", 0]
    assert visit.page.evaluate(theme) == "dark"
    visit.page.evaluate("() => document.querySelector('.bd-article pre').style.width = '60rem'")
    assert look.cut_in_print(visit.page) != []
    visit.close()


def test_a_broken_notebook_fails_the_build(tmp_path):
    """A warning, here of a reference to nothing, must turn the exit status."""
    notebook = json.loads((Path(__file__).parent / "demo.ipynb").read_text())
    notebook["cells"][0]["source"] += ["\n\nSee {numref}`fig-nowhere`."]
    broken = tmp_path / "broken.ipynb"
    broken.write_text(json.dumps(notebook))
    result = build(tmp_path / "book", broken)
    assert result.returncode != 0
    assert "fig-nowhere" in result.stdout + result.stderr


def test_every_module_has_a_place_in_the_reference():
    pages = [(ROOT / "book" / "api").glob("*.md"), [ROOT / "book" / "api.md"]]
    text = "\n".join(path.read_text() for group in pages for path in group)
    listed = set(" ".join(re.findall(r"```\{api\} ([^\n]+)", text)).split())
    layers = {
        f"wsss_lab.{path.stem}"
        for path in (ROOT / "wsss_lab").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and path.name[0] != "_"
    }
    assert listed == layers
