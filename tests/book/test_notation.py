"""One symbol, one meaning: the tables of notation.md against every displayed equation."""

import json
import re

import pytest
from hygiene import EQUATION, ROOT, prose
from symbols import symbols

PAGE = (ROOT / "book" / "notation.md").read_text(encoding="utf-8")
CHAPTERS = sorted(path.stem for path in (ROOT / "book").glob("*.ipynb"))
AXES = {"b", "k", "h", "w", "n", "a", "l", "d"}
SIGNS = {"\\sigma", "T"}
"""The logistic function, and the sign of a transpose."""
NEAR_THEIR_PAPERS = {"tscd", "asdt", "acr", "cosa"}
"""Only these chapters may use a letter of the first table in another sense."""


def rows(heading: str) -> list[list[str]]:
    section = PAGE.split(heading)[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def listed(cell: str) -> set[str]:
    return symbols(" ".join(re.findall(r"\$(.+?)\$", cell)))


def of_everywhere() -> list[set[str]]:
    return [listed(row[0]) for row in rows("## Symbols")]


def of_chapters() -> dict[str, list[set[str]]]:
    found = {stem: [] for stem in CHAPTERS}
    for symbol, stem, *_ in rows("### Letters of one chapter"):
        found[stem].append(listed(symbol))
    return found


def used(stem: str) -> set[str]:
    notebook = json.loads((ROOT / "book" / f"{stem}.ipynb").read_text(encoding="utf-8"))
    formulas = [match[1] for text in prose(notebook) for match in EQUATION.finditer(text)]
    return set().union(*map(symbols, formulas))


def twice(sets: list[set[str]]) -> set[str]:
    return {s for one in sets for s in one if sum(s in other for other in sets) > 1}


def test_the_tables_are_read():
    assert len(of_everywhere()) > 30
    assert {"\\hat y", "M", "\\bar K", "M'", "c"} <= set().union(*of_everywhere())
    assert {"\\mathcal C"} in of_chapters()["data"]


def test_no_symbol_has_two_rows():
    assert twice(of_everywhere()) == set()


@pytest.mark.parametrize("stem", CHAPTERS)
def test_no_letter_of_a_chapter_has_two_rows(stem):
    assert twice(of_chapters()[stem]) == set()


@pytest.mark.parametrize("stem", CHAPTERS)
def test_every_symbol_of_an_equation_is_listed(stem):
    known = set().union(AXES, SIGNS, *of_everywhere(), *of_chapters()[stem])
    assert used(stem) - known == set(), f"add a row for chapter {stem} to book/notation.md"


@pytest.mark.parametrize("stem", CHAPTERS)
def test_every_letter_of_a_chapter_is_used_there(stem):
    assert set().union(*of_chapters()[stem]) - used(stem) == set()


@pytest.mark.parametrize("stem", [stem for stem in CHAPTERS if stem not in NEAR_THEIR_PAPERS])
def test_letters_of_a_chapter_are_not_those_of_all(stem):
    everywhere = set().union(AXES, SIGNS, *of_everywhere())
    assert set().union(*of_chapters()[stem]) & everywhere == set()


def test_another_sense_is_said_where_it_is_listed():
    everywhere = set().union(*of_everywhere())
    for symbol, stem, _, meaning in rows("### Letters of one chapter"):
        if listed(symbol) & everywhere:
            assert "elsewhere" in meaning, f"{symbol} in {stem}"


@pytest.mark.parametrize(
    ("formula", "found"),
    [
        (r"\hat z_c = \sum_{d} W_{c,d}\, F_{d,i}", {"\\hat z", "c", "d", "W", "F", "i"}),
        (r"L_{seg} = \operatorname{sg}(M'_{k}) + \beta_{hi}", {"L", "M'", "k", "\\beta"}),
        (r"\theta'_t + \tilde{M}_{\text{loss}}", {"\\theta'", "t", "\\tilde M"}),
        (r"(r + 1)^{hw} \in \mathcal{C}", {"r", "\\mathcal C"}),
        (r"\bar\Phi + \mathrm{IoU}_c", {"\\bar \\Phi", "c"}),
    ],
)
def test_symbols_of_a_formula(formula, found):
    assert symbols(formula) == found
