"""Pictures: what the pixels must be, that bytes repeat, that strips can be read without eyes."""

import base64
import configparser
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab import viz
from wsss_lab.data.catalog import voc_palette
from wsss_lab.viz.svg import dark_colour


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.fixture
def cam():
    return np.linspace(0, 1, 12 * 16, dtype=np.float32).reshape(12, 16)


def test_rgb_reads_every_layout(photo):
    as_float = photo.astype(np.float32) / 255
    tensor = torch.from_numpy(photo).permute(2, 0, 1)
    with_grad = torch.from_numpy(as_float).requires_grad_()
    for image in (photo, as_float, np.moveaxis(photo, -1, 0), tensor, with_grad):
        np.testing.assert_array_equal(viz.rgb(image), photo)
    grey = viz.rgb(photo[..., 0])
    assert (grey == photo[..., :1]).all()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), "one image at a time"),
        (np.zeros((8, 8, 4), np.uint8), "expected"),
        (np.zeros((8, 8, 3), np.int64), "cast it to uint8"),
        (np.full((8, 8, 3), 2.0), "normalisation"),
        (np.full((8, 8, 3), np.nan), "normalisation"),
    ],
)
def test_rgb_refuses(image, words):
    with pytest.raises(ValueError, match=words):
        viz.rgb(image)


def test_palette_image_is_the_palette():
    label = np.arange(256).reshape(16, 16)
    np.testing.assert_array_equal(viz.palette_image(label).reshape(256, 3), voc_palette())


@pytest.mark.parametrize("label", [np.zeros((4, 4)), np.full((4, 4), -1), np.zeros((1, 4, 4), int)])
def test_palette_image_refuses(label):
    with pytest.raises(ValueError, match="label: expected"):
        viz.palette_image(label)


def test_heat_grows_lighter_with_the_value():
    ramp = viz.heat(np.linspace(0, 1, 64)[None])
    light = ramp.astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light[0]) > -1).all()
    assert light[0, -1] - light[0, 0] > 200


def test_label_overlay_touches_classes_only(photo):
    label = np.zeros((12, 16), np.uint8)
    label[:6] = 3
    label[0, 0] = 255
    shown = viz.overlay(photo, label, alpha=0.5)
    np.testing.assert_array_equal(shown[6:], photo[6:])
    mixed = (photo[1:6].astype(float) + voc_palette()[3]) / 2
    assert np.abs(shown[1:6] - mixed).max() <= 0.5
    np.testing.assert_array_equal(
        viz.overlay(photo, label, alpha=1)[:6], viz.palette_image(label)[:6]
    )


def test_cam_overlay_ends(photo, cam):
    grey = viz.overlay(photo, cam, alpha=0)
    assert (grey[..., :1] == grey).all()
    np.testing.assert_array_equal(viz.overlay(photo, cam, alpha=1), viz.heat(cam))


def test_coarse_maps_grow_to_the_image(photo):
    coarse = np.array([[0.0, 1.0]], np.float32)
    shown = viz.overlay(photo, coarse, alpha=1).astype(int).sum(axis=-1)
    assert shown.shape == (12, 16)
    assert (np.diff(shown[0]) >= 0).all()
    label = viz.overlay(photo, np.array([[0, 5]]), alpha=1)
    np.testing.assert_array_equal(label[:, :8], photo[:, :8])
    assert (label[:, 8:] == voc_palette()[5]).all()


@pytest.mark.parametrize("cam", [np.full((4, 4), 1.2), np.full((4, 4), -0.1), np.zeros((2, 4, 4))])
def test_overlay_refuses_maps_outside_the_unit(photo, cam):
    with pytest.raises(ValueError, match="cam: expected"):
        viz.overlay(photo, cam.astype(np.float32))
    with pytest.raises(ValueError, match="alpha"):
        viz.overlay(photo, np.zeros((12, 16)), alpha=2)


def test_inputs_stay_untouched(photo, cam):
    before = photo.copy(), cam.copy()
    viz.overlay(photo, cam)
    viz.cam_grid(photo, cam[None], ["cat"])
    np.testing.assert_array_equal(photo, before[0])
    np.testing.assert_array_equal(cam, before[1])


def test_figures_repeat_to_the_byte_and_fit_the_column(photo, cam):
    def make():
        sheet = viz.cam_grid(photo, np.stack([cam, cam.T.reshape(12, 16)]), ["cat", "dog"])
        viz.label_legend(sheet, {0: "background", 1: "cat", 255: "ignored"})
        return sheet

    first, second = make(), make()
    assert viz.png_bytes(first) == viz.png_bytes(second)
    assert b"Matplotlib" not in viz.png_bytes(first)
    assert viz.image_grid([photo] * 9, columns=8).get_figwidth() <= 7
    assert make()._repr_svg_() == make()._repr_svg_()
    assert [ax.get_title("center") for ax in first.axes[:3]] == ["image", "cat", "dog"]


def test_a_row_of_wide_images_is_no_higher_than_they_are():
    square, wide = np.zeros((40, 40, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    grid = viz.image_grid([square, wide, wide, wide], ["a", "b", "", ""], columns=2)
    cell = grid.get_figwidth() / 2
    assert grid.get_figheight() == pytest.approx(cell * (1 + 0.5) + 0.28 + 0.06)
    grid.canvas.draw()
    tall, _, low, _ = (ax.get_position().height for ax in grid.axes)
    assert tall / low == pytest.approx(2, rel=0.05)


def drawing(**colours):
    sheet = viz.Sheet(figsize=(3, 2))
    ax = sheet.subplots()
    ax.plot([0, 1], [0, 1], color=colours.get("line", "#0072b2"))
    ax.fill_between([0, 1], [1, 2], color=colours.get("area", "#f1f4f8"))
    ax.text(0, 1, "a word")
    return sheet._repr_svg_()


def test_drawings_follow_a_dark_page():
    """Ink becomes light, paper tints become dark, and strong colours stay as they are."""
    rules = re.search(r"@media \(prefers-color-scheme:dark\)\{(.*)\}</style>", drawing())[1]
    assert "text{fill:#e8ecf1}" in rules
    assert "#0072b2" not in rules
    new = dict(re.findall(r'"fill: (#\w+)"\]\{fill:(#\w+)!', rules))
    luminance = [sum(int(c[i : i + 2], 16) for i in (1, 3, 5)) / 3 for c in new.popitem()]
    assert luminance[0] > 240
    assert luminance[1] < 70


@pytest.mark.parametrize("colour", ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00"])
def test_strong_colours_stay(colour):
    assert dark_colour(colour) is None


@pytest.mark.parametrize(
    ("colour", "dark"), [("#000000", "#e8ecf1"), ("#ffffff", "#1d232a"), ("#808080", "#828790")]
)
def test_greys_turn_over(colour, dark):
    found, wanted = (
        [int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (dark_colour(colour), dark)
    )
    assert np.abs(np.subtract(found, wanted)).max() <= 3


def test_drawings_name_fonts_of_the_page_and_nothing_of_the_machine():
    text = drawing()
    assert "DejaVu Sans', sans-serif" in text
    assert ">a word</text>" in text
    assert "matplotlib.org" not in text
    assert re.search(r"20\d\d-\d\d", text) is None


def embedded(text):
    return re.findall(r'data:image/(\w+);base64,([^"]+)"', text)


def test_photos_are_stored_small_and_examples_exactly():
    """A photograph becomes JPEG at its own size; sixteen pixels stay what they are, and sharp."""
    smooth = np.linspace(0, 255, 128 * 128 * 3).reshape(128, 128, 3)
    noisy = (smooth + np.random.default_rng(0).normal(0, 9, smooth.shape)).clip(0, 255)
    text = viz.image_grid([noisy.astype(np.uint8)])._repr_svg_()
    ((kind, data),) = embedded(text)
    assert kind == "jpeg"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (128, 128)
    assert "pixelated" not in text
    tiny = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    text = viz.image_grid([tiny])._repr_svg_()
    ((kind, data),) = embedded(text)
    assert kind == "png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), tiny)
    assert "pixelated" in text


def test_a_drawn_figure_is_left_as_it_was(photo):
    sheet = viz.image_grid([photo])
    before = viz.png_bytes(sheet)
    sheet._repr_svg_()
    assert viz.png_bytes(sheet) == before
    assert sheet.axes[0].images[0].get_interpolation() == "nearest"


def test_a_strip_may_start_at_any_frame(photo):
    frames = [photo, 255 - photo, photo // 2]
    alts = [f"This is picture number {i} of three." for i in range(3)]
    html = viz.frame_strip(frames, alts, ["a", "b", "c"], name="n", start=1)._repr_html_()
    shown = [tag for tag in re.findall(r"<img[^>]*>", html) if " hidden" not in tag]
    assert len(shown) == 1
    assert 'data-label="b"' in shown[0]
    assert 'value="1"' in html
    assert '<output aria-live="polite">b</output>' in html
    with pytest.raises(ValueError, match=r"start: expected a frame 0\.\.2, got 3"):
        viz.frame_strip(frames, alts, ["a", "b", "c"], name="n", start=3)


def test_grids_refuse(photo, cam):
    with pytest.raises(ValueError, match="titles: expected 1"):
        viz.image_grid([photo], ["a", "b"])
    with pytest.raises(ValueError, match="at least one image"):
        viz.image_grid([])
    with pytest.raises(ValueError, match="cams: expected"):
        viz.cam_grid(photo, cam[None], ["a", "b"])


class Parts(HTMLParser):
    """Tags and their attributes; parsing alone proves that quoting is right."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def make_strip(photo, **kwargs):
    frames = [photo, 255 - photo, photo // 2]
    alts = [f'the "noise" <photo> under filter {i}' for i in range(3)]
    return viz.frame_strip(frames, alts, ["0", "0.5", "1"], name="filter & strength", **kwargs)


def test_strip_html(photo):
    strip = make_strip(photo, width=160)
    parts = Parts(strip._repr_html_())
    images, (slider,) = parts.all("img"), parts.all("input")
    assert [("hidden" in image) for image in images] == [False, True, True]
    assert [image["alt"] for image in images] == strip.alts
    assert {(image["width"], image["height"]) for image in images} == {("160", "120")}
    assert all(image["src"].startswith("data:image/webp;base64,") for image in images)
    assert slider["type"] == "range"
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "0")
    assert slider["aria-label"] == "filter & strength"
    assert slider["aria-valuetext"] == "0"
    assert parts.all("output")[0]["aria-live"] == "polite"
    assert not any("id" in attrs for _, attrs in parts.tags)
    assert repr(strip) == "FrameStrip(3 frames, filter & strength: 0 to 1)"


def test_strip_repeats_to_the_byte(photo):
    assert make_strip(photo)._repr_html_() == make_strip(photo)._repr_html_()
    jpeg = make_strip(photo, kind="jpeg")._repr_html_()
    assert len(re.findall("data:image/jpeg;base64,", jpeg)) == 3


def test_strip_of_figures(photo):
    sheets = [viz.image_grid([photo, photo // n], ["a", "b"]) for n in (1, 2)]
    alts = ["the photo beside a copy of it"] * 2
    assert len(viz.frame_strip(sheets, alts, ["1", "2"], name="divisor")) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"alts": ["short"] * 2}, "five words"),
        ({"labels": ["a"]}, "as many"),
        ({"kind": "gif"}, "kind: expected"),
        ({"frames": [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)]}, "one size"),
    ],
)
def test_strip_refuses(photo, change, words):
    arguments = {
        "frames": [photo, photo],
        "alts": ["one two three four five"] * 2,
        "labels": ["a", "b"],
        "kind": "webp",
    } | change
    frames, alts, labels = (arguments.pop(key) for key in ("frames", "alts", "labels"))
    with pytest.raises(ValueError, match=words):
        viz.frame_strip(frames, alts, labels, name="x", **arguments)


def test_explorer_redraws_when_a_slider_moves():
    ipywidgets = pytest.importorskip("ipywidgets")
    seen = []

    def draw(threshold):
        seen.append(threshold)
        return viz.image_grid([np.full((8, 8, 3), int(255 * threshold), np.uint8)], [""])

    widget = viz.explorer(draw, threshold=(0.0, 1.0, 0.1))
    slider, picture = widget.children
    assert isinstance(slider, ipywidgets.FloatSlider)
    before = bytes(picture.value)
    assert before.startswith(b"\x89PNG")
    slider.value = 0.9
    assert seen[-1] == 0.9
    assert bytes(picture.value) != before


def test_explorer_says_what_it_cannot_show():
    pytest.importorskip("ipywidgets")
    with pytest.raises(TypeError, match="draw must return a matplotlib figure, got int"):
        viz.explorer(lambda x: x, x=(0, 3, 1))
    with pytest.raises(ValueError, match="x: expected"):
        viz.explorer(lambda x: x, x=object())


def test_difference_plot_shows_every_seed_mean_and_interval():
    rows = [
        viz.DifferenceRow("a", [1.0, 2.0, 3.0], 2.0, 0.5, 3.5),
        viz.DifferenceRow("b", [-1.0], -1.0, None, None),
    ]
    (ax,) = viz.difference_plot(rows, margin=1.0).axes
    drawn = [line.get_xydata().tolist() for line in ax.lines[1:]]  # the first is zero
    assert drawn == [
        [[0.5, 0], [3.5, 0]],
        [[1, 0], [2, 0], [3, 0]],
        [[2, 0]],
        [[-1, 1]],
        [[-1, 1]],
    ]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="rows: expected at least one arm"):
        viz.difference_plot([])


def test_tables_photos_and_claims_of_a_page(capsys):
    shown = viz.table(["a", "b"], [[1, "x"], [2, "y"]])
    assert shown._repr_markdown_() == "| a | b |\n| --- | --- |\n| 1 | x |\n| 2 | y |"
    assert repr(shown) == "Table of 2 rows"
    with pytest.raises(ValueError, match="expected 2 cells as in head"):
        viz.table(["a", "b"], [[1]])
    sheet = viz.Sheet(figsize=(1, 1))
    photo = viz.jpeg(sheet)
    assert photo._repr_svg_().startswith("<svg")
    assert viz.jpeg(sheet) == photo


def compared(text):
    """Text as nbval compares it."""
    rules = configparser.RawConfigParser()
    rules.read(Path(__file__).parent / "nbval_sanitize.cfg")
    for name in rules.sections():
        text = re.sub(rules[name]["regex"], rules[name]["replace"], text)
    return text


def test_a_table_of_trained_numbers_is_compared_by_its_words():
    def shown(name, value):
        return viz.table(["term", "share"], [[name, f"{value:.1f} % [{-value:+.2f}]"]], varies=True)

    assert repr(shown("ce", 1)) == "Table of 1 rows"
    assert "44.6 %" in shown("ce", 44.6)._repr_markdown_()
    one, other = (compared(shown("ce", value).text) for value in (44.4, 3.1))
    assert (
        one
        == other
        == ("| term | share |\n| --- | --- |\n| ce | NUMBER % [NUMBER] |\n\n<!-- varies -->")
    )
    assert compared(shown("energy", 44.4).text) != one
    still = viz.table(["term", "share"], [["ce", 44.4]]).text
    assert compared(still) == still


@pytest.mark.parametrize("value", [0.5, 0.41234, 0.6, 0.4])
def test_a_claim_shows_its_number_and_only_the_range_is_compared(value, capsys):
    viz.claim("half", value, 0.4, 0.6)
    out = capsys.readouterr().out
    assert out == f"half: {value:.3g} (allowed 0.4 to 0.6)\n"
    assert compared(out) == "half: VALUE (allowed 0.4 to 0.6)\n"


@pytest.mark.parametrize("value", [0.39, 0.7, -5, 1e-12, float("nan"), float("inf")])
def test_a_claim_that_fails_is_found_by_the_comparison(value, capsys):
    viz.claim("half", value, 0.4, 0.6)
    out = capsys.readouterr().out
    assert "OUTSIDE the allowed 0.4 to 0.6" in out
    assert compared(out) == out


def test_large_and_small_claims_are_readable(capsys):
    for value in (12345.6, 0.000123, -3):
        viz.claim("n", torch.tensor(value), -1e9, 1e9)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in shown] == ["12346", "0.000123", "-3"]
    assert {compared(line) for line in shown} == {
        "n: VALUE (allowed -1000000000.0 to 1000000000.0)"
    }
