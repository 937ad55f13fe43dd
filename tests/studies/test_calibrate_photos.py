"""Calibration on photos, in small: trained on tags, scored on the list with masks, packed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import Subset

from wsss_lab.cam import Fusion
from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig, build_dataset
from wsss_lab.data.errors import DataError
from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.map_refinement import MapRefinement
from wsss_lab.evaluate.predict import toy_classifier
from wsss_lab.studies.photos import calibrate
from wsss_lab.studies.photos.calibrate import Calibration, main


def settings(tmp_path, **changes):
    values = {
        "photos": Path("nowhere"),
        "out": tmp_path / "run",
        "backbone": "toy_cnn",
        "weights": "toy",
        "scales": ("one", "two"),
        "data": DataConfig("toy", crop=64, size=64, count=6),
        "run": RunConfig(2, 2),
    }
    return Calibration(**(values | changes))


def test_the_record_has_a_sweep_for_every_set_of_scales(tmp_path):
    main(settings(tmp_path))
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    found = record["maps_with_true_tags_on_train"]
    assert set(found) == {"one", "two"}
    for scores in found.values():
        assert max(scores["sweep"]) <= scores["miou"] + 1e-4
        assert 0 <= scores["threshold"] < 1
    assert record["config"]["photos"] == "VOC_MINI"
    assert str(tmp_path) not in json.dumps(record)


def test_what_is_packed_is_the_network_that_was_scored(tmp_path, monkeypatch):
    target = tmp_path / "packed.safetensors"
    monkeypatch.setitem(calibrate.PACKAGED, "voc-mini", target)
    with pytest.raises((ValueError, DataError, FileNotFoundError), match=r"record\.json"):
        main(settings(tmp_path, pack=True))
    main(settings(tmp_path))
    main(settings(tmp_path, pack=True))
    card = json.loads(target.with_suffix(".json").read_text())
    assert card["calibration"]["maps_with_true_tags_on_train"]["one"]["miou"] > 0
    network, _ = calibrate.trained(settings(tmp_path))
    state = torch.cat([p.flatten() for p in network.parameters()])
    packed = load_file(target)
    stored = torch.cat([packed[n].float().flatten() for n, _ in network.named_parameters()])
    torch.testing.assert_close(stored, state, rtol=1e-3, atol=1e-4)


def test_steps_of_par_are_compared_on_the_packaged_network(tmp_path, monkeypatch):
    packaged = SimpleNamespace(method=toy_classifier())
    monkeypatch.setattr(calibrate, "load_packaged", lambda _: packaged)
    main(settings(tmp_path, scales=("one",), refine=(0, 2, 5), every=2))
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    found = record["maps_with_true_tags_on_train_by_steps"]["one"]
    assert found["photos"] == 3
    assert len({found[n]["miou"] for n in ("0", "2", "5")}) == 3
    assert not (tmp_path / "run" / "tags").exists()  # nothing was trained

    photos = build_dataset(DataConfig("toy", crop=64, size=64, count=6), "train", masks=True)
    some = Subset(photos, range(0, 6, 2))
    wanted = evaluate(
        packaged.method, some, MultiScale(cam=Fusion(scales=(1.0,), flip=True)),
        num_classes=11, tags_at_test=True, refine=MapRefinement(5),
    )  # fmt: skip
    assert found["5"]["miou"] == pytest.approx(wanted.sweeps["cam+true tags"].best_miou, abs=1e-4)
    with pytest.raises(ValueError, match="rising numbers of steps"):
        main(settings(tmp_path, scales=("one",), refine=(5, 0)))
