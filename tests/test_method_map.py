"""Method maps: what is drawn, that the page decides the colours, and what is refused."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import matplotlib as mpl
import pytest

from wsss_lab.viz import Arrow, Box, method_map, plot_style
from wsss_lab.viz.method_map import route

BOXES = [
    Box("one", "image\nits tags", (1, 1)),
    Box("two", "head & <label>", (3, 1), colour="blue"),
    Box("three", "student", (3, 2.5), colour="green"),
]
ARROWS = [
    Arrow("one", "two", "½ CE"),
    Arrow("one", "three", "features", sides=("bottom", "left"), dashed=True),
    Arrow("two", "three", "first line\nsecond line", sides=("bottom", "top"), lift=-0.1),
]
ALT = "A map of three boxes for the test."


def draw(boxes=BOXES, arrows=ARROWS, alt=ALT, **options):
    return method_map(boxes, arrows, alt=alt, size=(5, 3.5), **options)


def texts(picture):
    return [node.text for node in ET.fromstring(picture.svg).iter() if node.tag.endswith("text")]


def test_every_word_is_text_of_a_valid_svg():
    boxes = ["image", "its tags", "head & <label>", "student"]
    arrows = ["½ CE", "features", "first line", "second line"]
    assert sorted(texts(draw())) == sorted([*boxes, *arrows])


def test_the_same_description_gives_the_same_bytes():
    assert draw().svg == draw().svg
    assert draw([*BOXES[:2], replace(BOXES[2], text="pupil")]).svg != draw().svg


def test_the_style_of_the_book_changes_nothing(recwarn):
    plain = draw().svg
    with mpl.rc_context():
        plot_style()
        assert draw().svg == plain
    assert not recwarn.list


def test_the_page_decides_colours_and_font():
    picture = draw()
    assert not re.search(r"#[0-9a-f]{6}", picture.svg, re.I)
    used = set(re.findall(r"var\((--map-\w+)\)", picture.svg))
    assert used == {f"--map-{name}" for name in ("grey", "blue", "green", "ink", "paper")}
    page = picture._repr_html_()
    for name in used:
        assert page.count(f"{name}:#") == 2  # light and dark
    assert "font-family" not in picture.svg


def test_nothing_leaks_into_the_page():
    svg = draw().svg
    assert "<style" not in svg
    assert 'id="' not in svg
    assert "<!" not in svg
    assert 'viewBox="0 0 360 252"' in svg


def test_readers_without_eyes_get_the_sentence():
    page = draw(alt='Two "boxes" and an arrow between.')._repr_html_()
    assert 'role="img"' in page
    assert 'aria-label="Two &quot;boxes&quot; and an arrow between."' in page


def test_boxes_that_are_not_lit_are_faint():
    def faint(picture):
        styles = [e.get("style", "") for e in ET.fromstring(picture.svg).iter()]
        return sum("opacity: 0.25" in style for style in styles)

    assert faint(draw()) == 0
    some, none = faint(draw(lit=["one", "two"])), faint(draw(lit=[]))
    assert 0 < some < none


def test_lines_leave_and_arrive_across_the_sides_named():
    assert route((0, 0), (2, 0), ("right", "left")) == [(0, 0), (2, 0)]
    assert route((0, 0), (2, 1), ("right", "left")) == [(0, 0), (1, 0), (1, 1), (2, 1)]
    assert route((0, 0), (2, 1), ("bottom", "top")) == [(0, 0), (0, 0.5), (2, 0.5), (2, 1)]
    assert route((0, 0), (2, 1), ("right", "top")) == [(0, 0), (2, 0), (2, 1)]
    assert route((0, 0), (2, 1), ("bottom", "left")) == [(0, 0), (0, 1), (2, 1)]


def test_labels_stand_beside_their_line():
    """Above a level line, also where rounding makes its ends differ in the last bit."""
    boxes = [replace(BOXES[0], at=(1, 0.45)), replace(BOXES[1], at=(3, 0.6))]
    picture = draw(boxes, [Arrow("one", "two", "loss", shift=(0, -0.15))])
    (label,) = [e for e in ET.fromstring(picture.svg).iter() if e.text == "loss"]
    y = float(re.search(r"translate\([\d.]+ ([\d.]+)\)|$", label.get("transform", ""))[1] or 0)
    assert 0.45 * 72 - 14 < (y or float(label.get("y"))) < 0.45 * 72 - 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arrows": [Arrow("one", "four")]}, r"got \['four'\]"),
        ({"lit": ["five"]}, r"got \['five'\]"),
        ({"boxes": [*BOXES, replace(BOXES[0], at=(4.2, 0.5))]}, "a name of its own"),
        ({"boxes": [*BOXES, replace(BOXES[0], name="x", at=(1.5, 1))]}, "'x' overlaps 'one'"),
        ({"boxes": [*BOXES, replace(BOXES[0], name="x", at=(4.9, 3))]}, "'x' leaves the picture"),
        ({"alt": "A map."}, "five words"),
    ],
)
def test_mistakes_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        draw(**options)
