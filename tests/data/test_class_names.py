"""Class order and meaning are tied to names."""

import numpy as np
import pytest
from PIL import Image

from wsss_lab.data.class_names import (
    MOST_CLASSES,
    foreground,
    read_classes,
    require_foreground,
    require_same_classes,
)
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.masks import mask_classes, read_mask, write_mask
from wsss_lab.data.tags import read_tags


def listed(tmp_path, text):
    (tmp_path / "classes.txt").write_bytes(text.encode())
    return read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\n",
        "background\ncat\ndog\n",
        "_background_\ncat\ndog\n",
        "Background\r\ncat\r\ndog\r\n",
        "BACKGROUND\ncat\ndog",
        "\ufeff__background__\n\ncat\ndog\n",
        "__ignore__\n_background_\ncat\ndog\n",
        "__IGNORE__\ncat\ndog\n",
        "void\nbackground\ncat\ndog\n",
        "0 background\n1 cat\n2 dog\n",
        "0: _background_\n1: cat\n2: dog\n",
        "1 cat\n2 dog\n",
    ],
)
def test_background_and_ignored_are_no_classes_by_whatever_name(tmp_path, text):
    assert listed(tmp_path, text) == ("cat", "dog")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\nbackground\ndog\n", "'background' comes as class 2"),
        ("cat\ndog\n__ignore__\n", "'__ignore__' comes as class 3"),
        ("background\n_background_\ncat\n", "comes as class 1"),
        ("background\n", "is empty"),
        ("0 cat\n1 dog\n", "of which 0 is 'cat'"),
        ("0 background\n1 cat\n255 ignore\n", "expected 0, 1, 2"),
        ("# label:color_rgb:parts:actions\ncat:128,0,0::\n", "no class name but an entry"),
        ("background,0,0,0\ncat,128,0,0\n", "no class name but an entry"),
        ("unlabeled\ncat\n", "'unlabeled' comes as class 1"),
        ("background:0,0,0::\ncat:128,0,0::\n", "no class name but an entry"),
    ],
)
def test_lists_that_would_shift_the_names_are_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        listed(tmp_path, text)


def test_numbers_that_belong_to_the_names_stay(tmp_path):
    coins = ("1 cent", "2 cent", "5 cent")
    assert listed(tmp_path, "\n".join(coins)) == coins
    assert listed(tmp_path, "1 euro\n2 euro\n") == ("1 euro", "2 euro")


def test_a_background_column_is_no_class(tmp_path):
    path = tmp_path / "tags.csv"
    path.write_text("name,_background_,cat,dog\na,1,0,1\nb,1,1,0\n")
    assert read_tags(path) == (("cat", "dog"), {"a": (1,), "b": (0,)})
    assert read_tags(path, ("dog", "cat"))[1] == {"a": (0,), "b": (1,)}
    path.write_text("name,cat,background,dog\na,1,1,0\n")
    with pytest.raises(DataError, match=r"line 1.*'background' comes as class 2"):
        read_tags(path)
    with pytest.raises(DataError, match="comes as class 1"):
        read_tags(path, ("background", "cat", "dog"))


def test_more_classes_than_masks_hold_are_refused_before_anything(tmp_path):
    names = [f"c{i}" for i in range(MOST_CLASSES + 1)]
    assert len(foreground(names[:-1], "list")) == 254
    with pytest.raises(DataError, match=r"names 255 classes.*254 at most"):
        require_foreground(names, "list")
    with pytest.raises(DataError, match="254 at most"):
        listed(tmp_path, "\n".join(names))
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "tags.csv").write_text(f"name,{','.join(names)}\na{',1' * len(names)}\n")
    with pytest.raises(DataError, match="254 at most"):
        read_tags(tmp_path / "tags.csv")


def test_two_lists_are_compared_by_name_and_order():
    require_same_classes(("a", "b"), ["a", "b"], "one", "other", "Mend it")
    with pytest.raises(DataError, match=r"other: has the same classes in another order \(b, a\)"):
        require_same_classes(("a", "b"), ("b", "a"), "one", "other", "Mend it")
    with pytest.raises(DataError, match=r"other classes than one \(a, b\): lacks b and adds c"):
        require_same_classes(("a", "b"), ("a", "c"), "one", "other", "Mend it")


@pytest.fixture
def own(tmp_path):
    """Two images, cat on i0 and dog on i1, masks in the order cat, dog."""
    for i in range(2):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / f"i{i}.png")
        write_mask(tmp_path / "masks" / f"i{i}.png", np.full((8, 8), i + 1))
    (tmp_path / "tags_train.csv").write_text("name,cat,dog\ni0,1,0\ni1,0,1\n")
    (tmp_path / "tags_val.csv").write_text("name,dog,cat\ni0,0,1\ni1,1,0\n")
    return DataConfig(name="folder", root=tmp_path)


def test_columns_of_both_lists_are_brought_into_one_order(own):
    train, val = build_dataset(own), build_dataset(own, "val")
    assert train.class_names == val.class_names == ("cat", "dog")
    assert val.tags.tolist() == train.tags.tolist() == [[1, 0], [0, 1]]
    assert [int(val[i]["mask"].max()) for i in range(2)] == [1, 2]


def test_a_class_that_one_list_lacks_is_refused_until_classes_txt_says_so(own):
    (own.root / "tags_val.csv").write_text("name,cat\ni0,1\n")
    for split in ("train", "val"):
        with pytest.raises(DataError, match=r"tags_val\.csv: .*lacks dog.*Write classes\.txt"):
            build_dataset(own, split)
    (own.root / "classes.txt").write_text("cat\ndog\n")
    assert build_dataset(own, "val").class_names == ("cat", "dog")


def test_masks_of_0_and_255_show_before_training(own):
    label = np.zeros((8, 8), int)
    label[2:5] = 255
    write_mask(own.root / "masks" / "i1.png", label)
    with pytest.raises(DataError, match=r"i1\.png: holds no class, only 0 and 255.*tags dog"):
        build_dataset(own, "val")


def test_masks_carry_the_names_of_their_classes(own):
    path = own.root / "masks" / "i1.png"
    label = np.full((8, 8), 2)
    names = ("background", "cat", "dög")
    write_mask(path, label, names)
    assert mask_classes(path) == names
    assert (read_mask(path, 3, classes=names) == 2).all()
    with pytest.raises(DataError, match=r"i1\.png: has other classes.*lacks dog"):
        build_dataset(own, "val")
    write_mask(path, label, ("background", "dog", "cat"))
    with pytest.raises(DataError, match="in another order"):
        ImageTagDataset.folder(
            own.root / "images", own.root / "tags_train.csv", own.root / "masks"
        )[1]
    write_mask(path, label)
    assert mask_classes(path) is None
    assert build_dataset(own, "val")[1]["mask"].max() == 2
