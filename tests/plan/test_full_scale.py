"""The page *Running at full scale*: its code runs, its commands parse, its messages exist."""

import dataclasses
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from tiny_recipes import step_kind

from wsss_lab.__main__ import main
from wsss_lab.data.catalog import ARCHIVES, DATASETS
from wsss_lab.data.masks import write_mask
from wsss_lab.data.random_images import SIZES
from wsss_lab.data.toy import scene
from wsss_lab.recipes.acr import stages as acr_stages
from wsss_lab.recipes.cam_baseline.config import PRESETS as CAM_PRESETS
from wsss_lab.recipes.cam_baseline.config import Config as CamConfig
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.recipe import RECIPES, find_preset
from wsss_lab.runs.settings import with_changes
from wsss_lab.studies import load_study

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "book" / "full_scale.md").read_text(encoding="utf-8")
PAGE = re.sub(r" \\\n +", " ", TEXT)  # commands on one line


def blocks(language, text=PAGE):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.S | re.M)[1]


def commands(text=PAGE):
    """Arguments of every `python -m wsss_lab` line, however it is started."""
    lines = "\n".join(blocks("console", text) + blocks("bash", text)).splitlines()
    lines = [re.sub(r"\$\(\[.*?\)|\$RESUME", "", line) for line in lines]  # "" at the first start
    return [
        shlex.split(line.partition("-m wsss_lab ")[2]) for line in lines if "-m wsss_lab " in line
    ]


def test_own_data_from_the_first_line_to_the_score(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    layout, metrics = blocks("python")
    exec(layout, {})
    steps = commands(section("Your own images in ten minutes"))
    check, train, predict, score = (c for c in steps if "runs/photos" not in c)
    assert [c[0] for c in (check, train, predict, score)] == ["data", "train", "predict", "eval"]
    assert main(check) == 0
    assert "tags_train: 48 images, 10 classes" in capsys.readouterr().out
    few = [{"20": "2"}.get(word, word) for word in train]  # two steps instead of twenty
    assert main([*few, "--cam-scales", "1.0"]) == 0
    assert main(predict) == 0
    assert len(list(Path("mine/predicted").glob("*.png"))) == 56
    (cut,) = re.findall(r"`(tail -n [^`]+)`", PAGE)
    subprocess.run(["bash", "-c", cut], check=True)
    capsys.readouterr()
    assert main([*score, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    found = json.loads(Path("runs/mine/metrics.json").read_text())["results"]["val"]["seg"]
    assert report["miou"] == pytest.approx(found["miou"], abs=1e-9)
    assert report["protocol"]["images"] == found["protocol"]["images"] == 8
    exec(metrics, {})
    printed = capsys.readouterr().out
    assert f"mean IoU {100 * found['miou']:.1f} %, seed 0" in printed
    assert "CoSA" in printed


def test_tags_alone_from_the_first_line_to_labels_that_are_scored_later(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[0], {})
    shutil.rmtree("mine/masks")
    Path("mine/tags_val.csv").unlink()
    steps = commands(section("Your own images in ten minutes"))
    (train,) = (c for c in steps if c[0] == "train" and "runs/mine" in c)
    few = [{"20": "2"}.get(word, word) for word in train]
    assert main([*few, "--cam-scales", "1.0", "--band", "0.2", "0.5"]) == 0
    assert "no scores: mine has no masks" in capsys.readouterr().out
    assert len(list(Path("runs/mine/overlays").iterdir())) == 48

    names = [f"train_{index:03d}" for index in range(2)]
    for index, name in enumerate(names):
        write_mask(Path("mine/masks") / f"{name}.png", scene(seed=0, index=index, size=64).mask)
    Path("mine/drawn.txt").write_text("\n".join(names))
    (score,) = commands(section("Tags only, no mask anywhere"))
    assert main(score) == 0
    assert "they are left out of the score" in capsys.readouterr().out


def test_every_training_command_parses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = []
    for name, recipe in RECIPES.items():
        noted = dataclasses.replace(recipe, train=lambda config, *_: started.append(config))
        monkeypatch.setitem(RECIPES._found, name, noted)
    begun = Path("runs/cam_baseline_voc")  # as the page has started it, before it resumes it
    RunFolder(begun, "cam_baseline", find_preset("cam_baseline", "voc"), resume=False).begin()
    trainings = [
        [{"$OUT": "runs/x"}.get(word, word) for word in arguments]
        for arguments in commands()
        if arguments[0] == "train"
    ]
    for arguments in trainings:
        arguments = [word for word in arguments if word not in ("do", "done")]
        assert main(arguments) == 0, arguments
    assert len(started) == len(trainings) >= 6
    assert {config.run.devices for config in started} == {1, 4}
    assert {arguments[1] for arguments in trainings} == {
        name for name in RECIPES if "voc" in RECIPES[name].presets
    }


@pytest.mark.parametrize("script", blocks("bash"), ids=lambda s: s.split()[0])
def test_scripts_are_sound(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_papermill_calls_name_what_is_there():
    calls = [
        line for line in PAGE.splitlines() if re.match(r"(\$ |nohup )?papermill \S+ipynb", line)
    ]
    assert len(calls) >= 3
    for call in calls:
        words = shlex.split(call)
        named = [w for w in words if w.startswith("notebooks/")]
        assert named
        assert all((ROOT / name).is_file() for name in named)
    configs = (ROOT / "notebooks/configs").glob("*.yaml")
    known = {name for config in configs for name in yaml.safe_load(config.read_text())}
    assert set(re.findall(r"-p (\w+) ", PAGE)) <= known


def test_counts_are_those_of_presets_and_catalogue():
    for name in ("voc", "coco", "stuff10k"):
        config = CAM_PRESETS[name]
        for steps in (config.run.steps, config.mask_steps):
            assert f"{steps:,}".replace(",", " ") + " steps" in PAGE, (name, steps)
        counts = DATASETS[name].counts
        for role in ("train", "val"):
            images = counts[config.data.split_of(role)]
            assert f"{images:,}".replace(",", " ") + " images" in PAGE, (name, role)
        for file in DATASETS[name].archives:
            if size := ARCHIVES[file].size:
                words = (f"{size / 1e9:.1f} GB", f"{size / 1e9:.2f} GB")
                assert any(text in PAGE for text in words), file


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("tscd", "voc"), ("tscd", "coco"), ("asdt", "voc"), ("asdt", "stuff10k")),
        *(("acr", "voc"), ("acr", "coco"), ("cosa", "voc"), ("cosa", "coco")),
    ],
)
def test_rows_of_the_methods_are_their_presets(name, preset):
    """Steps and images of every training, in the row of its configuration."""
    config = find_preset(name, preset)
    runs = [config.run]
    if name == "acr":
        later = acr_stages.stage_runs(config)
        runs += [later["affinity"], later["masks"]]
    told = [f"{run.steps:,}".replace(",", " ") + f" steps of {run.batch} images" for run in runs]
    (row,) = [line for line in PAGE.splitlines() if f"`{name}_{preset}.yaml` |" in line]
    _, _, training, crop, *_ = (cell.strip() for cell in row.split("|"))
    assert training == ", then ".join(told)
    sides = [config.data.crop]
    if name == "acr":
        sides += [acr_stages.stage_data(config, s).crop for s in ("affinity", "masks")]
    assert crop == "the same" or re.findall(r"\d+", crop) == [str(side) for side in sides]
    if crop == "the same":
        assert sides == [384, 448, 321]


def test_kinds_of_steps_are_counted_as_stated():
    for name, kind in (("tscd", "fit, tags only"), ("cosa", "fit, tags only")):
        config = find_preset(name, "voc")
        count = sum(step_kind(name)(config, step) == kind for step in range(config.run.steps))
        words = [f"{number:,}".replace(",", " ") for number in (count, config.run.steps)]
        assert f"{words[0]} of {words[1]}" in PAGE.replace("\n", " ")
    config = find_preset("asdt", "voc")
    both = sum(
        step_kind("asdt")(config, s) == "fit, both teachers" for s in range(config.run.steps)
    )
    assert f"{both:,} of {config.run.steps:,} steps".replace(",", " ") in PAGE.replace("\n", " ")


def test_probe_commands_parse(monkeypatch):
    timed = []

    def note(method, config, steps, images):
        timed.append((method, config.run.devices, config.run.precision, steps))
        raise ValueError("seen")

    monkeypatch.setattr("wsss_lab.plan.long_run.probe", note)
    for arguments in commands():
        if arguments[0] == "plan":
            assert main(arguments) == 2
    assert timed == [
        ("tscd", 1, "bf16-mixed", 10),
        ("cosa", 4, "32-true", 20),
        ("cam_baseline", 1, "32-true", 10),  # whose plan a report takes
    ]
    for height, width in set(SIZES.values()):
        assert f"{width} x {height} px" in PAGE


def test_free_settings_are_those_of_the_engine():
    from wsss_lab.runs.settings import FREE_TO_CHANGE

    (listed,) = re.findall(r"speed but not results \((.*?)\)", PAGE, re.S)
    names = {name.split(".")[-1] for name in re.findall(r"`([\w.]+)`", listed)}
    assert names <= FREE_TO_CHANGE


def test_quoted_messages_exist():
    code = " ".join(p.read_text() for p in (ROOT / "wsss_lab").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)
    for message in (
        "this folder is not there",
        "cannot get the weights",
        "holds a run already",
        "holds a run with other settings",
        "but the training list has only",
        "asked for, but this machine has",
        "nonfinite_step",
    ):
        assert message in PAGE, message
        assert message in code, message
    with pytest.raises(ValueError, match=r"optim\.lr: expected float, got '1e-4'"):
        with_changes(CamConfig(), {"optim.lr": "1e-4"})
    assert "expected float, got '1e-4'" in PAGE


def test_two_resnets_fill_the_disk_as_stated():
    from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
    from wsss_lab.models.backbones import build_backbone
    from wsss_lab.plan.plan import training_disk

    config = CAM_PRESETS["voc"]
    parts = [TagClassifier(build_backbone(config.backbone), 20, pool=config.pool)]
    parts.append(SegNetwork(build_backbone(config.backbone), 21, hidden=config.hidden))
    disk = training_disk(parts, [config.run, dataclasses.replace(config.run)])
    assert disk < 2.0
    assert "at most 2.0 GB" in PAGE
    assert [round(sum(p.numel() for p in part.parameters()) / 1e6) for part in parts] == [24, 25]


def test_what_the_page_says_about_bf16_is_in_the_record():
    arms = load_study("precision", "cpu").arms
    for method in ("tscd", "acr", "cosa"):
        interval = arms[f"{method}_bf16"].differences["cam_miou"]
        assert arms[f"{method}_bf16"].baseline == method
        assert max(-interval.low, interval.high) < 0.01, method
    assert "within a point of mIoU" in TEXT
