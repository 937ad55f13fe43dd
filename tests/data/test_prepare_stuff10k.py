import json

import numpy as np
import pytest
from official_archives import (
    NAMES_V10,
    STUFF,
    catalogue,
    place,
    prepare_served,
    stuff_archive,
    zip_of,
)

from wsss_lab.data.catalog import STUFF_182_NAMES, STUFF_CLASSES
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.prepare import check, prepare_stuff10k

pytest.importorskip("scipy")
FILES = stuff_archive()
TRAIN, TEST = STUFF


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("stuff")
    text = prepare_served(prepare_stuff10k, FILES, root, md5=False, workers=1)
    assert "train 1, test 1" in text
    return root


NEVER = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}


def rank(number):
    """Position 1..171 among the ids in use, by counting."""
    return sum(i not in NEVER for i in range(1, number + 1))


def expected_mask(name, convention):
    values = {
        "171": rank,
        "182": lambda s: s,
        "things": lambda s: rank(s) if s <= 91 else 0,
    }[convention]
    return [[255 if s == 0 else values(s) for s in row] for row in STUFF[name]]


@pytest.mark.parametrize("convention", ["171", "182", "things"])
def test_masks_and_tags_of_each_convention(root, convention):
    data = ImageTagDataset.stuff10k(root, "train", masks=True, convention=convention)
    assert data.names == [TRAIN]
    sample = data[0]
    assert sample["mask"].tolist() == expected_mask(TRAIN, convention)
    present = sorted(set(sample["mask"].unique().tolist()) - {0, 255})
    assert (sample["tags"].nonzero().flatten() + 1).tolist() == present
    classes = {"171": STUFF_CLASSES, "182": STUFF_182_NAMES, "things": STUFF_CLASSES[:80]}
    assert data.classes == classes[convention]
    things = {"person", "stop sign"}
    stuff = set() if convention == "things" else {"banner", "wood"}
    assert {data.classes[v - 1] for v in present} == things | stuff


def test_test_split_and_unknown_convention(root):
    assert ImageTagDataset.stuff10k(root, "test").names == [TEST]
    with pytest.raises(ValueError, match="'172'"):
        ImageTagDataset.stuff10k(root, convention="172")


def test_record_and_check(root):
    record = json.loads((root / "prepared.json").read_text())
    assert record["settings"]["classes"] == list(STUFF_CLASSES)
    assert record["counts"] == {"train": 1, "test": 1}
    assert check(root) == []
    assert "already" in prepare_stuff10k(root, False, archives=catalogue(FILES, md5=False))
    checksums = json.loads((root / "archives" / "CHECKSUMS.json").read_text())
    assert "none is published" in checksums["cocostuff-10k-v1.1.zip"]["checksum_source"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_every_number_type_of_s(tmp_path, dtype):
    files = stuff_archive(dtype=dtype)
    place(files, tmp_path)
    prepare_stuff10k(tmp_path, False, archives=catalogue(files), workers=1)
    mask = ImageTagDataset.stuff10k(tmp_path, masks=True)[0]["mask"]
    assert mask.tolist() == expected_mask(TRAIN, "171")


def labels(value):
    return STUFF | {TRAIN: [[value, 1, 1], [1, 1, 1]]}


BAD_MAT = {
    "images/a.jpg": b"x",
    "annotations/a.mat": b"no mat",
    "imageLists/train.txt": b"a\n",
    "imageLists/test.txt": b"a\n",
}
NO_MAT = BAD_MAT | {"imageLists/train.txt": b"b\n"}
DOUBLE = BAD_MAT | {"imageLists/train.txt": b"a\na\n"}
NO_LISTS = {n: d for n, d in BAD_MAT.items() if not n.startswith("imageLists")}


def only(files):
    return {"cocostuff-10k-v1.1.zip": zip_of(files)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (stuff_archive(names=NAMES_V10), "version 1.0"),
        (stuff_archive(labels=labels(83)), r"ids \[83\] that version 1.1 does not use"),
        (stuff_archive(labels=labels(183)), r"ids \[183\]"),
        (only(BAD_MAT), "holds no S and names"),
        (only(NO_MAT), r"b\.mat: this annotation is not there"),
        (only(DOUBLE), "'a' comes twice"),
        (only(NO_LISTS), "holds no imageLists"),
        (only({"\\\\server\\x": b""}), "unsafe path"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_archives(tmp_path, files, message):
    place(files, tmp_path)
    with pytest.raises(DataError, match=message):
        prepare_stuff10k(tmp_path, False, archives=catalogue(files), workers=1)
