"""Records come with the package and are read by name, wherever a process was started."""

import json
import re
from pathlib import Path

import pytest

from wsss_lab import records
from wsss_lab.records import RECORDS, load_record, record_file
from wsss_lab.studies import load_study
from wsss_lab.studies.plan import find_records
from wsss_lab.studies.toy.localisation import load_localisation


def test_a_record_is_its_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = [path.relative_to(RECORDS).with_suffix("") for path in RECORDS.rglob("*.json")]
    assert len(names) > 100
    for name in ("calibration", "studies/asdt/cpu/r8-seed0"):
        assert load_record(name) == json.loads((RECORDS / f"{name}.json").read_text())
    assert load_localisation() == load_record("acr_localisation")
    assert load_study("acr").table()


def test_a_misspelt_name_ends_with_those_that_are_there():
    with pytest.raises(FileNotFoundError, match=r"calibration, .*refine, .*got 'calibrations'"):
        record_file("calibrations")
    with pytest.raises(FileNotFoundError, match=r"studies/asdt/cpu/r8-seed0, .*got 'studies/asdt"):
        load_record("studies/asdt/cpu/r8-seed9")
    with pytest.raises(FileNotFoundError, match=r"refine, .*got 'nowhere/x'"):
        load_record("nowhere/x")


def test_a_damaged_record_is_named(monkeypatch, tmp_path):
    (tmp_path / "half.json").write_text('{"runs": [')
    monkeypatch.setattr(records, "RECORDS", tmp_path)
    with pytest.raises(ValueError, match=r"record: .*half\.json is damaged .*reinstall"):
        load_record("half")


def test_new_records_go_to_the_checkout_and_never_into_an_installation(monkeypatch, tmp_path):
    from wsss_lab.studies import plan

    assert find_records() == RECORDS / "studies"
    monkeypatch.setattr(plan, "RECORDS", tmp_path / "site-packages" / "wsss_lab" / "records")
    monkeypatch.chdir(tmp_path)
    assert find_records().resolve() == tmp_path.resolve() / "records" / "studies"


@pytest.mark.parametrize("room", ["wsss_lab/records", "wsss_lab/weights", "benchmarks/results"])
def test_no_record_names_a_folder_of_one_machine(room):
    files = sorted((Path(__file__).parents[1] / room).rglob("*.json"))
    assert files
    for file in files:
        found = re.findall(r'"(?:/\w|[A-Za-z]:\\)[^"]*"', file.read_text(encoding="utf-8"))
        assert not found, (file.name, found[:3])
