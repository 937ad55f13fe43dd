"""The page of licences against the pictures that are there."""

import importlib
import json
import re
from pathlib import Path

import pytest

from wsss_lab.data.open_photos import FOLDER, open_photos
from wsss_lab.runs.packaged import PACKAGED

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "licences.md").read_text(encoding="utf-8")
ENDINGS = {".png", ".jpg", ".jpeg", ".svg", ".webp", ".gif", ".ico", ".avif", ".bmp", ".tif"}
WORDS = {"twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15}


@pytest.fixture(scope="module")
def credits_of():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "book" / "_ext")
        return importlib.import_module("picture_credits")


def test_the_table_is_what_the_files_say(credits_of):
    assert credits_of.with_table(PAGE) == PAGE, "run book/_ext/picture_credits.py"
    with pytest.raises(ValueError, match="once each"):
        credits_of.with_table("no table")


def test_every_photo_is_listed_with_author_licence_source_and_changes():
    lines = {m[1]: m[0] for m in re.finditer(r"^\| `([\w.]+\.jpg)` \|.*$", PAGE, re.M)}
    assert set(lines) == {path.name for path in (FOLDER / "JPEGImages").iterdir()}
    for photo in open_photos():
        line = lines[photo.path.name]
        for part in (photo.author.partition(" (")[0], photo.licence, photo.changes):
            assert part in line, photo.name
        assert photo.source.split()[0] in line
        assert photo.licence_url in line
    assert int(re.search(r"holds (\d+) openly", PAGE)[1]) == len(open_photos())
    masks = re.search(r"`SegmentationClass`, for (\w+)\)", PAGE)[1]
    assert WORDS[masks] == len(open_photos(masked_only=True))


def test_there_is_no_picture_that_the_page_does_not_name():
    found = [
        path.relative_to(ROOT)
        for room in ("book", "wsss_lab", "examples", "notebooks", "benchmarks")
        for path in (ROOT / room).rglob("*")
        if path.suffix.lower() in ENDINGS
        and not {"_build", "runs", ".ipynb_checkpoints"} & set(path.parts)
    ]
    others = [path for path in found if FOLDER.relative_to(ROOT) not in path.parents]
    assert len(others) < len(found)
    assert "`book/side_by_side`" in PAGE
    for path in others:
        if path.parent.as_posix() == "book/side_by_side":
            # painted over a packaged photo, after which it is named, whose licence lets it be so
            (photo,) = (p for p in open_photos() if path.name.startswith(f"{p.name}-"))
            assert "SA" not in photo.licence, path
        else:
            assert f"`{path.as_posix()}`" in PAGE, path


def test_photos_in_chapters_are_on_the_page():
    """By name where chapters ask for them; a name that is not there fails in the chapter."""
    shown = set()
    for chapter in (ROOT / "book").glob("*.ipynb"):
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        shown |= {f"{photo.name}.jpg" for photo in open_photos() if f'"{photo.name}"' in code}
        for names in re.findall(r"from skimage\.data import ([\w, ]+)", code):
            shown |= {f"skimage.data.{name}" for name in names.split(", ")}
    named = {"gcompris_animals_dog.jpg", "coco_000000000471.jpg", "skimage.data.chelsea"}
    assert named <= shown
    for name in shown:
        assert f"`{name}`" in PAGE, name


def test_packaged_networks_are_on_the_page():
    for name, file in PACKAGED.items():
        assert f"`{name}`" in PAGE
        assert file.with_suffix(".json").name in PAGE
