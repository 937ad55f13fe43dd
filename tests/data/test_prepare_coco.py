import json

import numpy as np
import pytest
from official_archives import (
    catalogue,
    coco_archives,
    coco_json,
    jpeg,
    place,
    prepare_served,
    require_refused,
    rle_counts,
    zip_of,
)

from wsss_lab.data.catalog import COCO_CLASSES, COCO_IDS
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.prepare import check, prepare_coco
from wsss_lab.data.prepare.coco import paint

pytest.importorskip("pycocotools")
FILES = coco_archives()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("coco")
    text = prepare_served(prepare_coco, FILES, root, workers=1)
    assert "train 1, val 1" in text
    return root


def test_train_mask_and_tags(root):
    data = ImageTagDataset.coco(root, "train", masks=True)
    assert data.names == ["COCO_train2014_000000000009"]  # the other photo shows no object
    assert data.classes == COCO_CLASSES
    expected = np.zeros((10, 14), dtype=int)
    expected[1:9, 1:9] = 1  # person
    expected[3:5, 3:5] = 80  # toothbrush, smaller, on top
    expected[0:2, 10:14] = COCO_IDS.index(13) + 1  # a crowd is painted as its class
    np.testing.assert_array_equal(data[0]["mask"], expected)
    assert data.tags[0].nonzero().flatten().tolist() == [0, COCO_IDS.index(13), 79]
    assert data[0]["image"].shape == (3, 10, 14)


def test_polygon_and_points_without_area(root):
    sample = ImageTagDataset.coco(root, "val", masks=True)[0]
    expected = np.zeros((9, 11), dtype=int)
    expected[1:4, 2:6] = COCO_IDS.index(18) + 1
    np.testing.assert_array_equal(sample["mask"], expected)


def test_record_and_check(root):
    record = json.loads((root / "prepared.json").read_text())
    assert record["settings"]["classes"] == list(COCO_CLASSES)
    assert record["settings"]["category_ids"] == list(COCO_IDS)
    assert "smaller" in record["settings"]["overlap"]
    assert {len(v) for v in record["masks_sha256"].values()} == {64}
    assert check(root) == []
    assert "already" in prepare_coco(root, False, archives=catalogue(FILES))


def test_processes_and_void_crowds(root, tmp_path):
    place(FILES, tmp_path)
    prepare_coco(tmp_path, False, archives=catalogue(FILES), crowd="void", workers=2)
    mask = ImageTagDataset.coco(tmp_path, masks=True)[0]["mask"]
    assert mask[0:2, 10:14].unique().tolist() == [255]
    a, b = (json.loads((r / "prepared.json").read_text())["masks_sha256"] for r in (root, tmp_path))
    assert a["val"] == b["val"]
    assert a["train"] != b["train"]


def test_unknown_crowd_rule(tmp_path):
    with pytest.raises(ValueError, match="'ignore'"):
        prepare_coco(tmp_path, crowd="ignore")


def test_painting_against_a_search_per_pixel():
    rng = np.random.default_rng(0)
    masks = rng.random((6, 9, 7)) < 0.4
    areas = [5, 3, 3, 8, 1, 5]  # as annotated; not what the pixels say, and with ties
    ids = [1, 90, 13, 18, 44, 2]
    annotations = [
        {"area": a, "category_id": c, "segmentation": rle_counts(m)}
        for a, c, m in zip(areas, ids, masks, strict=True)
    ]
    expected = np.zeros((9, 7), dtype=int)
    for y in range(9):
        for x in range(7):
            hits = [i for i in range(6) if masks[i, y, x]]
            if hits:
                winner = min(hits, key=lambda i: (areas[i], i))
                expected[y, x] = COCO_IDS.index(ids[winner]) + 1
    np.testing.assert_array_equal(paint(annotations, 9, 7, "class"), expected)


def test_compressed_rle():
    from pycocotools import mask as rle

    mask = np.asfortranarray(np.random.default_rng(1).random((5, 6)) < 0.5, dtype=np.uint8)
    code = rle.encode(mask)
    annotation = {"area": 1, "category_id": 1, "segmentation": code}
    np.testing.assert_array_equal(paint([annotation], 5, 6, "class"), mask)


def with_train(data):
    members = {"annotations/instances_val2014.json": coco_json("val", [], [])}
    return {
        "annotations_trainval2014.zip": zip_of(
            members | {"annotations/instances_train2014.json": data}
        )
    }


def annotated(**change):
    base = dict(id=1, image_id=9, category_id=1, area=1, segmentation=[[0, 0, 3, 0, 3, 3]])
    return with_train(coco_json("train", [(9, 10, 14)], [base | change]))


OTHER_ORDER = json.dumps(
    {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
).encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (with_train(b"{"), "no COCO instances file"),
        (with_train(b"[]"), "no COCO instances file"),
        (with_train(OTHER_ORDER), "80 categories"),
        (annotated(image_id=77), r"images \[77\]"),
        (annotated(category_id=12), r"categories \[12\]"),
        (annotated(segmentation={"size": [10, 14]}), "cannot be painted"),
        ({"val2014.zip": zip_of({"readme.txt": b""})}, "holds no val2014"),
        ({"val2014.zip": zip_of({"val2014/../../x.jpg": jpeg()})}, "unsafe path"),
        ({"val2014.zip": FILES["val2014.zip"][:-30]}, "cannot be unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_archives(tmp_path, files, message):
    require_refused(prepare_coco, FILES | files, tmp_path, message, workers=1)
