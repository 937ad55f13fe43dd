"""The toy world as data set, tensors and VOC folder."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from wsss_lab.data.catalog import TOY_CLASSES, voc_palette
from wsss_lab.data.toy import ToyKnobs, ToyWorld, render, scene, write_voc


def test_sample():
    world = ToyWorld("val", count=3, seed=2, size=64, masks=True, extras=True)
    sample, drawn = world[1], scene(2, 1, size=64, split="val")
    assert len(world) == 3
    assert sample["name"] == "toy-1_val_000001"
    assert sample["image"].dtype == torch.uint8
    assert sample["tags"].dtype == torch.float32
    assert sample["mask"].dtype == torch.int64
    np.testing.assert_array_equal(sample["image"].permute(1, 2, 0).numpy(), drawn.image)
    np.testing.assert_array_equal(sample["tags"].numpy(), drawn.tags)
    np.testing.assert_array_equal(sample["mask"].numpy(), drawn.mask)
    for name in ("distinctive", "context", "instance", "part"):
        np.testing.assert_array_equal(sample[name].numpy(), getattr(drawn, name))


def test_truth_is_left_out_unless_asked_for():
    assert set(ToyWorld(count=1, size=32)[0]) == {"image", "tags", "name"}


def test_iteration_ends_and_batches():
    world = ToyWorld(count=5, size=32, masks=True)
    with pytest.raises(IndexError):
        world[5]
    with pytest.raises(IndexError):
        world[-1]
    batch = next(iter(torch.utils.data.DataLoader(world, batch_size=5)))
    assert batch["image"].shape == (5, 3, 32, 32)


def test_rendered_tensors_equal_the_data_set_whatever_the_workers():
    world = ToyWorld("pretrain", count=70, seed=4, size=32, masks=True, extras=True)
    one, two = world.tensors(workers=1), world.tensors(workers=2)
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name
        assert len(tensor) == 70
    for i in (0, 63, 64, 69):
        for name in ("image", "tags", "distinctive", "context", "instance"):
            assert torch.equal(one[name][i], world[i][name])
        assert torch.equal(one["mask"][i].long(), world[i]["mask"])


def test_render_takes_indices_in_order():
    some = render("train", [9, 2], size=32, workers=1)
    for row, index in enumerate((9, 2)):
        expected = scene(0, index, size=32).image.transpose(2, 0, 1)
        np.testing.assert_array_equal(some["image"][row].numpy(), expected)


def test_write_voc(tmp_path):
    out = write_voc(tmp_path / "toy", "train", count=3, seed=1, size=48)
    write_voc(out, "val", count=2, seed=1, size=48)
    assert (out / "classes.txt").read_text().split() == ["background", *TOY_CLASSES]
    for split, count in (("train", 3), ("val", 2)):
        names = (out / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()
        assert names == [f"toy-1_{split}_{i:06d}" for i in range(count)]
        for i, name in enumerate(names):
            drawn = scene(1, i, size=48, split=split)
            with Image.open(out / "SegmentationClass" / f"{name}.png") as mask:
                np.testing.assert_array_equal(np.array(mask), drawn.mask)
                assert mask.getpalette()[: 3 * 11] == voc_palette()[:11].ravel().tolist()
            with Image.open(out / "JPEGImages" / f"{name}.jpg") as image:
                error = np.abs(np.array(image).astype(int) - drawn.image)
            assert error.mean() < 8
    with (out / "tags.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", *TOY_CLASSES]
    assert [row[0] for row in rows[1:]][3] == "toy-1_val_000000"
    assert [int(v) for v in rows[1][1:]] == scene(1, 0, size=48).tags.tolist()


def test_write_voc_never_mixes(tmp_path):
    out = write_voc(tmp_path / "toy", count=1, size=32)
    with pytest.raises(FileExistsError, match="already has a split 'train'"):
        write_voc(out, count=1, size=32)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="other content"):
        write_voc(tmp_path / "other", count=1, size=32)
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"count": 0}, "count"), ({"split": "test"}, "split"), ({"size": 4}, "size")],
)
def test_wrong_arguments(change, word):
    with pytest.raises(ValueError, match=word):
        ToyWorld(**change)
    with pytest.raises(ValueError, match="count"):
        render("train", [])


def test_knobs_reach_the_scenes():
    world = ToyWorld(count=6, size=48, knobs=ToyKnobs(classes=("cow",)))
    cow = TOY_CLASSES.index("cow")
    assert all(
        sample["tags"].sum() == sample["tags"][cow] == 1 for sample in (world[i] for i in range(6))
    )
