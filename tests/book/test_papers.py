"""Pages `papers` and `since`: what they name exists, what they quote is what is recorded."""

import re
from dataclasses import fields, is_dataclass
from importlib import import_module
from statistics import fmean

import pytest
from hygiene import ROOT

from wsss_lab.records import load_record
from wsss_lab.runs.published import published_results
from wsss_lab.runs.recipe import find_preset, find_recipe
from wsss_lab.studies.results import SIGNS

PAPERS = (ROOT / "book" / "papers.md").read_text(encoding="utf-8")
SINCE = (ROOT / "book" / "since.md").read_text(encoding="utf-8")
BIB = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
METHODS = ("TSCD", "ASDT", "ACR", "CoSA")
FIVE = ("acr2",)
"""Studies with five seeds; the others have three."""
ROLE = re.compile(r"\{[\w:]+\}`[^`]*`")
NUMBER = r"[+−]\d+\.\d"
EFFECT = re.compile(rf"(`((?:\w+:)?\w+)` {NUMBER} \[{NUMBER}, {NUMBER}\] \*[a-z, ]+\*)")
"""An arm of the method's study, or `STUDY:ARM` of another, with its difference and verdict."""


def code_in(text: str) -> list[str]:
    """What is set in code type; roles such as citations are not."""
    return re.findall(r"`([^`\n]+)`", ROLE.sub("", text))


def section(title: str, page: str = PAPERS) -> str:
    """Text below a heading of the second level, up to the next one."""
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def tables(text: str) -> list[list[list[str]]]:
    """Cells of every table, its heading first."""
    blocks = re.findall(r"(?:^\|.*\n)+", text + "\n", re.M)
    return [
        [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
        for block in (re.sub(r"^\|[-|]+\|\n", "", block, flags=re.M) for block in blocks)
    ]


def table_of(text: str, first: str) -> list[list[str]]:
    """Rows of the one table whose first heading is this."""
    (found,) = (rows for rows in tables(text) if rows[0][0] == first)
    return found[1:]


def quirks_of(method: str) -> set[str]:
    module = import_module(f"wsss_lab.methods.{method.lower()}.config")
    return {field.name for field in fields(getattr(module, f"{method}Quirks"))}


def leaves(settings, prefix: str = "") -> dict[str, object]:
    """Every setting by its dotted name, groups of settings as well."""
    found = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        found[prefix + field.name] = value
        if is_dataclass(value):
            found |= leaves(value, f"{prefix}{field.name}.")
    return found


def arms(method: str) -> dict[str, dict]:
    return load_record(f"studies/{method.lower()}/cpu")["arms"]


def signed(share: float) -> str:
    """A difference in points as the page writes it."""
    return f"{100 * share:+.1f}".replace("-", "−")


@pytest.mark.parametrize("method", METHODS)
def test_every_name_in_code_type_exists(method):
    """A setting, a quirk, a preset, an arm or a record; nothing else is set in code type."""
    presets = find_recipe(method.lower()).presets
    settings = {name for preset in presets.values() for name in leaves(preset)}
    own = {name.removeprefix("method.") for name in settings}
    names = settings | own | quirks_of(method) | set(presets) | set(arms(method))
    other = "cosa" if method == "TSCD" else "tscd"  # ACR plugged in: settings of the others
    names |= {name for name in leaves(find_preset(other, "toy")) if name.startswith("acr.")}
    for study in FIVE:
        names |= {study, *(f"{study}:{arm}" for arm in load_record(f"studies/{study}/cpu")["arms"])}
    used = set(code_in(section(method)))
    records = {name for name in used if "/" in name or name in ("refine", "acr_localisation")}
    for name in records:
        load_record(name)
    assert used - records - names == set()
    assert len(used) > 20


@pytest.mark.parametrize("method", METHODS)
def test_every_quirk_has_its_row(method):
    (rows,) = (table[1:] for table in tables(section(method)) if table[0][0] == "The released code")
    named = [code_in(row[-1])[0] for row in rows]
    assert quirks_of(method) <= set(named)
    assert len(named) == len(set(named))
    if method != "ACR":  # its other slips are settings
        assert set(named) == quirks_of(method)


@pytest.mark.parametrize("method", METHODS)
def test_effects_are_those_of_the_record(method):
    text = section(method)
    name = f"studies/{method.lower()}/cpu"
    assert f"record `{name}`" in text
    written = EFFECT.findall(text)
    assert len(written) == len(re.findall(rf"{NUMBER} \[", text))  # none is written otherwise
    assert len(written) >= 6
    wrong = {}
    for effect, named in written:
        study, _, arm = named.rpartition(":")
        record = load_record(f"studies/{study}/cpu") if study else load_record(name)
        assert record["seeds"] == ([0, 1, 2, 3, 4] if study in FIVE else [0, 1, 2])
        found = record["arms"][arm]
        recorded = found["differences"][record["primary"]]
        mean, low, high = (signed(recorded[key]) for key in ("mean", "low", "high"))
        right = f"`{named}` {mean} [{low}, {high}] *{SIGNS[found['verdict']]}*"
        wrong |= {} if effect == right else {effect: right}
        assert recorded["n"] == len(record["seeds"])
    assert wrong == {}, f"rewrite these, and read the sentences about them again: {wrong}"


def test_the_pages_words_about_the_studies_hold():
    quirk = re.compile(r"quirks\.")
    for method in METHODS:
        record = load_record(f"studies/{method.lower()}/cpu")
        assert record["reduced"]
        assert record["seeds"] == [0, 1, 2]
        steps = {arm["settings"]["run.steps"] for arm in record["arms"].values()}
        assert steps <= set(range(60, 201))
        assert not any(
            quirk.search(key) for arm in record["arms"].values() for key in arm["settings"]
        )
    rule = load_record("studies/asdt/cpu")["rule"]["verdicts"]
    assert set(rule.values()) == {"not supported"}  # *not shown*
    seg = arms("CoSA")["all"]["metrics"]
    without, tags = (f"{100 * seg[m]['mean']:.1f}" for m in ("seg_miou", "seg_miou_tags"))
    assert f"from {without} to {tags}" in re.sub(r"\s+", " ", section("CoSA"))


def test_refinement_alone_is_that_of_the_record():
    record = load_record("refine")
    scores = record["scores"]
    expected = {name: scores["methods"][name]["miou"] for name in ("none", "PAR", "VARM")}
    expected["VARM without its variation"] = scores["variation"]["0"]["miou"]
    rows = table_of(section("TSCD"), "Refinement")
    assert dict(rows) == {name: f"{100 * miou:.1f}" for name, miou in expected.items()}
    assert "images: 300" in record["protocol"]


def test_localisation_is_that_of_the_record():
    record = load_record("acr_localisation")
    recorded = {row["name"]: row["scores"] for row in record["rows"]}
    groups = ("no consistency", "activation and affinity x 125")
    rows = table_of(section("ACR"), "Maps")
    for name, *numbers in rows:
        means = [fmean(recorded[name][group]["miou"].values()) for group in groups]
        assert numbers == [f"{100 * mean:.1f}" for mean in means]
    assert len(record["networks"]) == 12
    assert "images: 120" in record["protocol"]
    assert min(rows, key=lambda row: float(row[1]))[0] == "grad, last 2, spread"


@pytest.mark.parametrize("method", METHODS)
def test_published_numbers_are_those_of_the_library(method):
    """Both ways: none of the library's is missing, and none of the same kind is another number."""
    shown = set()
    for data, number, *cells in table_of(section(method), "Data"):
        name, split = data.split(",")[0].split(" ")
        shown.add((name.lower(), split, "labels" if ", maps" in data else "segmentation", number))
        assert all(cells), data
    own = {
        (row.data, row.split, row.what, f"{row.miou:.1f}")
        for row in published_results()
        if row.method == method
    }
    assert own <= shown
    kinds = {row[:3] for row in own}
    assert {row for row in shown if row[:3] in kinds} == own


@pytest.mark.parametrize("method", METHODS)
def test_what_could_not_be_verified_is_said(method):
    assert f"### What could not be verified about {method}\n" in section(method)


def field_rows() -> list[list[str]]:
    """Rows of the tables of methods on the page `since`."""
    return [row for rows in tables(SINCE) if rows[0][0] == "Method" for row in rows[1:]]


def test_no_number_of_the_field_without_source_and_pretraining():
    rows = field_rows()
    assert len(rows) >= 15
    for name, network, *numbers, source in rows:
        assert len(numbers) == 2, name
        assert any(re.search(r"\d\d\.\d", cell) for cell in numbers), name
        assert re.search(r"ImageNet|CLIP|DINO|SAM", network), f"{name}: pre-training"
        assert re.search(r"README|abstract|quoted|log|list|summary", source), f"{name}: source"
    outside = re.sub(r"(?m)^\|.*$", "", SINCE)
    quoted = {"73.9"}  # of labels, not of a network; its source stands beside it
    for number in set(re.findall(r"\b\d\d\.\d\b", outside)) - quoted:
        assert any(number in cell for row in rows for cell in row[2:]), number


def test_numbers_of_the_field_are_those_of_the_library():
    compared = 0
    for name, network, voc, coco, _ in field_rows():
        for row in published_results():
            cell = {"voc": voc, "coco": coco}.get(row.data, "")
            same = row.method == name.split(" ")[0] and row.what == "segmentation"
            if same and row.split == "val" and row.network.split(",")[0] in network and cell != "–":
                numbers = {
                    f"{other.miou:.1f}"
                    for other in published_results()
                    if (other.method, other.data, other.split, other.what)
                    == (row.method, row.data, row.split, row.what)
                }
                assert re.match(r"[\d.]+", cell)[0] in numbers, (name, cell)
                compared += 1
    assert compared >= 6


@pytest.mark.parametrize("page", [PAPERS, SINCE], ids=["papers", "since"])
def test_citations_terms_and_pages_exist(page):
    keys = [
        key for group in re.findall(r"\{cite:[tp]+\}`([^`]+)`", page) for key in group.split(",")
    ]
    assert keys
    for key in keys:
        assert re.search(rf"^@\w+\{{{key},$", BIB, re.M), key
    for term in re.findall(r"\{term\}`([^`]+)`", page):
        name = re.sub(r".*<(.+)>$", r"\1", term)
        assert re.search(rf"^{re.escape(name)}$", GLOSSARY, re.M | re.I), name
    for name in re.findall(r"\{doc\}`([^`]+)`", page):
        assert any((ROOT / "book" / f"{name}{end}").is_file() for end in (".md", ".ipynb")), name
    links = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert "file: book/papers" in links
    assert "file: book/since" in links
