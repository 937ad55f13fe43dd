"""Every way to read a map against `ACR.localise` and by hand; the record and its table."""

import dataclasses
import json

import pytest
import torch

from wsss_lab.cam.attention_maps import attention_rollout
from wsss_lab.config import RunConfig, write_json
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.config import DataConfig
from wsss_lab.data.toy import ToyWorld
from wsss_lab.methods.acr.localisation import record_for_localisation
from wsss_lab.metrics import threshold_sweep
from wsss_lab.recipes.acr.recipe import PRESETS, build
from wsss_lab.runs.settings import plain
from wsss_lab.runs.weights_file import save_weights
from wsss_lab.studies.toy import localisation as study
from wsss_lab.studies.toy.localisation_maps import all_maps, rows_of

SIDE = 64


def config(seed=0, **changes):
    base = PRESETS["toy"]
    return dataclasses.replace(
        base,
        data=DataConfig(size=SIDE, crop=SIDE),
        run=RunConfig(steps=2, batch=2, seed=seed),
        method=dataclasses.replace(base.method, **changes),
    )


def network(seed=0, **changes):
    torch.manual_seed(seed)
    return build(config(seed, **changes), len(TOY_CLASSES), True).eval()


def write_run(folder, seed=0, **changes):
    settings, method = config(seed, **changes), network(seed, **changes)
    facts = {
        "method": "acr",
        "part": "ACR",
        "classes": ["background", *TOY_CLASSES],
        "config": settings,
    }
    save_weights(folder / "fit" / "model.safetensors", method, facts)
    start = {"method": "acr", "config": plain(settings), "git": "abc", "versions": {}}
    write_json(folder / "config.json", start)
    return folder


@pytest.fixture(scope="module")
def scenes():
    return ToyWorld("train", 3, size=SIDE).tensors(workers=0)


def test_every_row_against_localise(scenes):
    method, images, tags = network(), scenes["image"].float() / 255, scenes["tags"]
    rows = rows_of(4)
    maps = all_maps(method, images, tags)
    assert len(rows) == len(maps) == 4 * 4 * 2 + 2
    for row, found in zip(rows[:-2], maps, strict=False):
        changes = {"variant": row.variant, "start_layer": row.start_layer, "propagate": row.spread}
        method.config = dataclasses.replace(method.config, **changes)
        wanted = method.localise(images, tags)
        torch.testing.assert_close(found, wanted, atol=2e-4, rtol=1e-3, msg=row.name)
    absent = (tags == 0)[:, :, None, None].expand_as(maps[0])
    assert all((found[absent] == 0).all() for found in maps)
    assert len({row.name for row in rows}) == len(rows)
    seen = maps[-2]  # of the roll-out: the same for all classes of an image
    for image, there in zip(seen, tags > 0, strict=True):
        assert (image[there] == image[there][:1]).all()


def test_roll_out_against_the_product_of_all_matrices(scenes):
    method, images = network(), scenes["image"].float() / 255
    with record_for_localisation(method, -4) as trace:
        method(images)
    whole = torch.eye(1 + (SIDE // 8) ** 2)
    for layer in trace.attention:
        whole = (layer.mean(1) + torch.eye(whole.shape[-1])) / 2 @ whole
    torch.testing.assert_close(attention_rollout(trace.attention), whole[:, 0, 1:])
    assert (attention_rollout(trace.attention).sum(1) < 1).all()
    with pytest.raises(ValueError, match="got 0 layers and prefix 1"):
        attention_rollout([])
    with pytest.raises(ValueError, match="prefix 0"):
        attention_rollout(trace.attention, prefix=0)


def test_the_record_and_its_table(tmp_path):
    runs = (
        write_run(tmp_path / "none-seed0", alpha=0.0),
        write_run(tmp_path / "none-seed1", 1, alpha=0.0),
        write_run(tmp_path / "both-seed0"),
        write_run(tmp_path / "turn-seed0", activation=False, named_views=("turn90",)),
    )
    settings = study.Localisation(runs, tmp_path / "record.json", develop=2, scenes=3, batch=2)
    study.run(settings)
    record = study.load_localisation(settings.out)
    groups = ["no consistency", "activation and affinity x 125", "affinity x 125, turn90"]
    assert record["groups"] == [groups[0], *sorted(groups[1:])]
    assert str(tmp_path) not in json.dumps(record)
    assert [n["git"] for n in record["networks"]] == ["abc"] * 4

    # one row by hand: threshold on the first two scenes, plain networks; score on the next three
    world = ToyWorld("train", 5, size=SIDE).tensors(workers=0)
    released = {"start_layer": -2, "propagate": True}
    plain_ones = [network(seed, alpha=0.0, **released) for seed in (0, 1)]
    names = [row["name"] for row in record["rows"]]
    row = record["rows"][names.index("grad, last 2, spread")]

    def miou(method, part):
        images, tags = world["image"][part].float() / 255, world["tags"][part]
        cam = method.localise(images, tags)
        return threshold_sweep(cam, tags, world["mask"][part].long()).miou

    chosen = int(sum(miou(m, slice(0, 2)) for m in plain_ones).argmax())
    assert row["threshold"] == pytest.approx(chosen / 100)
    for group, method in ((groups[0], plain_ones[0]), (groups[1], network(**released))):
        scored = miou(method, slice(2, 5))
        entry = row["scores"][group]
        assert entry["miou"]["0"] == pytest.approx(float(scored[chosen]), abs=5e-3)
        assert entry["best"]["0"] == pytest.approx(float(scored.max()), abs=5e-3)
        assert entry["best"]["0"] >= entry["miou"]["0"]

    table = study.localisation_table(record, groups[:2]).splitlines()
    assert len(table) == 2 + 34
    assert all(line.count("|") == 7 for line in table)
    assert " ± " in table[2]
    with pytest.raises(ValueError, match="got \\['nobody'\\]"):
        study.localisation_table(record, ["nobody"])


def test_runs_that_do_not_fit(tmp_path):
    plain_run = write_run(tmp_path / "a", alpha=0.0)
    other = write_run(tmp_path / "b")
    for runs, message in (
        ((other,), "at least one trained without consistency"),
        ((plain_run, write_run(tmp_path / "c", activation=False, affinity=False)), "once, got"),
    ):
        with pytest.raises(ValueError, match=message):
            list(study.load(study.Localisation(runs)))
    with pytest.raises(FileNotFoundError, match=r"there is no .*model\.safetensors"):
        list(study.load(study.Localisation((tmp_path / "d",))))
    with pytest.raises(FileNotFoundError, match="make it with: python -m"):
        study.load_localisation(tmp_path / "nothing.json")
    with pytest.raises(ValueError, match="scenes: expected at least 1"):
        study.Localisation((plain_run,), scenes=0)
