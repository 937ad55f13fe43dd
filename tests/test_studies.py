"""The studies run end to end at a size at which their numbers mean nothing."""

import json
from dataclasses import replace

import pytest
import torch

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.toy import ToyWorld
from wsss_lab.metrics import ConfusionMatrix
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.weights import load_backbone_weights
from wsss_lab.studies.toy import calibrate, label_scores, pretrain, refine_costs
from wsss_lab.studies.toy.shortcuts import histogram_ap

TINY = RunConfig(batch=16, log_every=0)


def test_pretraining_packs_weights_and_says_how(tmp_path):
    settings = pretrain.Pretrain("toy_cnn", count=32, epochs=1, run=TINY, out=tmp_path, held_out=40)
    metrics = pretrain.run(settings)
    written = json.loads((tmp_path / "toy_cnn.json").read_text())
    assert 0 <= metrics["accuracy"] <= 1
    assert written["accuracy"] == metrics["accuracy"]
    assert written["config"]["run"]["steps"] == 2
    assert (tmp_path / "toy_cnn.safetensors").stat().st_size < 6e6


def test_the_stem_of_toy_vit_starts_from_toy_cnn():
    vit = build_backbone("toy_vit")
    pretrain.start_stem_from_cnn(vit)
    cnn = load_backbone_weights(build_backbone("toy_cnn"), "toy").net
    for ours, trained in zip(
        vit.net.patch_embed.backbone, (cnn.stem, cnn.stage1[0], cnn.stage2[0]), strict=True
    ):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, trained.state_dict()[name]), name
    with pytest.raises(ValueError, match="toy_vit only, got toy_mit"):
        pretrain.start_stem_from_cnn(build_backbone("toy_mit"))


def test_calibration_writes_every_number_of_the_record(tmp_path):
    settings = calibrate.Calibrate(
        out=tmp_path / "record.json",
        seeds=(0,),
        count=48,
        tag_epochs=1,
        mask_epochs=1,
        evaluate=40,
        pairs=3,
        histogram=90,
        pack=tmp_path / "tags.safetensors",
        tags=TINY,
        masks=TINY,
        optim=OptimConfig(lr=1e-4),
    )
    summary = calibrate.run(settings)
    record = json.loads(settings.out.read_text())
    assert record["summary"].keys() == summary.keys()
    assert set(record["targets"]) >= {"tag_map", "cam_miou", "mask_miou", "histogram_ap"}
    assert set(record["runs"][0]["near_far"]) == set(TOY_CLASSES)
    assert settings.pack.is_file()


def test_a_colour_that_names_a_class_is_found():
    """The shortcut test must be able to fail: paint one class's images red."""
    world, probe = ToyWorld("train", 120).tensors(workers=0), ToyWorld("val", 60).tensors(workers=0)
    for part in (world, probe):
        part["image"][part["tags"][:, 0] > 0, 0] = 255
    found = histogram_ap(world["image"], world["tags"], probe["image"], probe["tags"])
    assert found[0] > 0.9
    assert torch.isfinite(found).all()


def test_refinements_are_scored_and_timed_beside_rows_that_never_look(tmp_path):
    settings = refine_costs.Refinements(
        out=tmp_path / "refine.json",
        develop=6,
        choose=2,
        scenes=4,
        resamples=20,
        sides=(32,),
        repeats=1,
    )
    refine_costs.run(settings)
    record = json.loads(settings.out.read_text())
    methods = record["scores"]["methods"]
    assert methods["none"]["gain"] == [0, 0, 0]
    assert {"PAMR", "PAR", "VARM, shrunk", "CRF tscd-eval"} <= set(methods)
    assert record["scores"]["sanity"]["all background"]["missed"] == 1
    assert all(spent["32"] > 0 for spent in record["seconds"].values())


def test_scenes_counted_one_by_one_add_up_to_the_whole():
    world = ToyWorld("train", 4).tensors(workers=0)
    truth = world["mask"].long()
    pred = truth.roll(3, dims=-1) % 11
    whole = ConfusionMatrix(11).update(pred, truth).compute()[:, :11]
    assert torch.equal(label_scores.confusion_per_scene(pred, truth).sum(0), whole)


def test_the_warm_up_packs_what_a_study_starts_from(tmp_path, monkeypatch):
    import safetensors.torch

    from wsss_lab.runs.recipe import find_recipe
    from wsss_lab.runs.settings import with_changes
    from wsss_lab.studies.toy import warm_up

    few = {"data.count": 4, "data.val_count": 2, "data.size": 64, "data.crop": 64}
    prefix = {"cosa": "assignment.network.", "acr": ""}
    few |= {"run.batch": 2, "run.steps": 1, "run.save_every": 1}
    for name, backbone in (("cosa", "toy_vit2"), ("acr", "toy_vit2")):
        recipe = find_recipe(name)
        changes = {known: changes | few for known, changes in recipe.warm_ups.items()}
        short = replace(recipe, warm_ups=changes)
        monkeypatch.setattr(warm_up, "find_recipe", lambda _, recipe=short: recipe)
        record = warm_up.run(warm_up.WarmUp(name, run_folder=tmp_path / name, out=tmp_path))
        packed = safetensors.torch.load_file(tmp_path / f"{backbone}_{name}.safetensors")
        assert {v.dtype for v in packed.values() if v.is_floating_point()} == {torch.float16}
        assert all(key.startswith(prefix[name]) for key in packed)
        config = with_changes(recipe.preset("toy"), recipe.warm_ups[backbone])
        method = recipe.build(config, 10, False)
        method.start_from({k: v.float() for k, v in packed.items()})  # strict
        assert record["method"] == name
        assert (tmp_path / f"{backbone}_{name}.json").is_file()


def test_warm_ups_are_of_the_backbones_they_name():
    from wsss_lab.runs.recipe import RECIPES
    from wsss_lab.runs.settings import with_changes

    found = set()
    for name, recipe in RECIPES.items():
        for backbone, changes in recipe.warm_ups.items():
            config = with_changes(recipe.preset("toy"), changes)
            own = config if hasattr(config, "backbone") else config.method
            assert own.backbone == backbone
            found.add(f"{backbone}_{name}")
    old = {"toy_mit_tscd", "toy_cnn_cosa", "toy_vit_cosa", "toy_vit_acr"}
    assert found == old | {"toy_mit2_tscd", "toy_vit2_cosa", "toy_vit2_acr"}


def test_a_warm_up_that_is_not_there():
    from wsss_lab.studies.toy import warm_up

    with pytest.raises(ValueError, match=r"of cosa \(toy_vit2, toy_cnn, toy_vit\), got 'wrn38'"):
        warm_up.run(warm_up.WarmUp("cosa", "wrn38"))
    with pytest.raises(ValueError, match="there are none"):
        warm_up.run(warm_up.WarmUp("asdt"))
