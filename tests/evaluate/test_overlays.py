"""Overlays: the picture stays as it is, and a legend below it names its colours."""

import numpy as np
import pytest
from PIL import Image

from wsss_lab.data.catalog import voc_palette
from wsss_lab.evaluate.overlays import legend_entries, overlay, with_legend, write_overlay

NAMES = ("background", "cat", "dog", "horse")


@pytest.fixture
def scene():
    mask = np.zeros((64, 96), np.uint8)
    mask[:20, :30], mask[30:50, 40:60], mask[60:] = 1, 3, 255
    return np.full((64, 96, 3), 120, np.uint8), mask


def test_entries_are_what_the_picture_shows(scene):
    _, mask = scene
    assert legend_entries(mask, NAMES) == [(1, "cat"), (3, "horse"), (255, "no label")]
    assert legend_entries(mask)[0] == (1, "class 1")
    assert legend_entries(np.full((2, 2), 7, np.uint8), NAMES) == [(7, "class 7")]
    assert legend_entries(np.zeros((2, 2), np.uint8), NAMES) == []


def test_the_legend_is_below_and_has_the_colours(scene):
    pixels, mask = scene
    picture = overlay(pixels, mask)
    sheet = with_legend(picture, legend_entries(mask, NAMES))
    assert (sheet[:64, :96] == picture).all()
    below = sheet[64:].reshape(-1, 3)
    for value in (1, 3, 255):
        assert (below == voc_palette()[value]).all(1).sum() >= 50
    assert not (below == voc_palette()[2]).all(1).any()
    assert (below.sum(1) < 150).sum() > 40  # letters


def test_a_long_name_widens_the_sheet_and_many_take_rows(scene):
    pixels, _ = scene
    short = with_legend(pixels, [(1, "cat")])
    assert short.shape[1] == 96
    assert with_legend(pixels, [(1, "a very long class name")]).shape[1] > 96
    assert len(with_legend(pixels, [(c, "horse") for c in range(1, 9)])) > len(short)


def test_nothing_found_leaves_the_picture(scene):
    pixels, _ = scene
    assert with_legend(pixels, []) is pixels


def test_names_of_other_scripts_and_with_escapes_are_drawn(scene, tmp_path):
    pixels, mask = scene
    write_overlay(tmp_path / "a.jpg", pixels, mask, ("background", "кот", "dog", "été\x1b[2J"))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.height > 64
    assert legend_entries(mask, ("", "a", "b", "été\x1b[2J"))[1] == (3, "été\\x1b[2J")
