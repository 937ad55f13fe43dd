"""A stage records what it used; weights of another run, or changed ones, are not taken."""

import dataclasses
import json
import shutil

import pytest
import safetensors.torch
import torch

from wsss_lab.config import OptimConfig, RunConfig
from wsss_lab.data.config import DataConfig
from wsss_lab.evaluate.inference import VIEWS
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.runs.folder import RunFolder
from wsss_lab.runs.labels import label_stage
from wsss_lab.runs.stage_record import conditions_of, note_conditions, read_record
from wsss_lab.runs.stages import fit_stage, silent
from wsss_lab.runs.weights_file import METADATA, read_facts, read_tensors, save_weights
from wsss_lab.train.devices import make_fabric

RUN = RunConfig(steps=2, batch=2, log_every=0, save_every=1, accelerator="cpu")


class Images:
    """Four images."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        image = torch.randint(0, 256, (3, 48, 48), generator=generator, dtype=torch.uint8)
        return {"image": image, "tags": torch.tensor([1.0, index % 2]), "name": str(index)}


def stage(out, run=RUN, lines=None):
    """Train two steps, or take what is there."""
    torch.manual_seed(0)
    method = TagClassifier(build_backbone("toy_cnn"), 2)
    folder = RunFolder(out, "cam_baseline", {"run": run}, resume=True)
    folder.begin()
    fabric = make_fabric(run)
    fabric.launch()
    facts = {"method": "cam_baseline", "part": "TagClassifier", "config": {"run": run}}
    return fit_stage(
        folder,
        "tags",
        method,
        Images(),
        run,
        OptimConfig(),
        data=DataConfig(crop=48),
        fabric=fabric,
        weights=out / "tags" / "model.safetensors",
        facts=facts,
        log=silent if lines is None else lines.append,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "one"
    stage(out)
    return out


@pytest.fixture
def out(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def test_a_stage_records_what_it_was_computed_with(finished):
    (used,) = conditions_of(finished)["tags"]
    assert used == {
        "device": "cpu",
        "processes": 1,
        "precision": "32-true",
        "accumulate": 1,
        "accumulate_asked": 1,
        "batch_norm": "batch",
        "loss": "batch",
        "threads": torch.get_num_threads(),
        "interop_threads": torch.get_num_interop_threads(),
    }


def test_a_run_that_goes_on_with_other_threads_records_both(out, monkeypatch):
    (out / "tags" / "model.safetensors").unlink()
    (out / "tags" / "checkpoints" / "step_00000002.pt").unlink()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    stage(out, dataclasses.replace(RUN, accumulate=2))
    used = read_record(out / "tags")["used"]
    assert [each["threads"] for each in used][1:] == [7]
    assert [each["accumulate_asked"] for each in used] == [1, 2]


def test_the_same_conditions_are_recorded_once(tmp_path):
    for _ in range(2):
        note_conditions(tmp_path, {"threads": 1})
    assert read_record(tmp_path)["used"] == [{"threads": 1}]


def test_own_weights_are_taken(out):
    lines = []
    stage(out, lines=lines)
    assert lines == ["tags: done already, model.safetensors"]


def test_weights_of_another_run_are_not_taken(out, tmp_path):
    other = tmp_path / "other"
    stage(other, dataclasses.replace(RUN, seed=1))
    shutil.copy(other / "tags" / "model.safetensors", out / "tags")
    with pytest.raises(ValueError, match=r"of another run \(config.run.seed is 1 there and 0 here"):
        stage(out)


def test_weights_that_the_stage_has_not_written_are_not_taken(out):
    """Same settings and another network, for example trained on other data."""
    path = out / "tags" / "model.safetensors"
    facts = read_facts(path)
    torch.manual_seed(5)
    save_weights(path, TagClassifier(build_backbone("toy_cnn"), 2), facts)
    with pytest.raises(ValueError, match="not the file that this stage has written; delete it"):
        stage(out)
    path.unlink()
    assert stage(out) is not None


@pytest.mark.parametrize("data", [b"", b"\xff", b"5", b"[" * 99_999, b'{"a":' * 99_999])
def test_a_damaged_record_counts_as_none(data, tmp_path):
    (tmp_path / "stage.json").write_bytes(data)
    assert read_record(tmp_path) == {}
    note_conditions(tmp_path, {"threads": 2})
    assert read_record(tmp_path) == {"used": [{"threads": 2}]}


def test_weights_without_a_description_are_not_taken(out):
    path = out / "tags" / "model.safetensors"
    safetensors.torch.save_file(read_tensors(path), path)
    with pytest.raises(ValueError, match="not written by a run of this library"):
        stage(out)


def test_tensors_that_changed_since_they_were_written_are_refused(out):
    path = out / "tags" / "model.safetensors"
    state, facts = read_tensors(path), read_facts(path)
    state["head.linear.weight"][0, 0] += 1
    safetensors.torch.save_file(state, path, {METADATA: json.dumps(facts)})
    with pytest.raises(ValueError, match="do not have the hash"):
        read_tensors(path)


def labels(out, seed, also=(), lines=None):
    """Label the four images with a network of this seed."""
    torch.manual_seed(seed)
    method = TagClassifier(build_backbone("toy_cnn"), 2).eval()
    fabric = make_fabric(RUN)
    fabric.launch()
    label_stage(
        method,
        Images(),
        out,
        views=VIEWS["single"],
        also=also,
        batch=2,
        workers=0,
        fabric=fabric,
        log=silent if lines is None else lines.append,
    )


def test_labels_of_another_network_are_not_taken(tmp_path):
    """Also not where a kill has left some of them."""
    labels(tmp_path, 0)
    (tmp_path / "3.png").unlink()
    with pytest.raises(ValueError, match="labels of another network than this run's; delete the"):
        labels(tmp_path, 1)
    assert not (tmp_path / "3.png").exists()
    labels(tmp_path, 0)
    assert (tmp_path / "3.png").exists()
    lines = []
    labels(tmp_path, 0, lines=lines)
    assert "labels: 4 images done already" in lines
    for file in tmp_path.glob("*.png"):
        file.unlink()
    labels(tmp_path, 1)  # nothing is left that another one has made


def test_labels_depend_on_every_network_of_their_rule(tmp_path):
    walk = torch.nn.Linear(2, 2)
    labels(tmp_path, 0, also=[walk])
    walk.weight.data[0, 0] += 1
    with pytest.raises(ValueError, match="labels of another network"):
        labels(tmp_path, 0, also=[walk])


def test_labels_are_no_training_of_a_run(out):
    labels(out / "labels", 0)
    assert list(conditions_of(out)) == ["tags"]


def test_a_run_that_is_replaced_leaves_no_record_behind(out):
    RunFolder(out, "cam_baseline", RUN, resume=False, overwrite=True).begin()
    assert [path.name for path in out.iterdir()] == ["config.json"]
