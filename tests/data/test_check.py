from functools import partial

import numpy as np
import pytest
from official_archives import encoded, jpeg, palette_png
from PIL import Image

from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
from wsss_lab.data.masks import write_mask
from wsss_lab.data.prepare import check, check_report
from wsss_lab.data.truth import lacks_truth
from wsss_lab.runs.images import load_data
from wsss_lab.runs.lists import load_lists


@pytest.fixture
def voc(tmp_path):
    """Eight images in VOC layout; nothing is wrong yet."""
    (tmp_path / "JPEGImages").mkdir()
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    names = [f"i{i}" for i in range(8)]
    for i, name in enumerate(names):
        (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(6, 8, seed=i))
        write_mask(tmp_path / "SegmentationClass" / f"{name}.png", np.full((6, 8), 1))
    (lists / "train.txt").write_text("".join(f"{n}\n" for n in names[:5]))
    (lists / "val.txt").write_text("".join(f"{n}\n" for n in names[5:]))
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    (tmp_path / "tags.csv").write_text("name,tags\n" + "".join(f"{n},cat\n" for n in names))
    return tmp_path


def test_nothing_wrong(voc):
    assert check(voc) == []
    text, number = check_report(voc)
    assert number == 0
    assert "train: 5 images, 2 classes" in text
    assert text.endswith("No problems.")


def test_all_problems_at_once(voc):
    masks, images = voc / "SegmentationClass", voc / "JPEGImages"
    (masks / "i0.png").unlink()
    (masks / "i1.png").write_bytes(palette_png(np.zeros((5, 5))))
    (masks / "i2.png").write_bytes(encoded(Image.new("RGB", (8, 6)), "PNG"))
    (masks / "i3.png").write_bytes(palette_png(np.full((6, 8), 9)))
    (images / "i5.jpg").write_bytes(jpeg(64, 64)[:900])
    (images / "i6.jpg").unlink()
    with (voc / "ImageSets" / "Segmentation" / "train.txt").open("a") as file:
        file.write("i4\n")
    tags = (voc / "tags.csv").read_text()
    (voc / "tags.csv").write_text(tags.replace("i7,cat", "i7,cow").replace("i4,cat", "i4,"))
    found = [str(problem) for problem in check(voc)]
    expected = [
        *("i0.jpg: there is no mask", "i1.png: is 5 x 5 px", "i2.png: has image mode RGB"),
        *(
            "i3.png: holds the class ids [9]",
            "i5.jpg: cannot be read",
            "lists 'i6', but there is no",
        ),
        *("the name 'i4' comes twice", "unknown class 'cow'", "'i4' has no class"),
    ]
    for text in expected:
        assert sum(text in line for line in found) == 1, (text, found)
    # the row of i7 is unreadable, so the list also names an image without tags, and that of i4 is
    # empty, so its mask contradicts it
    assert sum("i4.png: has pixels of cat, no tag" in line for line in found) == 1
    assert len(found) == len(expected) + 2, "\n".join(found)
    text, number = check_report(voc, limit=3)
    assert number == len(found)
    assert f"and {number - 3} more" in text


def test_problems_of_whole_folders(voc, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    assert "no folder that looks like" in check(empty)[0].what
    assert check(empty, "voc")[0].missing
    assert "tags.csv" in check(empty, "folder")[0].file
    assert len(check(empty, "coco")) == len(check(empty, "stuff10k")) == 2
    with pytest.raises(ValueError, match="'imagenet'"):
        check(empty, "imagenet")
    for file in (voc / "ImageSets" / "Segmentation").iterdir():
        file.unlink()
    assert "no split lists" in check(voc)[0].what


def test_missing_tags_and_masks_are_noted_not_counted(voc):
    (voc / "tags.csv").unlink()
    for file in (voc / "SegmentationClass").iterdir():
        file.unlink()
    (voc / "SegmentationClass").rmdir()
    text, number = check_report(voc)
    assert number == 0
    assert 'tags="masks"' in text
    assert "not for evaluation" in text


def test_own_folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg())
    (tmp_path / "tags.csv").write_text("name,cat\na,1\nb,1\n")
    assert [p.what for p in check(tmp_path)] == ["lists 'b', but there is no such image"]
    write_mask(tmp_path / "masks" / "a.png", np.full((12, 16), 2))
    assert any("class ids [2]" in p.what for p in check(tmp_path))


def test_masks_drawn_later_for_some_training_images_are_no_problem(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.jpg").write_bytes(jpeg())
    (tmp_path / "tags_train.csv").write_text("name,cat\na,1\nb,1\n")
    (tmp_path / "masks").mkdir()
    assert check(tmp_path) == []
    write_mask(tmp_path / "masks" / "a.png", np.full((12, 16), 1))
    assert check(tmp_path) == []
    lines = []
    assert load_lists(DataConfig(name="folder", root=tmp_path), lines.append)[1] is None
    assert "has no tags_val.csv, a list of images whose masks" in lines[-1]
    (tmp_path / "masks" / "a.png").rename(tmp_path / "a.png")
    load_lists(DataConfig(name="folder", root=tmp_path), lines.append)
    assert f"{tmp_path} has no masks to compare with" in lines[-1]
    (tmp_path / "a.png").rename(tmp_path / "masks" / "a.png")
    (tmp_path / "tags_val.csv").write_text("name,cat\na,1\n")
    assert not lacks_truth(DataConfig(name="folder", root=tmp_path))


@pytest.mark.parametrize(
    ("path", "what", "remedy"),
    [
        ("nowhere", "is not there", "Name the folder"),
        ("file.txt", "is a file, not a folder", "Name the folder"),
        ("empty", "is no folder that looks like a data set", "Expected images/ and tags_train"),
        ("listed/images", "this folder is not there", "Put the images there"),
    ],
)
def test_a_folder_that_is_none_says_what_it_lacks(tmp_path, path, what, remedy):
    (tmp_path / "file.txt").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "tags_train.csv").write_text("name,cat\na,1\n")
    root = tmp_path / path
    (problem,) = check(root.parent if path.endswith("images") else root)
    assert (problem.file, problem.what) == (str(root), what)
    assert problem.remedy.startswith(remedy)


def test_a_folder_without_a_list_to_train_on(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(jpeg())
    (tmp_path / "tags_trian.csv").write_text("name,cat\na,1\n")
    (problem,) = check(tmp_path)
    assert problem.file.endswith("tags_train.csv")
    assert problem.what.endswith("there is tags_trian.csv")
    (tmp_path / "tags_trian.csv").rename(tmp_path / "tags_val.csv")
    write_mask(tmp_path / "masks" / "a.png", np.full((12, 16), 1))
    text, count = check_report(tmp_path)
    assert count == 0
    assert "good for evaluation, not for training" in text


def test_images_of_two_lists_and_files_of_none_are_named(tmp_path):
    root = four_images(tmp_path, FOUR[:3], FOUR[:2], [1, 1, 2, 2])
    (root / "masks" / "i1_mask.png").write_bytes(palette_png(np.full((6, 8), 1)))
    text, count = check_report(root)
    assert count == 0
    assert "2 image(s) are both in tags and in tags_val, the first: i0" in text
    assert "1 image(s) are in no list, the first: i3.png" in text
    assert "2 file(s) in masks/ belong to no image of a list, the first: i1_mask.png" in text
    with (root / "tags.csv").open("a") as file:
        file.write("i3,wolf\n")  # a row that is refused is no missing row
    text, count = check_report(root)
    assert count == 1
    assert "in no list" not in text
    (root / "tags.csv").write_text("".join((root / "tags.csv").read_text().splitlines(True)[:-1]))
    lines = []
    load_lists(DataConfig(name="folder", root=root), lines.append)
    assert [line for line in lines if line.startswith("in both lists: 2 of 2 images")]


def test_own_folder_with_several_lists(tmp_path):
    """Only what is evaluated on needs masks; those that are there are read all the same."""
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{name}.jpg").write_bytes(jpeg())
    (tmp_path / "tags_train.csv").write_text("name,cat\na,1\n")
    (tmp_path / "tags_val.csv").write_text("name,cat\nb,1\n")
    (problem,) = check(tmp_path)
    assert "nothing can be scored on tags_val.csv" in str(problem)
    (tmp_path / "tags_val.csv").rename(tmp_path / "tags_more.csv")
    assert check(tmp_path) == []
    (tmp_path / "tags_more.csv").rename(tmp_path / "tags_val.csv")
    write_mask(tmp_path / "masks" / "b.png", np.full((12, 16), 1))
    assert check(tmp_path) == []
    write_mask(tmp_path / "masks" / "a.png", np.full((12, 16), 2))
    assert any("class ids [2]" in p.what for p in check(tmp_path))
    (tmp_path / "masks" / "a.png").unlink()
    (tmp_path / "masks" / "b.png").unlink()
    (problem,) = check(tmp_path)
    assert "no mask" in problem.what
    assert "b" in problem.file


def own_folder(root, tags, masks=(), classes=""):
    """Images a, b, ... with one list each of tags, and masks by name."""
    for file, text in tags.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
        for line in text.splitlines()[1:]:
            (root / "images").mkdir(exist_ok=True)
            (root / "images" / f"{line.split(',')[0]}.png").write_bytes(
                encoded(Image.new("RGB", (16, 12)), "PNG")
            )
    for name, label in dict(masks).items():
        write_mask(root / "masks" / f"{name}.png", label)
    if classes:
        (root / "classes.txt").write_text(classes)
    return root


def test_masks_that_contradict_their_tags_are_problems_of_an_own_folder(tmp_path):
    full = np.full((12, 16), 1)
    void = np.where(np.arange(16) < 8, 255, 0) + np.zeros((12, 1), int)
    masks = {"a": full, "b": full * 2, "c": full * 0, "d": void}
    text = "name,cat,dog\na,1,0\nb,1,0\nc,1,0\nd,1,0\n"
    found = "\n".join(map(str, check(own_folder(tmp_path, {"tags.csv": text}, masks))))
    assert "a.png" not in found
    assert "b.png: has no pixel of cat, a tag of its image and has pixels of dog, no tag" in found
    assert "c.png: has no pixel of cat" in found
    assert "d.png: holds no class, only 0 and 255 (ignored)" in found
    assert "1 cat, 2 dog" in found


def test_a_class_column_that_another_list_lacks_is_a_problem(tmp_path):
    lists = {"tags_train.csv": "name,cat,dog\na,1,1\n", "tags_val.csv": "name,cat\nb,1\n"}
    found = check(own_folder(tmp_path, lists, {"b": np.full((12, 16), 1)}))
    assert any("lacks dog" in p.what and "classes.txt" in p.remedy for p in found)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert check(tmp_path) == []


def test_columns_in_another_order_are_noted_and_the_training_list_holds(tmp_path):
    lists = {"tags_train.csv": "name,dog,cat\na,1,0\n", "tags_val.csv": "name,cat,dog\nb,1,0\n"}
    text, number = check_report(own_folder(tmp_path, lists, {"b": np.full((12, 16), 2)}))
    assert number == 0
    assert "tags_val.csv: its columns are in another order" in text
    assert "mask value 1 is dog" in text


def test_every_unreadable_picture_is_listed_whatever_pillow_raises(tmp_path):
    root = own_folder(tmp_path, {"tags.csv": "name,cat\na,1\nb,1\nc,1\nd,1\n"})
    data = bytearray((root / "images" / "b.png").read_bytes())
    data[8:12] = (5).to_bytes(4, "big")  # a header of 5 bytes: Pillow raises a ValueError
    (root / "images" / "b.png").write_bytes(data)
    (root / "images" / "c.png").write_bytes(b"broken")
    (root / "images" / "d.png").write_bytes(b"")
    found = [str(problem) for problem in check(root)]
    assert [line.split(":")[0].rsplit("/", 1)[1] for line in found] == ["b.png", "c.png", "d.png"]
    assert "0 bytes" in found[2]
    assert not any("\n" in line for line in found)


def test_hidden_lists_are_passed_over_and_skipped_files_named(voc):
    lists = voc / "ImageSets" / "Segmentation"
    (lists / "._train.txt").write_bytes(b"\0\5\26\7")  # macOS leaves these on USB sticks
    (voc / "JPEGImages" / "._i0.jpg").write_bytes(b"\0\5\26\7")
    (voc / "SegmentationClass" / "._i0.png").write_bytes(b"\0\5\26\7")
    (voc / "JPEGImages" / "notes.txt").write_text("no image")
    text, number = check_report(voc)
    assert number == 0, text
    assert "skipped 1 file that are no readable image: notes.txt" in text


def test_photos_that_viewers_turn_are_counted(voc):
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 6)).save(voc / "JPEGImages" / "i2.jpg", exif=exif)
    text, number = check_report(voc)
    assert number == 0
    assert "1 photo(s) have an EXIF orientation, which is not applied" in text
    assert "i2.jpg" in text


def four_images(root, tags, val, masks, ending=".png"):
    """Four images of cats and dogs with a list to train on, one to evaluate on, and masks."""
    (root / "images").mkdir(parents=True)
    (root / "classes.txt").write_text("cat\ndog\n")
    for i in range(4):
        (root / "images" / f"i{i}.png").write_bytes(encoded(Image.new("RGB", (8, 6)), "PNG"))
    if masks is not None:
        (root / "masks").mkdir()
        for i, value in enumerate(masks):
            (root / "masks" / f"i{i}{ending}").write_bytes(palette_png(np.full((6, 8), value)))
    (root / "tags.csv").write_text("name,tags\n" + "".join(f"i{i},{t}\n" for i, t in tags))
    (root / "tags_val.csv").write_text("name,tags\n" + "".join(f"i{i},{t}\n" for i, t in val))
    return root


FOUR = list(enumerate(["cat", "cat", "dog", "dog"]))


def test_an_own_folder_in_order_has_no_problems(tmp_path):
    assert check(four_images(tmp_path, FOUR, FOUR[:2], [1, 1, 2, 2])) == []


@pytest.mark.parametrize(
    ("val", "masks", "ending", "count", "words"),
    [
        (FOUR[:2], [], ".png", 2, "there is no mask for this image"),
        (FOUR[:2], None, ".png", 1, "nothing can be scored"),
        (FOUR, [2, 2, 1, 1], ".png", 4, "no tag of its image"),
        ([], [1, 1, 2, 2], ".png", 1, "the list is empty"),
    ],
    ids=["images in both lists without masks", "no masks", "masks against tags", "empty list"],
)
def test_check_finds_what_would_stop_a_run(tmp_path, val, masks, ending, count, words):
    problems = check(four_images(tmp_path, FOUR, val, masks, ending))
    assert [words in str(problem) for problem in problems] == [True] * count
    assert words != "the list is empty" or problems[0].file == str(tmp_path / "tags_val.csv")


def test_check_finds_masks_that_training_would_not_find(tmp_path):
    """Masks with another ending: found by check exactly if the data set does not open them."""
    for ending, found in ((".PNG", 0), (".gif", 2)):
        root = four_images(tmp_path / ending, FOUR, FOUR[:2], [1, 1, 2, 2], ending)
        assert len(check(root)) == found
        images = partial(load_data, DataConfig(name="folder", root=root), "val")
        if found:
            with pytest.raises(DataError, match="no mask for 2 of 2 images"):
                images()
        else:
            assert [int(images()[i]["mask"].max()) for i in (0, 1)] == [1, 1]


def test_more_classes_than_label_images_can_hold(tmp_path):
    root = four_images(tmp_path, FOUR, FOUR, [0, 0, 0, 0])
    names = ["cat", "dog", *(f"c{i}" for i in range(253))]
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    assert any("masks of 8 bits hold 254" in str(problem) for problem in check(root))
