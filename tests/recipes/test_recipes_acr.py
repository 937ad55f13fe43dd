"""ACR's two stages after the maps: every route, every point to go on from, honest label scores."""

import dataclasses
import json

import pytest
import torch
from tiny_recipes import recipe_of, tiny_config

from wsss_lab import IGNORE
from wsss_lab.config import OptimConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.masks import read_mask
from wsss_lab.data.toy import ToyWorld
from wsss_lab.methods.common.affinity_net import AffinityNetwork
from wsss_lab.methods.common.deeplab import DeepLabV2
from wsss_lab.metrics import ConfusionMatrix, mean_iou
from wsss_lab.recipes.acr import labels as acr_labels
from wsss_lab.recipes.acr import stages as acr_stages
from wsss_lab.recipes.acr.config import AffinityConfig, Config
from wsss_lab.runs.weights_file import read_facts, read_tensors

TRAIN, SIDE = 5, 64
acr = recipe_of("acr")


def tiny(**changes):
    config = tiny_config("acr")
    affinity = AffinityConfig(steps=3, batch=2, walk=4, widths=(4, 4, 8))
    return dataclasses.replace(
        config,
        data=DataConfig(count=TRAIN, val_count=2, size=SIDE, crop=SIDE),
        run=dataclasses.replace(config.run, save_every=1, log_every=1),
        **{"affinity": affinity, "propagation": "affinity", "mask_steps": 3} | changes,
    )


def silent(line):
    pass


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run: affinities, DeepLabV2, a CRF at every place that can have one."""
    out = tmp_path_factory.mktemp("acr") / "A"
    changes = {"mask_network": "deeplabv2", "mask_crop": 48, "mask_scale": (0.8, 1.2)}
    config = tiny(label_crf="acr-cam", **changes)
    config = dataclasses.replace(
        config, affinity=dataclasses.replace(config.affinity, crf="acr-cam")
    )
    lines = []
    return config, out, acr.train(config, out, log=lines.append), lines


def bits(out):
    """Everything that a run leaves for later, as bytes; what differs between starts left out."""
    kept = [*out.rglob("*.safetensors"), *out.rglob("*.png"), out / "metrics.json"]
    return {file.relative_to(out): file.read_bytes() for file in sorted(kept)}


def test_all_stages_leave_their_results(done):
    _, out, metrics, _ = done
    for folder in ("labels", "propagated"):
        assert len(list((out / folder).glob("*.png"))) == TRAIN
    found = {
        str(file.relative_to(out)): read_facts(file)["part"] for file in out.rglob("*.safetensors")
    }
    assert found == {
        "fit/model.safetensors": "ACR",
        "affinity/model.safetensors": "AffinityNetwork",
        "model.safetensors": "DeepLabV2",
    }
    for stage, steps in (("fit", 2), ("affinity", 3), ("masks", 3)):
        assert len((out / stage / "log.csv").read_text().splitlines()) == steps + 1
    labels = [read_mask(file, 11) for file in sorted((out / "propagated").glob("*.png"))]
    assert all((label != IGNORE).all() for label in labels)
    assert metrics == json.loads((out / "metrics.json").read_text())
    assert "seg" in metrics["results"]["val"]


def test_scores_of_labels_are_those_of_the_files(done):
    _, out, metrics, lines = done
    shown = metrics["results"]["train_labels"]
    assert list(shown) == ["maps", "maps+crf", "sure", "propagated"]
    world = ToyWorld("train", TRAIN, size=SIDE, masks=True)
    for kind, folder, share in (("sure", "labels", None), ("propagated", "propagated", 1.0)):
        matrix, labelled, pixels = ConfusionMatrix(11, unlabelled="ignored"), 0, 0
        for index in range(TRAIN):
            truth = world[index]["mask"].long()
            made = torch.from_numpy(read_mask(out / folder / f"{world.name(index)}.png", 11)).long()
            matrix.update(made, truth)
            labelled += int(((made != IGNORE) & (truth != IGNORE)).sum())
            pixels += int((truth != IGNORE).sum())
        _, expected = mean_iou(matrix.compute()[:, :11])
        assert shown[kind]["miou"] == pytest.approx(float(expected))
        assert shown[kind]["labelled"] == pytest.approx(labelled / pixels)
        assert share is None or shown[kind]["labelled"] == share
    for kind, report in shown.items():
        protocol = report["protocol"]
        assert protocol["tags_at_test"] is True
        assert protocol["split"] == f"toy train, first {TRAIN}"
        assert protocol["images"] == TRAIN
        assert protocol["thresholds"].startswith("fixed: background")
        assert protocol["crf"] == ("none" if kind == "maps" else "acr-cam")
        assert protocol["unlabelled"] == ("ignored" if kind == "sure" else "error")
        assert any(kind in line and "mIoU" in line for line in lines)


def test_no_untagged_class_in_any_label(done):
    _, out, _, _ = done
    world = ToyWorld("train", TRAIN, size=SIDE)
    for folder in ("labels", "propagated"):
        for index in range(TRAIN):
            label = torch.from_numpy(read_mask(out / folder / f"{world.name(index)}.png", 11))
            allowed = {0, IGNORE, *(world[index]["tags"].nonzero()[:, 0] + 1).tolist()}
            assert set(label.unique().tolist()) <= allowed


def test_networks_come_back_from_their_files(done):
    _, out, _, _ = done
    kinds = {"affinity/model.safetensors": AffinityNetwork, "model.safetensors": DeepLabV2}
    for name, kind in kinds.items():
        facts = read_facts(out / name)
        method = acr.load_method(facts, read_tensors(out / name))
        assert isinstance(method, kind)
        assert not method.training
        assert acr.load_views(facts).scales == (1.0,)


@pytest.mark.parametrize("stop", ["affinity 2", "propagated: ", "masks 2"])
def test_a_run_goes_on_wherever_it_was_stopped(stop, done, tmp_path):
    config, whole, _, _ = done
    stage, seen = stop.partition(" ")[0], []

    def log(line):
        """Stops at a line, or at the second step of a stage."""
        seen.append(line)
        steps = [one for one in seen if one.startswith("step")]
        number = {"affinity": 2 + 2, "masks": 2 + 3 + 2}.get(stage)
        if line.startswith(stop) or (number and len(steps) == number):
            raise KeyboardInterrupt

    out = tmp_path / "A"
    with pytest.raises(KeyboardInterrupt):
        acr.train(config, out, log=log)
    assert not (out / "metrics.json").exists()
    torch.manual_seed(99)
    acr.train(config, out, resume=True, log=silent)
    assert bits(out) == bits(whole)


def test_without_propagation(tmp_path):
    config = tiny(propagation="crf", mask_network="decoder", label_crf="none")
    metrics = acr.train(config, tmp_path / "A", log=silent)
    assert list(metrics["results"]["train_labels"]) == ["maps", "sure"]
    assert not (tmp_path / "A" / "affinity").exists()
    assert not (tmp_path / "A" / "propagated").exists()
    quiet = dataclasses.replace(config, report_train=0)
    assert "train_labels" not in acr.train(quiet, tmp_path / "B", log=silent)["results"]


def test_labels_of_a_walk_that_stands_still():
    """With no step, every cell keeps the mean of its pixels; padding and absent classes lose."""
    torch.manual_seed(0)
    config = tiny(affinity=AffinityConfig(walk=0, widths=(4, 4, 8)), exponent=1.0)
    network = acr_stages.build_affinity(config, True).eval()
    cam = torch.zeros(2, 3, 32, 32)
    cam[0, 1, :, :16], cam[0, 2], cam[1, 0, 16:], cam[1, 2, :, 16:] = 0.9, 1.0, 0.8, 0.7
    tags = torch.tensor([[0.0, 1, 0], [1, 0, 1]])
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    found = acr_labels.walk_rule(config, network)(images, cam, tags)
    expected = torch.zeros(2, 32, 32, dtype=torch.long)
    expected[0, :, :16] = 2
    expected[1, :, 16:] = 3
    expected[1, 16:] = 1
    cells = (slice(None), slice(3, None, 8), slice(3, None, 8))  # middles, where nothing is mixed
    assert torch.equal(found[cells], expected[cells])
    assert torch.equal(acr_labels.map_rule(config)(images, cam, tags), expected)


def test_lengths_and_crops_of_the_stages():
    config = acr.presets["voc"]
    runs = acr_stages.stage_runs(config)
    lengths = {stage: (run.steps, run.batch) for stage, run in runs.items()}
    assert lengths == {"fit": (26_450, 4), "masks": (20_000, 10), "affinity": (6_610, 8)}
    crops = {stage: acr_stages.stage_data(config, stage) for stage in runs}
    assert {stage: data.crop for stage, data in crops.items()} == {
        "fit": 384,
        "affinity": 448,
        "masks": 321,
    }
    assert crops["fit"] == config.data
    assert (crops["masks"].resize, crops["masks"].scale) == ("scale", (0.5, 1.5))
    with torch.device("meta"):
        assert isinstance(acr_stages.build_masks(config, 21, False), DeepLabV2)
        assert acr_stages.build_affinity(config, False).mix.in_channels == 448
    same = dataclasses.replace(config, mask_crop=0, mask_scale=None, propagation="crf")
    assert acr_stages.stage_data(same, "masks") == config.data
    assert set(acr_stages.stage_runs(same)) == {"fit", "masks"}


def test_lacking_weights_are_told_before_anything_is_trained(tmp_path):
    for changes in (
        {"mask_weights": "no.pth"},
        {"affinity": AffinityConfig(weights="no.pth", batch=2)},
    ):
        with pytest.raises(FileNotFoundError, match=r"no weights file no\.pth"):
            acr.train(tiny(**changes), tmp_path / "A", log=silent)
    with pytest.raises(ValueError, match=r"affinity\.batch: 9 images"):
        acr.train(tiny(affinity=AffinityConfig(batch=9)), tmp_path / "A", log=silent)
    with pytest.raises(ValueError, match="crf: expected one of"):
        acr.train(tiny(affinity=AffinityConfig(crf="soft")), tmp_path / "A", log=silent)
    assert not (tmp_path / "A").exists()


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (Config, {"propagation": "irn"}, "propagation: expected one of"),
        (Config, {"mask_network": "unet"}, "mask_network: expected one of"),
        (Config, {"exponent": 0.0}, "exponent: expected above 0"),
        (Config, {"mask_crop": -1}, "mask_crop: expected at least 0"),
        (AffinityConfig, {"steps": 0}, "steps: expected at least 1"),
        (AffinityConfig, {"walk": -1}, "walk: expected at least 0"),
        (AffinityConfig, {"power": float("nan")}, "power: expected at least 0"),
    ],
)
def test_bad_settings(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**change)


def test_settings_of_affinities_for_photos():
    settings = acr.presets["voc"].affinity
    assert (settings.radius, settings.power, settings.walk) == (5, 36, 256)
    assert settings.widths == (64, 128, 256)
    optim = settings.optim
    assert optim == OptimConfig(
        "sgd", 0.01, head_lr_factor=10.0, weight_decay=5e-4, schedule="poly", warmup=0.0, clip=0.0
    )
