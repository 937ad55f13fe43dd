"""Calibration on photos, in small: trained on tags, scored on the list with masks, packed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from wsss_lab.config import RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.data.errors import DataError
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
