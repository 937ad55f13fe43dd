import dataclasses

import pytest
import torch

from wsss_lab.data.config import DATA_SETS, DataConfig, build_dataset
from wsss_lab.data.errors import DataError, MissingFileError
from wsss_lab.data.masks import write_mask
from wsss_lab.data.toy import write_voc


def test_toy_needs_nothing():
    train = build_dataset(DataConfig(count=5, size=32))
    val = build_dataset(DataConfig(val_count=3, size=32), "val")
    assert (len(train), len(val)) == (5, 3)
    assert train.num_classes == len(train.class_names) == len(train[0]["tags"])
    assert "mask" not in train[0]
    assert val[0]["mask"].shape == (32, 32)
    assert train.names[4] == train[4]["name"]
    assert not set(train.names) & set(val.names)


def test_masks_when_asked_for():
    assert "mask" in build_dataset(DataConfig(count=1, size=32), masks=True)[0]
    assert "mask" not in build_dataset(DataConfig(val_count=1, size=32), "val", masks=False)[0]


def test_another_toy_world():
    one, other = (build_dataset(DataConfig(count=1, size=32, seed=s))[0] for s in (0, 1))
    assert not torch.equal(one["image"], other["image"])


def test_voc_layout(tmp_path):
    for split in ("train", "val"):
        write_voc(tmp_path, split, count=3, size=32)
    data = DataConfig(name="voc", root=tmp_path, train_split="train")
    train, val = build_dataset(data), build_dataset(data, "val")
    assert len(train) == len(val) == 3
    assert train.num_classes == 10
    assert "mask" in val[0]
    assert build_dataset(DataConfig(name="voc", root=tmp_path), "val").names == val.names
    with pytest.raises(MissingFileError, match=r"train_aug\.txt: .* train, val"):
        build_dataset(DataConfig(name="voc", root=tmp_path))


@pytest.fixture
def folder(tmp_path):
    write_voc(tmp_path / "toy", "train", count=2, size=32)
    (tmp_path / "toy" / "JPEGImages").rename(tmp_path / "images")
    names = sorted(p.stem for p in (tmp_path / "images").iterdir())
    (tmp_path / "tags.csv").write_text(f"name,a,b\n{names[0]},1,0\n{names[1]},1,1\n")
    (tmp_path / "tags_val.csv").write_text(f"name,a,b\n{names[1]},1,1\n")
    (tmp_path / "classes.txt").write_text("a\nb\n")
    return tmp_path


def test_own_folder(folder):
    data = DataConfig(name="folder", root=folder)
    assert len(build_dataset(data)) == 2
    with pytest.raises(DataError, match="no mask for 1 of 1 images"):
        build_dataset(data, "val")
    write_mask(folder / "masks" / f"{build_dataset(data).names[1]}.png", torch.ones(32, 32).int())
    val = build_dataset(data, "val")
    assert val.class_names == ("a", "b")
    assert val[0]["mask"].unique().tolist() == [1]
    (folder / "tags_train.csv").write_text((folder / "tags_val.csv").read_text())
    assert len(build_dataset(data)) == 1
    (folder / "tags_val.csv").unlink()
    with pytest.raises(MissingFileError, match=r"tags_val\.csv: the tags of the split 'val'"):
        build_dataset(data, "val")


@pytest.mark.parametrize("name", ["voc", "coco", "stuff10k", "folder"])
def test_no_root(name, tmp_path):
    with pytest.raises(ValueError, match=f"root: expected the folder of {name}, got None; pass"):
        build_dataset(DataConfig(name=name))
    with pytest.raises(MissingFileError, match=str(tmp_path)):
        build_dataset(DataConfig(name=name, root=tmp_path / "nothing"))


def test_usual_splits():
    for name, (train, val) in ((n, d.splits) for n, d in DATA_SETS.items()):
        data = DataConfig(name=name)
        assert (data.split_of("train"), data.split_of("val")) == (train, val)
    data = DataConfig(name="voc", train_split="train", val_split="trainval")
    assert [data.split_of(s) for s in ("train", "val", "test")] == ["train", "trainval", "test"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"name": "imagenet"},
            "name: expected one of toy, voc, voc-mini, coco, .*, got 'imag",
        ),
        ({"crop": 0}, "crop: expected at least 1, got 0"),
        ({"count": 0}, "count: expected at least 1"),
        ({"scale": (2.0, 0.5)}, "scale: expected"),
        ({"scale": (0.0, 0.5)}, "scale: expected"),
        ({"scale": (1.0,)}, "scale: expected"),
        ({"flip": 1.5}, "flip: expected a number in"),
        ({"blur": -0.1}, "blur: expected a number in"),
        ({"jitter": 1.0}, r"jitter: expected a number in \[0, 1\)"),
        ({"pad": "white"}, "pad: expected one of black, mean"),
        ({"form": "theirs"}, "form: expected one of ours, released"),
        ({"convention": "172"}, "convention: expected one of 171, 182, things"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**settings)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DataConfig().crop = 3
