import errno
import json

import numpy as np
import pytest
from official_archives import (
    BOXES,
    SBD_VAL,
    TRAIN_AUG,
    VOC_VAL,
    catalogue,
    jpeg,
    mat,
    place,
    prepare_served,
    require_refused,
    sbd_files,
    sbd_mask,
    tar_of,
    voc_archives,
    voc_files,
    voc_mask,
)

from wsss_lab.config import OutputError
from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.prepare import check, common, prepare_voc

pytest.importorskip("scipy")
FILES = voc_archives()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    text = prepare_served(prepare_voc, FILES, root)
    assert "train_aug 4" in text
    return root


def tag_names(data):
    return {
        n: {data.classes[c] for c in t.nonzero()[:, 0]}
        for n, t in zip(data.names, data.tags, strict=True)
    }


def test_train_aug_is_the_union_without_val(root):
    data = ImageTagDataset.voc(root)
    assert data.names == TRAIN_AUG
    assert tag_names(data) == {n: {c for c, _ in BOXES[n]} for n in TRAIN_AUG}
    assert ImageTagDataset.voc(root, "val").names == VOC_VAL


@pytest.mark.parametrize("name", TRAIN_AUG)
def test_masks_are_vocs_own_where_it_has_one(root, name):
    data = ImageTagDataset.voc(root, masks=True)
    mask = data[data.names.index(name)]["mask"].numpy()
    expected = voc_mask(name) if name.startswith("2007") else sbd_mask(name)
    np.testing.assert_array_equal(mask, expected)


def test_difficult_boxes_can_be_left_out(root):
    data = ImageTagDataset.voc(root, tags="boxes", difficult=False)
    assert tag_names(data)["2007_000002"] == {"cat"}


def test_record_and_check(root):
    record = json.loads((root / "VOCdevkit/VOC2012/prepared.json").read_text())
    assert record["settings"]["classes"] == list(VOC_CLASSES)
    assert record["counts"] == {"train": 2, "val": 2, "train_aug": 4, "trainval": 4}
    assert check(root) == []
    assert not (root / "VOCdevkit/VOC2012/SegmentationObject").exists()
    extra = sorted(p.stem for p in (root / "VOCdevkit/VOC2012/SegmentationClassAug").iterdir())
    assert extra == ["2008_000005", "2008_000006"]


def test_second_run_does_nothing(root):
    before = {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}
    assert "already" in prepare_voc(root, False, archives=catalogue(FILES))
    assert {p: p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()} == before


def test_a_full_disk_is_not_taken_for_a_broken_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(common, "write_mask", full)
    place(FILES, tmp_path)
    with pytest.raises(OutputError, match=r"disk full"):
        prepare_voc(tmp_path, False, archives=catalogue(FILES))


def test_other_rules_are_prepared_again(root, tmp_path):
    place(FILES, tmp_path)
    prepare_voc(tmp_path, False, archives=catalogue(FILES))
    text = prepare_voc(tmp_path, False, archives=catalogue(FILES), difficult=False)
    assert "already" not in text
    assert tag_names(ImageTagDataset.voc(tmp_path))["2007_000002"] == {"cat"}


def test_missing_archive_names_the_official_one(tmp_path):
    with pytest.raises(
        DataError, match=r"VOCtrainval_11-May-2012\.tar.*1999639040 bytes, MD5 6cd6e"
    ):
        prepare_voc(tmp_path, download=False)


def replaced(tar=None, sbd=None):
    """Archives with some of their files replaced, and None files left out."""
    made = [
        {n: d for n, d in (files | (change or {})).items() if d is not None}
        for files, change in ((voc_files(), tar), (sbd_files(), sbd))
    ]
    return dict(zip(FILES, (tar_of(made[0], "w"), tar_of(made[1], "w:gz")), strict=True))


BASE, SBD = "VOCdevkit/VOC2012", "benchmark_RELEASE/dataset"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (replaced(tar={n: None for n in voc_files() if "/Annotations/" in n}), "no .*/Annotations"),
        (replaced(sbd={f"{SBD}/train.txt": None}), r"holds no .*train\.txt"),
        (replaced(sbd={f"{SBD}/cls/{SBD_VAL[1]}.mat": None}), f"without a mask.*{SBD_VAL[1]}"),
        (replaced(sbd={f"{SBD}/cls/{SBD_VAL[1]}.mat": b"no mat"}), r"GTcls\.Segmentation"),
        (
            replaced(sbd={f"{SBD}/cls/{SBD_VAL[1]}.mat": mat(GTcls={"Segmentation": [[21, 0]]})}),
            "ids 0..20",
        ),
        (replaced(tar={f"{BASE}/Annotations/{VOC_VAL[0]}.xml": b"<a>"}), "not XML"),
        (replaced(tar={"../escaped.txt": b"x"}), "unsafe path"),
        (replaced(tar={"/absolute.txt": b"x"}), "unsafe path"),
        ({"VOCtrainval_11-May-2012.tar": b"no tar"}, "cannot be unpacked"),
        ({"VOCtrainval_11-May-2012.tar": FILES["VOCtrainval_11-May-2012.tar"][:15000]}, "unpacked"),
        ({"benchmark.tgz": FILES["benchmark.tgz"][:300]}, "cannot be unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_archives(tmp_path, files, message):
    require_refused(prepare_voc, FILES | files, tmp_path, message)


def test_published_counts_are_required_of_official_archives(tmp_path):
    from wsss_lab.data.prepare.common import require_counts

    counts = {"train": 1464, "val": 1449, "trainval": 2913, "train_aug": 10582}
    require_counts(tmp_path, "voc", counts, published=True)
    with pytest.raises(
        DataError, match="train_aug came out with 10581 images, published are 10582"
    ):
        require_counts(tmp_path, "voc", counts | {"train_aug": 10581}, published=True)


def test_link_out_of_the_folder_is_refused(tmp_path):
    import io
    import tarfile

    out = io.BytesIO(FILES["VOCtrainval_11-May-2012.tar"])
    with tarfile.open(fileobj=out, mode="a") as tar:
        link = tarfile.TarInfo(f"{BASE}/JPEGImages/evil.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(link)
        photo = tarfile.TarInfo(f"{BASE}/JPEGImages/last.jpg")
        photo.size = len(jpeg())
        tar.addfile(photo, io.BytesIO(jpeg()))
    files = FILES | {"VOCtrainval_11-May-2012.tar": out.getvalue()}
    place(files, tmp_path)
    prepare_voc(tmp_path, False, archives=catalogue(files))
    assert (tmp_path / BASE / "JPEGImages" / "last.jpg").is_file()
    assert not (tmp_path / BASE / "JPEGImages" / "evil.jpg").is_symlink()
