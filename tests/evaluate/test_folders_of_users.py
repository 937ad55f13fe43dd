"""`predict` and `eval` on folders as they come: bad files, hidden files, odd names, odd masks."""

import unicodedata

import numpy as np
import pytest
import torch
from official_archives import encoded, jpeg
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.masks import mask_classes, read_mask, write_mask
from wsss_lab.data.toy import scene
from wsss_lab.evaluate.directories import evaluate_directories
from wsss_lab.evaluate.predict import predict, predict_folder, toy_classifier


def command(*words):
    return main([str(word) for word in words])


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.jpg").write_bytes(jpeg(64, 64, seed=ord(name)))
    return folder


def masks_of(folder):
    return sorted(file.stem for file in folder.glob("*.png"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("b.jpg", jpeg(64, 64)[:900]),
        ("b.jpg", b""),
        ("b.jpg", b"<html>not found</html>"),
        ("b.jpg", encoded(Image.new("RGB", (20, 64)), "JPEG")),  # too narrow for the network
    ],
    ids=["truncated", "empty", "a web page", "narrow"],
)
def test_one_bad_photo_does_not_stop_a_folder(photos, tmp_path, capsys, name, data):
    (photos / name).write_bytes(data)
    assert command("predict", photos, "--weights", "toy", "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert masks_of(tmp_path / "out") == ["a", "c", "d"]
    assert len(printed.out.splitlines()) == 3
    bad, count = printed.err.strip().splitlines()[-2:]  # below the note on the network
    assert bad.startswith("error: ")
    assert name in bad
    assert count == "1 of 4 images not done"


def test_bad_photos_are_named_together_when_the_others_are_done(photos, tmp_path):
    for name in "bc":
        (photos / f"{name}.jpg").write_bytes(b"no photo")
    lines = []
    with pytest.raises(ValueError, match=r"b\.jpg.*c\.jpg"):
        lines += predict_folder(photos, tmp_path / "out") or []
    assert masks_of(tmp_path / "out") == ["a", "d"]


def test_hidden_files_are_passed_over_and_skipped_ones_counted_and_named(photos, tmp_path, capsys):
    (photos / "._a.jpg").write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (photos / ".DS_Store").write_bytes(b"x")
    (photos / "notes.txt").write_text("no image")
    (photos / "raw.cr2").write_bytes(b"x")
    assert command("predict", photos, "--out", tmp_path / "out") == 0
    assert masks_of(tmp_path / "out") == ["a", "b", "c", "d"]
    assert "skipped 2 files that are no readable image: notes.txt, raw.cr2" in (
        capsys.readouterr().err
    )


def test_predict_opens_what_training_opens(photos, tmp_path):
    photo = Image.fromarray(scene(seed=0, index=3).image)
    for name, form in (("e.tif", None), ("f.TIFF", "TIFF"), ("g.jfif", "JPEG"), ("h.avif", None)):
        photo.save(photos / name, form)
    photo.convert("CMYK").save(photos / "i.jpg")
    photo.quantize(8).save(photos / "j.png")
    assert command("predict", photos, "--out", tmp_path / "out") == 0
    assert masks_of(tmp_path / "out") == list("abcdefghij")


def test_masks_belong_to_the_pixels_as_stored_and_the_user_hears_of_it(tmp_path, capsys):
    drawn = scene(seed=0, index=17)
    photo = Image.fromarray(drawn.image).transpose(Image.Transpose.ROTATE_180)
    exif = photo.getexif()
    exif[0x0112] = 3
    photo.save(tmp_path / "a.png", exif=exif)
    assert (
        command("predict", tmp_path / "a.png", "--weights", "toy", "--out", tmp_path / "out") == 0
    )
    assert "viewers turn 1 of the images by their EXIF orientation (a.png)" in (
        capsys.readouterr().err
    )
    stored = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    expected, _ = predict(toy_classifier(), stored)
    assert (read_mask(tmp_path / "out" / "a.png", 11) == expected.numpy()).all()


def test_predicted_masks_carry_class_names(photos, tmp_path):
    command("predict", photos / "a.jpg", "--weights", "toy", "--out", tmp_path / "out")
    assert mask_classes(tmp_path / "out" / "a.png") == ("background", *TOY_CLASSES)


def test_names_with_spaces_and_accents_from_photo_to_score(tmp_path, capsys):
    names = ["my cat 1", unicodedata.normalize("NFD", "für")]
    for name in names:
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(scene(seed=0, index=3).image).save(tmp_path / "in" / f"{name}.png")
    (tmp_path / "in" / "notes.txt").write_text("x")
    assert command("predict", tmp_path / "in", "--weights", "toy", "--out", tmp_path / "out") == 0
    listed = "\r\n".join(["my cat 1", unicodedata.normalize("NFC", "für.png")])
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbf" + listed.encode())
    arguments = ("--truth", tmp_path / "out", "--list", tmp_path / "l.txt", "--classes", 11)
    assert command("eval", "--pred", tmp_path / "out", *arguments) == 0
    assert "images: 2" in capsys.readouterr().out


@pytest.fixture
def pair(tmp_path):
    """One image whose truth and prediction differ, as 0 and 1."""
    truth, pred = np.zeros((48, 64), int), np.zeros((48, 64), int)
    truth[10:30, 10:40] = 1
    pred[12:26, 12:36] = 1

    def save(value_truth=1, value_pred=1, classes_pred=None):
        write_mask(tmp_path / "truth" / "a.png", truth * value_truth)
        write_mask(tmp_path / "pred" / "a.png", pred * value_pred, classes_pred)
        (tmp_path / "l.txt").write_text("a\n")
        return tmp_path / "pred", tmp_path / "truth", tmp_path / "l.txt"

    return save


def score(files, classes, *more):
    pred, truth, listed = files
    words = ("--pred", pred, "--truth", truth, "--list", listed, "--classes", classes)
    return command("eval", *words, *more)


@pytest.mark.parametrize("predicted", [255, 1])
def test_masks_of_0_and_255_are_no_perfect_score(pair, capsys, predicted):
    assert score(pair(255, predicted), 2) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no true mask holds a class, only 0 and 255" in printed.err
    assert score(pair(), 2) == 0
    assert "mIoU 73.1" in capsys.readouterr().out


def test_a_single_mask_of_0_and_255_is_pointed_at(pair, capsys):
    pred, truth, listed = pair()
    write_mask(truth / "b.png", np.full((4, 4), 255))
    write_mask(pred / "b.png", np.zeros((4, 4), int))
    listed.write_text("a\nb\n")
    assert score((pred, truth, listed), 2) == 0
    assert "1 of 2 true masks hold 255 and no class" in capsys.readouterr().err


def test_folders_are_compared_by_class_names(pair, capsys):
    files = pair(classes_pred=("background", "dog", "cat"))
    (files[1].parent / "classes.txt").write_text("_background_\ncat\ndog\n")
    assert score(files, 3) == 2
    assert "the same classes in another order (background, dog, cat)" in capsys.readouterr().err
    files = pair(classes_pred=("background", "cat", "dog"))
    assert score(files, 3) == 0
    table = capsys.readouterr().out
    assert "cat" in table
    assert "dog" in table
    assert score(files, 21) == 2
    assert "classes: expected 3 with background, as the folders name" in capsys.readouterr().err


def test_a_file_with_other_names_than_the_rest_is_named(pair):
    pred, truth, listed = pair(classes_pred=("background", "cat", "dog"))
    write_mask(truth / "b.png", np.ones((4, 4), int))
    write_mask(pred / "b.png", np.ones((4, 4), int), ("background", "dog", "cat"))
    listed.write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"b\.png: has the same classes in another order"):
        evaluate_directories(pred, truth, listed, 3)


def test_eval_reads_all_files_and_names_the_bad_ones(pair, capsys):
    pred, truth, listed = pair()
    for name in "bc":
        (pred / f"{name}.png").write_bytes(b"" if name == "b" else b"no mask")
        write_mask(truth / f"{name}.png", np.ones((4, 4), int))
    listed.write_text("b\nc\na\n")
    assert score((pred, truth, listed), 2) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "problems in 2 of 3 images" in printed.err
    assert "b.png: is empty (0 bytes)" in printed.err
    assert "c.png" in printed.err


def test_a_list_that_is_not_utf_8_is_named(pair, capsys):
    pred, truth, listed = pair()
    listed.write_bytes("für\n".encode("latin-1"))
    assert score((pred, truth, listed), 2) == 2
    assert "l.txt: is not UTF-8 text" in capsys.readouterr().err
