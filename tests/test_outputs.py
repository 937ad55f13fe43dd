"""No command writes over what it reads, nor over other files unless it is asked to."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.data.masks import write_mask
from wsss_lab.outputs import guard_outputs

TINY = ["--data.count", "4", "--data.val-count", "2", "--data.size", "64", "--data.crop", "64"]
TINY += ["--run.steps", "1", "--mask-steps", "1", "--run.batch", "2", "--report-train", "0"]


def contents(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.PNG"):
        pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def spellings(folder):
    yield folder
    yield folder / ".." / folder.name
    link = folder.parent / "link"
    link.symlink_to(folder)
    yield link
    yield os.path.relpath(folder)


def test_predict_never_replaces_photos_however_the_folder_is_spelled(photos, capsys):
    before = contents(photos)
    for out in spellings(photos):
        for more in ([], ["--overwrite"]):
            assert main(["predict", str(photos), "--out", str(out), *more]) == 2
            error = capsys.readouterr().err
            assert "input of this command" in error
            assert len(error.strip().splitlines()) == 1
    assert contents(photos) == before


def test_predict_of_one_photo_into_its_folder_spares_the_photo(photos, capsys):
    before = contents(photos)
    assert main(["predict", str(photos / "a.png"), "--out", str(photos)]) == 2
    # on some file systems b.png and b.PNG are one file
    assert main(["predict", str(photos / "b.PNG"), "--out", str(photos), "--overwrite"]) == 2
    assert contents(photos) == before


def test_predict_replaces_drawn_truth_only_where_it_is_asked_to(photos, tmp_path, capsys):
    masks = tmp_path / "masks"
    write_mask(masks / "a.png", np.ones((40, 48), np.uint8))
    before = contents(masks)
    assert main(["predict", str(photos), "--out", str(masks)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert contents(masks) == before  # nothing was written beside it either
    assert main(["predict", str(photos), "--out", str(masks), "--overwrite"]) == 0
    assert contents(masks)[masks / "a.png"] != before[masks / "a.png"]


def test_a_link_in_the_place_of_a_result_is_not_followed(photos, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to(photos / "a.png")
    before = contents(photos)
    assert main(["predict", str(photos), "--out", str(out), "--overwrite"]) == 2
    (out / "a.png").unlink()
    (out / "a.png").symlink_to(tmp_path / "nowhere")
    assert main(["predict", str(photos), "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert contents(photos) == before


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    assert main(["train", "cam_baseline", "--out", str(out), *TINY]) == 0
    return out


def test_eval_never_replaces_the_run_it_scores(run, tmp_path, capsys):
    before = contents(run)
    words = ["eval", "cam_baseline", "--weights", str(run), "--first", "1"]
    for file in ("model.safetensors", "config.json", "labels/../metrics.json", "masks/log.csv"):
        for more in ([], ["--overwrite"]):
            assert main([*words, "--out", str(run / file), *more]) == 2
            assert "input of this command" in capsys.readouterr().err
    single = ["eval", "cam_baseline", "--weights", str(run / "model.safetensors"), "--first", "1"]
    assert main([*single, "--out", str(run / "metrics.json"), "--overwrite"]) == 2
    assert contents(run) == before

    notes = tmp_path / "notes.json"
    notes.write_text("mine")
    assert main([*words, "--out", str(notes)]) == 2
    assert notes.read_text() == "mine"
    assert main([*words, "--out", str(notes), "--overwrite"]) == 0
    assert json.loads(notes.read_text())["method"] == "cam_baseline"


def test_plan_replaces_neither_a_used_file_nor_a_file_unasked(tmp_path, capsys):
    used = tmp_path / "used.py"
    used.write_text("")
    words = ["plan", "tscd", "--timed-steps", "1"]
    assert main([*words, "--use", str(used), "--out", str(used), "--overwrite"]) == 2
    other = tmp_path / "other.json"
    other.write_text("mine")
    assert main([*words, "--out", str(other)]) == 2
    assert (used.read_text(), other.read_text()) == ("", "mine")


def test_train_replaces_a_run_only_where_it_is_asked_to_and_nothing_else(run, tmp_path, capsys):
    out = tmp_path / "run"
    for file, data in contents(run).items():
        (out / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
        (out / file.relative_to(run)).write_bytes(data)
    (out / "notes.txt").write_text("mine")
    (out / "labels" / "notes.txt").write_text("mine")
    before = contents(out)
    words = ["train", "cam_baseline", "--out", str(out), *TINY, "--data.seed", "3"]
    assert main(words) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--resume"]) == 2
    assert main([*words, "--overwrite", "--backbone", "nothing"]) == 2  # found before it begins
    start = ["--overwrite", "--weights", str(out / "tags" / "model.safetensors")]
    assert main([*words, *start]) == 2
    assert "lies in the run to be replaced" in capsys.readouterr().err
    assert contents(out) == before

    assert main([*words, "--overwrite"]) == 0
    after = contents(out)
    assert after.keys() == before.keys()
    changed = {f.relative_to(out).as_posix() for f in after if after[f] != before[f]}
    assert {"config.json", "metrics.json", "model.safetensors"} <= changed
    assert not any(name.endswith("notes.txt") for name in changed)


def test_train_never_takes_a_foreign_folder_for_a_run(tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.png").write_text("drawn")
    for config in (None, '{"mine": 1}'):
        if config:
            (tmp_path / "config.json").write_text(config)
        before = contents(tmp_path)
        assert main(["train", "cam_baseline", "--out", str(tmp_path), *TINY, "--overwrite"]) == 2
        assert contents(tmp_path) == before


def test_a_failed_start_leaves_no_folder_that_blocks_the_next(tmp_path, capsys):
    root, out = tmp_path / "mine", tmp_path / "runs" / "a"
    (root / "images").mkdir(parents=True)
    (root / "tags.csv").write_text("name,cat\na,1\nb,1\n")
    for name in ("a", "b"):
        (root / "images" / f"{name}.png").write_bytes(b"no picture")
    words = ["train", "cam_baseline", "--data.name", "folder", "--data.root", str(root), *TINY]
    assert main([*words, "--out", str(out)]) == 2
    assert not out.exists()
    for name in ("a", "b"):
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{name}.png")
    assert main([*words, "--out", str(out), "--run.seed", "1"]) == 0


def test_a_failed_resume_keeps_what_was_there(run, tmp_path):
    out = tmp_path / "a"
    out.mkdir()
    (out / "config.json").write_bytes((run / "config.json").read_bytes())
    before = contents(out)
    assert main(["train", "cam_baseline", "--out", str(out), "--resume", "--run.seed", "4"]) == 2
    assert contents(out) == before


def test_the_toy_export_spares_other_files(tmp_path, capsys):
    words = ["data", "toy", "--out", str(tmp_path), "--count", "2", "--size", "32"]
    assert main([*words, "--split", "train"]) == 0
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").unlink()  # as after a kill
    before = contents(tmp_path)
    assert main([*words, "--split", "train"]) == 0
    assert before.items() <= contents(tmp_path).items()

    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").unlink()
    drawn = next((tmp_path / "SegmentationClass").iterdir())
    write_mask(drawn, np.ones((32, 32), np.uint8))
    before = contents(tmp_path)
    assert main([*words, "--split", "train"]) == 2
    assert contents(tmp_path) == before
    (tmp_path / "tags.csv").write_text("name,tags\n")
    assert main([*words, "--split", "val"]) == 2
    assert "has other content" in capsys.readouterr().err


def test_a_data_set_of_ones_own_is_not_prepared_over(tmp_path, capsys):
    (tmp_path / "tags_train.csv").write_text("name,tags\n")
    for name in ("coco", "stuff10k", "voc"):
        assert main(["data", name, "--root", str(tmp_path), "--no-download"]) == 2
        assert "tags_train.csv: is there already" in capsys.readouterr().err


def test_guard_counts_and_names(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=r"a \(and 1 more like it\) is there already"):
        guard_outputs([tmp_path / "a", tmp_path / "b", tmp_path / "new"])
    guard_outputs([tmp_path / "a"], [tmp_path / "c"], overwrite=True)
    os.link(tmp_path / "c", tmp_path / "d")  # another name of the same file
    with pytest.raises(FileExistsError, match="input"):
        guard_outputs([tmp_path / "d"], [tmp_path / "c"], overwrite=True)
