import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from wsss_lab import __version__
from wsss_lab.__main__ import main
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.runs.recipe import RECIPES


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"wsss-lab {__version__}\n"


def test_info_is_json(capsys):
    assert main(["info"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert "toy_cnn" in facts["backbones"]
    assert facts["methods"]["cam_baseline"]["presets"] == [
        "tiny", "toy", "voc-mini", "voc", "coco", "stuff10k",
    ]  # fmt: skip
    assert facts["versions"]["torch"]


def test_toy_export_then_predict_then_eval(tmp_path, capsys):
    world, masks = tmp_path / "toy", tmp_path / "masks"
    arguments = ["data", "toy", "--out", str(world), "--split", "val", "--count", "12"]
    assert main(arguments) == 0
    assert main(["predict", str(world / "JPEGImages"), "--out", str(masks)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13
    assert any(name in lines[-1] for name in (*TOY_CLASSES, "nothing named"))

    written = sorted(masks.glob("*.png"))
    assert len(written) == 12
    with Image.open(written[0]) as mask:
        assert mask.mode == "P"
        assert mask.size == (128, 128)

    listed = world / "ImageSets" / "Segmentation" / "val.txt"
    truth = ["--truth", str(world / "SegmentationClass"), "--list", str(listed)]
    assert main(["eval", "--pred", str(masks), *truth, "--classes", "11", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0.2 < report["miou"] < 1


def test_truth_against_itself_is_perfect(tmp_path, capsys):
    """Its 255s lie where the truth is void too, so they cost nothing."""
    main(["data", "toy", "--out", str(tmp_path), "--count", "4"])
    masks = str(tmp_path / "SegmentationClass")
    listed = str(tmp_path / "ImageSets" / "Segmentation" / "train.txt")
    capsys.readouterr()
    main(["eval", "--pred", masks, "--truth", masks, "--list", listed, "--classes", "11", "--json"])
    assert json.loads(capsys.readouterr().out)["miou"] == 1


def test_a_checked_export_has_no_problems(tmp_path, capsys):
    main(["data", "toy", "--out", str(tmp_path), "--count", "3"])
    assert main(["data", "check", "--root", str(tmp_path)]) == 0
    victim = next((tmp_path / "SegmentationClass").glob("*.png"))
    Image.fromarray(np.full((5, 5, 3), 7, np.uint8)).save(victim)
    assert main(["data", "check", "--root", str(tmp_path)]) == 1
    assert victim.name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "nowhere", "--out", "x"], "no image at nowhere"),
        (["data", "toy", "--out", "x", "--count", "0"], "count: expected at least 1"),
        (["data", "toy", "--out", "x", "--size", "3"], "size: expected at least 16"),
        (["train", "magic", "--out", "x"], "METHOD: expected one of cam_baseline"),
        (["train"], "expected a method (cam_baseline, tscd, "),
        (["plan"], "`python -m wsss_lab plan cam_baseline --preset tiny`"),
        (["train", "cam_baseline"], "--out"),
        (["train", "--preset", "toy", "cam_baseline"], "--out"),
        (["train", "cam_baseline", "--out", "x", "--preset", "big"], "got 'big'"),
        (["train", "cam_baseline", "--out", "x", "--run.steps", "many"], "--run.steps"),
        (["eval", "magic", "--weights", "x"], "METHOD: expected one of cam_baseline"),
        (["eval", "cosa"], "--weights"),
        (["eval", "cosa", "--weights", "nowhere.pth"], "there is no nowhere.pth"),
        (["eval", "--pred", "x", "--truth", "x"], "--list"),
        (["train", "cosa", "--out", "x", "--preset", "stuff10k"], "has no settings for it"),
        (["train", "acr", "--out", "x", "--preset", "voc"], "root: expected the folder of voc"),
        (["dance"], "dance"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_help_needs_no_torch():
    code = "import sys; sys.argv[1:] = ['--help']\ntry:\n"
    code += "    from wsss_lab.__main__ import main; main()\n"
    code += "except SystemExit: pass\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_help_of_a_method_lists_every_setting(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "cam_baseline", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--run.steps", "--data.root", "--optim.lr", "--mask-optim.lr", "--threshold"):
        assert option in text
    assert "not chosen on any truth" in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("method", ["cam_baseline", "tscd", "asdt", "acr", "cosa", "mix"])
def test_help_of_eval_lists_what_can_be_chosen(method, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["eval", method, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--weights", "--data.root", "--crf", "--first", "--json", "--out"):
        assert option in text


def test_train_takes_a_preset_before_the_method(tmp_path, monkeypatch):
    from wsss_lab.recipes import cam_baseline

    seen = []
    noted = dataclasses.replace(cam_baseline.RECIPE, train=lambda *given: seen.append(given))
    monkeypatch.setitem(RECIPES._found, "cam_baseline", noted)
    out = str(tmp_path / "A")
    assert main(["train", "--preset", "voc", "--out", out, "cam_baseline"]) == 0
    assert main(["train", "cam_baseline", "--preset=voc", "--out", out, "--run.steps", "7"]) == 0
    assert seen[0][0] == cam_baseline.config.PRESETS["voc"]
    assert seen[1][0].run.steps == 7
    assert seen[1][0].data == cam_baseline.config.PRESETS["voc"].data


def test_ctrl_c_is_no_traceback(monkeypatch, capsys, tmp_path):
    from wsss_lab.recipes import cam_baseline

    def interrupted(*arguments):
        raise KeyboardInterrupt

    stopped = dataclasses.replace(cam_baseline.RECIPE, train=interrupted)
    monkeypatch.setitem(RECIPES._found, "cam_baseline", stopped)
    assert main(["train", "cam_baseline", "--out", str(tmp_path)]) == 130
    assert "--resume" in capsys.readouterr().err


def test_predict_without_weights_first_names_what_it_knows(tmp_path, capfd):
    assert main(["data", "toy", str(tmp_path / "toy"), "--count", "1"]) == 0
    pictures, masks = tmp_path / "toy" / "JPEGImages", tmp_path / "masks"
    capfd.readouterr()
    assert main(["predict", str(pictures), "--out", str(masks)]) == 0
    (note,) = capfd.readouterr().err.splitlines()
    assert note.startswith("note: network toy")
    assert "nothing in photos" in note
    assert "--weights voc-mini" in note


def test_a_better_default_network_replaces_the_note(tmp_path, monkeypatch, capsys):
    from wsss_lab.runs import default_network

    better = default_network.DefaultNetwork(None, "knows photos")
    monkeypatch.setattr(default_network, "default_network", lambda _: better)
    assert main(["data", "toy", str(tmp_path / "toy"), "--count", "1"]) == 0
    pictures = str(tmp_path / "toy" / "JPEGImages")
    assert main(["predict", pictures, "--out", str(tmp_path / "masks")]) == 0
    assert capsys.readouterr().err == "note: knows photos\n"


def test_the_folder_of_a_data_set_needs_no_option(tmp_path, capsys):
    assert main(["data", "toy", str(tmp_path / "toy"), "--count", "2"]) == 0
    assert main(["data", "check", str(tmp_path / "toy")]) == 0
    assert "No problems" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("wsss-lab 0.")


def test_messages_of_the_parser_are_sentences(capsys):
    assert main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Missing subcommand: Expected one of {info")
    assert "}. For full helptext, run python" in error
    assert main(["predict", "a", "b", "--out", "c"]) == 2
    assert capsys.readouterr().err.count("Unrecognized options") == 1
