"""Readers of files under seeded damage: a result, or an error in one line that names the file."""

import io
import json
import random
import zipfile

import pytest
import safetensors.torch
import torch

from wsss_lab.data.errors import DataError
from wsss_lab.data.prepare.coco import read_instances
from wsss_lab.data.prepare.common import already
from wsss_lab.data.prepare.download import read_checksums
from wsss_lab.data.prepare.unpack import unpack_zip
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.state import read_state_dict
from wsss_lab.recipes.cam_baseline.config import PRESETS, Config
from wsss_lab.runs.folder import RunFolder, read_run
from wsss_lab.runs.identify import identify
from wsss_lab.runs.settings import restore
from wsss_lab.runs.weights import load_trained
from wsss_lab.runs.weights_file import read_facts, save_weights
from wsss_lab.train.checkpoint import load_checkpoint

HOSTILE = [None, True, -1, 0, 2**70, 10**400, float("nan"), float("inf"), "", "x" * 300, "\x1b[2J",
           [], [[]], {}, {"a": {}}, [1, "a", None]]  # fmt: skip


def flip(data, rng):
    """Bytes with some changed, cut out, doubled or put in."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(4)
        if kind == 0 and data:
            data[place] = rng.randrange(256)
        elif kind == 1:
            del data[place : place + rng.randrange(1, 64)]
        elif kind == 2:
            data[place:place] = data[place : place + rng.randrange(1, 64)]
        else:
            data[place:place] = rng.randbytes(rng.randrange(1, 8))
    return bytes(data)


def places(value, path=()):
    """Ways to every entry of nested containers."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def edited(content, rng):
    """JSON with one entry replaced by something that does not belong there, or left out."""
    content = json.loads(json.dumps(content))
    path = rng.choice(list(places(content)))
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if isinstance(inner, dict) and rng.random() < 0.2:
        del inner[path[-1]]
    else:
        inner[path[-1]] = rng.choice(HOSTILE)
    return json.dumps(content)


def survives(read, file):
    """Whether a reader ended well, or with an error that is fit for one line and names the file."""
    try:
        read(file)
    except (ValueError, FileNotFoundError) as error:
        if file.name not in str(error):
            raise AssertionError(f"{error!r} does not name its file") from error


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    RunFolder(folder / "run", "cam_baseline", PRESETS["toy"], False).begin()
    classifier = TagClassifier(build_backbone("toy_cnn"), 2)
    facts = {"method": "cam_baseline", "part": "TagClassifier", "classes": ["background", "a", "b"]}
    facts |= {"config": PRESETS["toy"], "weights": "toy"}
    save_weights(folder / "model.safetensors", classifier, facts)
    state = {"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.zeros(2)}
    for name, zipped in (("new.pth", True), ("old.pth", False)):
        torch.save(state, folder / name, _use_new_zipfile_serialization=zipped)
    checkpoint = {
        "format": 1, "method": "Tiny", "step": 3, "model": state, "optimizer": {"state": {}},
        "scaler": {}, "rng": [], "config": {"run": {}, "optim": {}}, "history": [],
    }  # fmt: skip
    torch.save(checkpoint, folder / "step_00000003.pt")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"images/{i}.txt", f"text {i}" * 20)
    (folder / "a.zip").write_bytes(buffer.getvalue())
    return folder


def read_configuration(file):
    """As `train --resume` reads it."""
    restore(Config, read_run(file.parent)["config"], file)


def unpack(file):
    unpack_zip(file, file.parent / "out", ("images",))


READERS = {
    "run/config.json": (read_configuration,),
    "model.safetensors": (read_state_dict, read_facts, identify, load_trained),
    "new.pth": (read_state_dict, identify),
    "old.pth": (read_state_dict, identify),
    "step_00000003.pt": (load_checkpoint,),
    "a.zip": (unpack,),
}


@pytest.mark.parametrize("name", list(READERS))
def test_flipped_bytes(name, originals, tmp_path):
    rng = random.Random(f"bytes {name}")
    original = (originals / name).read_bytes()
    file = tmp_path / name.rpartition("/")[2]
    for _ in range(12 if len(original) > 100_000 else 60):
        # headers decide; the tail of a zip is its directory
        head, middle, tail = original[:4000], original[4000:-2000], original[-2000:]
        damaged = flip(head, rng) + middle + (tail if rng.random() < 0.5 else flip(tail, rng))
        file.write_bytes(damaged if len(original) > 6000 else flip(original, rng))
        for read in READERS[name]:
            survives(read, file)


def test_edited_configurations(originals, tmp_path):
    rng = random.Random("config")
    content = json.loads((originals / "run" / "config.json").read_text())
    file = tmp_path / "config.json"
    for _ in range(300):
        file.write_text(edited(content, rng))
        survives(read_configuration, file)


def test_edited_descriptions_of_weights(originals, tmp_path):
    rng = random.Random("facts")
    facts = read_facts(originals / "model.safetensors")
    del facts["sha256"]  # as in older files; else it would refuse the small ones first
    state = safetensors.torch.load_file(originals / "model.safetensors")
    small = {k: v for k, v in state.items() if k.startswith("head.")}  # nothing fits: fast
    file = tmp_path / "model.safetensors"
    for number in range(60):
        metadata = {"wsss_lab": edited(facts, rng)}
        safetensors.torch.save_file(state if number < 10 else small, file, metadata)
        for read in (load_trained, identify):
            survives(read, file)


def test_edited_lists_of_data_sets(tmp_path):
    rng = random.Random("coco")
    content = {
        "categories": [{"id": 1, "name": "person"}],
        "images": [{"id": 5, "file_name": "a.jpg", "height": 4, "width": 6}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 1, "area": 1, "segmentation": []}],
    }
    for _ in range(200):
        for name, read in (
            ("instances_train2014.json", lambda file: read_instances(file, tmp_path)),
            ("CHECKSUMS.json", lambda file: read_checksums(file.parent)),
            ("prepared.json", lambda file: already(file, {})),
        ):
            file = tmp_path / name
            file.write_text(edited(content, rng))
            survives(read, file)


@pytest.mark.parametrize("data", [b"[" * 99_999, b"\xff", b"", b"9" * 9999, b'{"a":' * 99_999])
def test_json_that_is_none(data, tmp_path):
    for name in ("instances_train2014.json", "CHECKSUMS.json"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=r"instances_train2014\.json"):
        read_instances(tmp_path / "instances_train2014.json", tmp_path)
    with pytest.raises(DataError, match=r"CHECKSUMS\.json"):
        read_checksums(tmp_path)
