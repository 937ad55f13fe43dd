"""The study of the test protocol, at a size at which its numbers mean nothing."""

import json

from wsss_lab.records import load_record
from wsss_lab.studies.toy import protocols


def test_every_row_is_scored_and_recorded(tmp_path):
    settings = protocols.Protocols(out=tmp_path / "record.json", scenes=8)
    protocols.run(settings)
    found = json.loads(settings.out.read_text())
    kept = load_record("protocols")
    assert found["miou"].keys() == kept["miou"].keys()
    assert all(0 < value < 1 for value in found["miou"].values())
    assert found["protocol"][0] == "split: toy-1 val, scenes 0 to 7"
    miou = found["miou"]
    assert miou["own tags, best threshold"] >= max(
        value for name, value in miou.items() if name == "base" or name.startswith("threshold")
    )
    assert miou["open pixels ignored"] >= miou["open pixels wrong"]
    assert miou["first 5, zero"] <= miou["first 5, skip"]
