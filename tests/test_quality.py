"""The page on quality names only checks that exist, and its summary is that of its entries."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BOOK = ROOT / "book"
PAGE = (BOOK / "quality.md").read_text(encoding="utf-8")
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
VERDICTS = ("kept", "kept in part", "not kept")


def entries():
    """(number, text) of every statement."""
    parts = re.split(r"^### (\d+)\. ", PAGE, flags=re.M)[1:]
    texts = [part.split("\n## ")[0] for part in parts[1::2]]
    return list(zip(map(int, parts[::2]), texts, strict=True))


def functions(path):
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def code(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")


def test_there_are_25_with_a_check_and_a_verdict():
    assert [number for number, _ in entries()] == list(range(1, 26))
    for number, text in entries():
        assert text.count("**Check.**") == 1, number
        assert len(re.findall(r"^\*\*(Kept|Kept in part|Not kept)\.\*\*", text, re.M)) == 1, number


def test_the_summary_is_that_of_the_entries():
    found = {verdict: [] for verdict in VERDICTS}
    for number, text in entries():
        (verdict,) = re.findall(r"^\*\*(Kept|Kept in part|Not kept)\.\*\*", text, re.M)
        found[verdict.lower()].append(number)
    for verdict, numbers in found.items():
        assert f"| {verdict} | {', '.join(map(str, numbers))} |" in PAGE


def test_a_missing_part_is_named():
    for number, text in entries():
        for reason in re.findall(r"^\*\*(?:Kept in part|Not kept)\.\*\*(.*)", text, re.M | re.S):
            assert len(reason.split()) >= 4, number


def test_every_file_is_there():
    names = r"[\w./-]*/[\w./-]+|[A-Z]+\.\w+|LICENSE|constraints\.txt"
    named = set(re.findall(rf"(?<!\}})`({names})`", PAGE))
    assert len(named) > 25
    for name in named:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize(("number", "text"), entries(), ids=[str(n) for n, _ in entries()])
def test_every_check_is_in_a_file_that_the_entry_names(number, text):
    files = [ROOT / name for name in re.findall(r"`(tests/[\w/]+\.py)`", text)]
    known = set().union(*(functions(path) for path in files))
    if "`test_a_broken_notebook_fails_the_build`" in text:
        known |= functions(ROOT / "tests" / "book" / "test_built.py")
    checks = set(re.findall(r"`(test_\w+)`", text))
    rules = {"opening", "stamp", "held", "equations", "figures", "exercises", "portable"}
    checks |= rules & set(re.findall(r"`(\w+)`", text))
    assert checks - known == set(), number


def test_every_make_target_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make (\w+)`", PAGE)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_all_chapters_run_in_fifteen_minutes():
    stamps = [json.loads(path.read_text())["metadata"]["wsss_lab"] for path in CHAPTERS]
    assert sum(stamp["seconds"] for stamp in stamps) <= 15 * 60


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_compares_with_the_library(path):
    assert "assert_close(" in code(path)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_every_chapter_uses_the_small_example(path):
    assert re.search(r"from wsss_lab\.data(\.tiny import| import tiny)", code(path))


def test_no_page_shows_a_picture_from_a_file():
    for path in BOOK.rglob("*"):
        if path.suffix == ".md" or path in CHAPTERS:
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".ipynb":
                cells = json.loads(text)["cells"]
                text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] != "code")
            # a script draws these from records; tests/book/test_side_by_side.py draws them again
            drawn = r"```\{image\} side_by_side/[\w-]+\.webp\n"
            text = re.sub(drawn, "", text) if path.name == "side_by_side.md" else text
            shown = re.findall(r"!\[[^\]]*\]\(|\{(?:image|figure)\}|<img\b", text)
            assert shown == [], path.name


def test_what_the_page_calls_missing_is_missing():
    """When one of these comes, the page has to say so."""
    everything = "\n".join(
        path.read_text(encoding="utf-8", errors="ignore")
        for folder in (ROOT / ".github" / "workflows", ROOT / ".ci")
        for path in folder.iterdir()
    )
    everything += (ROOT / "Makefile").read_text() + (ROOT / "pyproject.toml").read_text()
    assert "doctest" not in everything


def test_lint_checks_what_is_installed():
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^lint:.*\n(\t.*\n)*\t.*pip check", makefile, re.M)
