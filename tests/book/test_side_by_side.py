"""Page `side_by_side`: what it shows is what the records hold, and its sentences hold there."""

import importlib
import math
import re

import numpy as np
import pytest
from hygiene import ROOT
from PIL import Image

from wsss_lab.data.open_photos import open_photos
from wsss_lab.records import load_record

PAGE = (ROOT / "book" / "side_by_side.md").read_text(encoding="utf-8")
MODULES = ("side_by_side", "side_rows", "side_toy", "side_photos", "side_pictures", "side_effects")
AGAIN = "run book/_ext/side_by_side.py"


@pytest.fixture(scope="module")
def side():
    """The modules of the page by their names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "book" / "_ext")
        yield {name: importlib.import_module(name) for name in MODULES}


@pytest.fixture(scope="module")
def lines(side):
    """(line of a table, its runs by seed) of every whole method that was run."""
    found = [line for lines in side["side_toy"].LISTS.values() for line in lines]
    return [(line, line.runs()) for line in found if line.study]


def part(page: str, name: str) -> str:
    return page.split(f"% {name}: written")[1].split(f"% end of {name}")[0]


def test_the_page_shows_the_records(side):
    assert side["side_by_side"].with_parts(PAGE) == PAGE, AGAIN
    with pytest.raises(ValueError, match="once each"):
        side["side_by_side"].with_parts(PAGE.replace("% end of gallery", ""))


def test_the_pictures_are_those_of_the_galleries(side):
    pictures = side["side_pictures"]
    wanted = [panel for photo in pictures.chosen() for panel in pictures.panels(photo)]
    assert {panel.file for panel in wanted} == set(pictures.FOLDER.glob("*")), AGAIN
    for panel in wanted:
        kept = np.asarray(Image.open(panel.file).convert("RGB")).astype(int)
        drawn = pictures.drawn(panel).astype(int)
        # the pictures are compressed; a wrong label shifts whole areas
        assert np.abs(kept - drawn).mean() < 6, panel.file.name
        assert (np.abs(kept - drawn).max(-1) > 90).mean() < 0.02, panel.file.name
        assert len(panel.alt().split()) >= 5
        assert f"side_by_side/{panel.file.name}\n:alt: {panel.alt()}\n" in PAGE


def test_another_number_in_a_record_is_noticed(side, monkeypatch):
    toy = side["side_toy"]
    before = toy.scores("120")
    assert before.strip() in PAGE

    def other(name):
        record = load_record(name)
        record["val"]["120"]["box"]["seg+true tags"]["miou"] += 0.001
        return record

    monkeypatch.setattr(toy, "load_record", other)
    assert toy.scores("120") != before


def test_a_new_run_takes_the_place_of_not_run(side, monkeypatch):
    photos = side["side_photos"]
    missing = (
        "| CAM baseline | `lite0`, ImageNet | 765\u00a0×\u00a016 + 400\u00a0×\u00a016 | not run |"
    )
    assert missing in photos.presets() or "cam_baseline" in str(photos.load_records())
    record = load_record("presets/voc-mini/cosa-lite0-seed0") | {"method": "cam_baseline"}
    monkeypatch.setattr(photos, "load_records", lambda: [record])
    rows = [line for line in photos.presets().splitlines() if line.startswith("| CAM baseline")]
    assert len(rows) == 1
    assert f"| {record['scores']['tags']:.1f} |" in rows[0]
    assert "not run" not in rows[0]
    assert "| CoSA | `lite0`, ImageNet | 1000\u00a0×\u00a08 | not run |" in photos.presets()


def test_a_new_gallery_and_a_new_study_are_noticed(side, monkeypatch):
    pictures, toy = side["side_pictures"], side["side_toy"]
    photo = pictures.chosen()[0]
    there = pictures.galleries()
    assert set(there) == {p.stem for p in (ROOT / "wsss_lab/records/gallery").glob("*.npz")}
    for network in there:
        assert f"| {pictures.name_of(network)} | maps, true tags |" in PAGE
    before = len(list(pictures.panels(photo)))
    monkeypatch.setattr(pictures, "galleries", lambda: [*there, "acr"])
    monkeypatch.setattr(pictures, "gallery", lambda name: pictures.load_gallery("cosa"))
    assert len(list(pictures.panels(photo))) >= before
    assert "acr" not in pictures.lacking()
    monkeypatch.setattr(toy, "studies_here", lambda: ["acr", "unheard_of"])
    with pytest.raises(ValueError, match=r"studies unheard_of: .*ALIKE or OWN"):
        toy.require_all_shown()


def test_an_effect_is_worded_by_its_interval(side):
    rows = side["side_rows"]
    measure = rows.Measure("far", rows.at("val.far"))

    def runs(*values):
        return {seed: {"results": {"val": {"far": v}}} for seed, v in enumerate(values)}

    found = rows.effect(runs(0.5, 0.52, 0.54), runs(0.4, 0.42, 0.43), measure)
    assert found.mean == pytest.approx(10.333, abs=1e-3)
    sd = math.sqrt(1 / 3)  # of 10, 10 and 11
    assert found.half == pytest.approx(4.3027 * sd / math.sqrt(3), abs=1e-3)
    assert (found.word, str(found)) == ("better", "**+10.3 [+8.9, +11.8]**")
    assert found.p == pytest.approx(0.00104, abs=1e-5)
    wide = rows.effect(runs(0.5, 0.6), runs(0.4, 0.7), measure)
    assert wide.word == "not shown"
    assert str(wide) == f"not shown, {wide.half:.1f}"
    fewer = rows.Measure("excess", measure.read, up=False)
    assert rows.effect(runs(0.5, 0.52, 0.54), runs(0.4, 0.42, 0.43), fewer).word == "worse"
    assert str(rows.effect(runs(0.5), runs(0.55), measure)) == "(−5.0)"
    assert str(rows.effect(runs(0.5, 0.5), runs(0.5, 0.5), measure)) == "no change"
    assert rows.effect(runs(None), runs(0.5), measure) is None
    assert rows.signed(-0.04) == "0.0"


def test_measures_of_a_run(side):
    rows = side["side_rows"]
    seg = {
        "pixels": [900, 60, 40],
        "over_activation": [0.1, 0.5, 1.0],
        "under_activation": [0.0, 1.0, 0.25],
        "iou": [0.9, 0.0, 0.5],
        "context": {"boat_water": 0.4, "train_rails": 0.2, "boat_other": 0.1, "train_other": 0.1},
    }
    results = {"val": {"seg": seg}}
    found = {measure.head: measure.read(results) for measure in rows.errors_of("seg")}
    assert found["excess"] == pytest.approx((60 * 0.5 + 40) / 100)
    assert found["left out"] == pytest.approx((60 + 10) / 100)
    assert found["classes lost"] == 1
    assert found["on context"] == pytest.approx(0.3)
    assert found["near"] is None
    assert side["side_toy"].surplus("seg")(results) == pytest.approx(0.2)
    assert not [m.head for m in rows.errors_of("cam") if m.read(results) is not None]


def test_lines_are_what_the_text_says_of_them(side, lines):
    alike = {(line.study, line.arm) for line in side["side_toy"].ALIKE if line.study}
    for line, runs in lines:
        assert sorted(runs) == ([0, 1, 2, 3, 4] if line.study == "acr2" else [0, 1, 2]), line
        config = runs[0]["config"]
        images = {
            kind["protocol"]["images"]
            for kind in runs[0]["results"]["val"].values()
            if "protocol" in kind
        }
        if (line.study, line.arm) in alike:
            assert images == {120}
            assert (config["run"]["steps"], config["run"]["batch"]) == (60, 8)
            assert config["start"] == "toy"
        else:
            assert images == {200}
    for scenes in ("120", "200"):
        box = load_record("sanity")["val"][scenes]["box"]["seg+true tags"]["coverage"]
        assert box["far"] >= box["near"]


def test_a_technique_shares_network_and_start_with_its_control(side):
    rows, toy = side["side_rows"], side["side_toy"]
    every = side["side_effects"].all_compared()
    assert len(every) > 40
    for one in every:
        runs = rows.runs_of(one.study)
        pair = [runs[arm][min(runs[arm])]["config"] for arm in (one.arm, one.control)]
        assert toy.network(pair[0]) == toy.network(pair[1]), one
        assert pair[0].get("start") == pair[1].get("start"), one


def test_the_words_about_studies_and_photographs_hold(side):
    for study in side["side_toy"].studies_here():
        record = load_record(f"studies/{study}/cpu")
        assert re.search("mIoU", record["metrics"][record["primary"]]["what"]), study
    runs = side["side_rows"].runs_of("photos")
    for arm, found in runs.items():
        for run in found.values():
            scored = run["results"]["scored"]
            assert scored["protocol"]["images"] == 299
            if arm != "start_lite0":
                assert scored["cam"]["miou"] > scored["seg"]["miou"], arm
    photos = open_photos()
    assert f"all {len(photos)} photographs of the package" in " ".join(PAGE.split())
    masked = [photo for photo in photos if photo.mask_path]
    assert f"the {len(masked)} photographs with a mask" in " ".join(PAGE.split())


def test_photographs_are_chosen_by_the_rule(side):
    chosen = side["side_pictures"].chosen()
    assert len(chosen) == 8
    shown: set[int] = set()
    for photo in chosen:
        assert photo.mask_path
        assert "SA" not in photo.licence
        assert set(photo.tags) - shown
        shown |= set(photo.tags)
    passed = [p for p in open_photos(masked_only=True) if p.name < chosen[-1].name]
    skipped = [p for p in passed if p not in chosen and "SA" not in p.licence]
    assert all(set(photo.tags) <= shown for photo in skipped)
    assert [photo.name for photo in chosen] == sorted(photo.name for photo in chosen)


def test_readers_find_the_page():
    assert "file: book/side_by_side" in (ROOT / "_toc.yml").read_text(encoding="utf-8")
    for name in ("papers.md", "start.ipynb", "full_scale.md"):
        assert "{doc}`side_by_side`" in (ROOT / "book" / name).read_text(encoding="utf-8"), name
    assert "Side by side" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_what_a_scorer_counted_stands_under_the_recipes_names(side, tmp_path):
    """Two images, two classes beside background; another output that the recipe scored stays."""
    counts = np.array([
        [[5, 0, 2], [6, 1, 3], [5, 3, 2]],
        [[4, 3, 0], [4, 3, 3], [7, 3, 0]],
    ])  # fmt: skip
    np.savez(tmp_path / "arm-seed0.counts.npz", main=counts, cam=counts)
    results = {
        "val": {"seg": {"miou": 0.5}, "cam": {"context": {"boat_water": 0.1}}, "tags": {"map": 1}},
        "scored": {
            "main": {"is": "segmentation", "miou": 0.7},
            "cam": {"miou": 0.6},
            "boundary": {"f": 0.25},
            "protocol": {"map_threshold": 0.4},
        },
    }
    run = {"config": {}, "results": results}
    rows = side["side_rows"]
    assert rows.with_counts(run, tmp_path / "none.npz") is run
    val = rows.with_counts(run, tmp_path / "arm-seed0.counts.npz")["results"]["val"]
    assert val["seg"] == {"miou": 0.5, "outline": 0.25}
    assert val["tags"] == {"map": 1}
    assert val["cam"]["context"] == {"boat_water": 0.1}
    assert val["cam"]["miou"] == 0.6
    assert val["cam"]["iou"] == pytest.approx([9 / 13, 3 / 7, 2 / 6])
    assert val["cam"]["pixels"] == [12, 6, 2]
    assert val["cam"]["protocol"]["thresholds"] == "fixed at 0.4"
    found = {m.head: m.read({"val": val}) for m in rows.errors_of("cam")}
    assert found["excess"] == pytest.approx(5 / 8)  # predicted wrongly: 1 + 4; object pixels: 8
    assert found["left out"] == pytest.approx(3 / 8)
    assert "outline" not in val["cam"]
    assert results["val"]["seg"] == {"miou": 0.5}  # the record is not changed
