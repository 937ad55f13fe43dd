"""pycocotools gets nothing that ends the process: its C code trusts sizes and numbers."""

import numpy as np
import pytest

from wsss_lab.data.errors import DataError
from wsss_lab.data.prepare.coco import _Job, paint_file
from wsss_lab.data.prepare.coco_shapes import checked_shape, runs_of

rle = pytest.importorskip("pycocotools.mask")
H, W = 20, 30
SQUARE = [2.0, 2.0, 12.0, 2.0, 12.0, 12.0, 2.0, 12.0]
OTHER = rle.encode(np.ones((99, 99), np.uint8, "F"))["counts"]
BAD = {
    "nan": [[*SQUARE[:-1], float("nan")]],
    "infinity": [[*SQUARE[:-1], float("inf")]],
    "far away": [[*SQUARE[:-1], 1e300]],
    "huge number": [[*SQUARE[:-1], 10**400]],
    "odd length": [SQUARE[:-1]],
    "text": [["2", *SQUARE[1:]]],
    "nested": [[SQUARE] * 8],
    "number": [5],
    "RLE of another size": {"size": [10_000, 10_000], "counts": [10**8]},
    "RLE with a size of text": {"size": "20", "counts": [600]},
    "runs too short": {"size": [H, W], "counts": [10]},
    "runs too long": {"size": [H, W], "counts": [600, 600]},
    "negative run": {"size": [H, W], "counts": [700, -100]},
    "text too long": {
        "size": [H, W],
        "counts": rle.encode(np.ones((99, 99), np.uint8, "F"))["counts"],
    },
    "no RLE": {"size": [H, W], "counts": "\x01\x02"},
    "open end": {"size": [H, W], "counts": "o"},
    "nothing": None,
    "no counts": {"size": [H, W]},
}


@pytest.mark.parametrize("name", list(BAD))
def test_what_would_crash_is_refused_with_the_file(name, tmp_path):
    shape = BAD[name]
    annotations = [{"id": 7, "segmentation": shape, "area": 1.0, "category_id": 1}]
    with pytest.raises(DataError, match=r"m\.png: one of the annotations \[7\] cannot be painted"):
        paint_file(_Job(str(tmp_path / "m.png"), H, W, annotations, "class"))


@pytest.mark.parametrize("area", [float("nan"), "1", None])
def test_an_area_that_is_no_number_is_refused(area, tmp_path):
    annotations = [{"id": 7, "segmentation": [SQUARE], "area": area, "category_id": 1}]
    with pytest.raises(DataError, match="area: expected a finite number"):
        paint_file(_Job(str(tmp_path / "m.png"), H, W, annotations, "class"))


def test_runs_of_a_text_are_those_that_pycocotools_wrote():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = (rng.random((H, W)) < rng.random()).astype(np.uint8)
        code = rle.encode(np.asfortranarray(mask))
        runs, value, painted = runs_of(code["counts"]), 0, []
        for run in runs:
            painted += [value] * run
            value = 1 - value
        assert (mask == np.array(painted).reshape(W, H).T).all()
        assert checked_shape(code, H, W)["counts"] == code["counts"]


def test_sound_shapes_pass():
    assert checked_shape([SQUARE, [1, 2, 3, 4]], H, W) == [SQUARE]
    assert checked_shape({"size": [H, W], "counts": [H * W]}, H, W)["counts"] == [H * W]
