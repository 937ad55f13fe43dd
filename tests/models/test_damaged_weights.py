"""Damaged, hostile and odd files of weights end in one line that names them."""

import io
import os
import pickle

import pytest
import torch

from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.state import load_strictly, read_state_dict
from wsss_lab.models.weights import load_backbone_weights, save_backbone_weights
from wsss_lab.runs.identify import identify
from wsss_lab.runs.safe_read import read_checkpoint


def legacy():
    state = {f"layer{i}.weight": torch.arange(12.0).view(3, 4) + i for i in range(6)}
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


DATA = legacy()
FILES = {
    "legacy, half": DATA[: len(DATA) // 2],
    "legacy, one byte": DATA[:300] + b"\xff" + DATA[301:],
    "legacy, other byte": DATA[:200] + b"\x00" + DATA[201:],
    "os.system": pickle.dumps(Evil(), 2),
    "number": pickle.dumps(5, 2),
    "empty": b"",
}
CONTENTS = {
    "int key": {1: torch.zeros(2)},
    "meta tensor": {"a": torch.zeros(2, device="meta")},
    "sparse tensor": {"a": torch.eye(3).to_sparse()},
    "list": [torch.zeros(1)],
    "no tensors": {"a": 1},
}


@pytest.mark.parametrize("name", [*FILES, *CONTENTS])
@pytest.mark.parametrize("read", [read_state_dict, read_checkpoint, identify])
def test_damaged_files_are_refused_by_name(name, read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "damaged.pth"
    if name in FILES:
        file.write_bytes(FILES[name])
    else:
        torch.save(CONTENTS[name], file)
    with pytest.raises(ValueError, match=r"damaged\.pth") as caught:
        read(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()
    if name == "os.system":
        assert "not safe to load" in str(caught.value)
        assert "download it again" not in str(caught.value)


def test_half_precision_is_widened_and_recorded(tmp_path):
    source = build_backbone("toy_cnn")
    state = {
        k: v.half() if v.is_floating_point() else v for k, v in source.net.state_dict().items()
    }
    torch.save(state, tmp_path / "half.pth")
    target = load_backbone_weights(build_backbone("toy_cnn"), tmp_path / "half.pth")
    assert target.weight_tag == "file:half.pth (float16)"
    own = target.net.state_dict()
    assert all(torch.equal(own[k], v.to(own[k].dtype)) for k, v in state.items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.complex64, torch.bool])
def test_no_type_that_could_lose_something_is_cast(dtype, tmp_path):
    state = build_backbone("toy_cnn").net.state_dict()
    state["stem.0.weight"] = state["stem.0.weight"].to(dtype)
    torch.save(state, tmp_path / "cast.pth")
    with pytest.raises(ValueError, match=r"1 of another type \(stem\.0\.weight .* needs float32"):
        load_backbone_weights(build_backbone("toy_cnn"), tmp_path / "cast.pth")


def test_nan_is_not_loaded_and_not_saved(tmp_path):
    backbone = build_backbone("toy_cnn")
    state = {k: v.clone() for k, v in backbone.net.state_dict().items()}
    state["stem.0.weight"].view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match=r"1 not finite \(stem\.0\.weight\)"):
        load_strictly(backbone.net, state, what="a test")
    with torch.no_grad():
        backbone.net.stem[0].weight.view(-1)[0] = float("inf")
    with pytest.raises(FloatingPointError, match="tensors are not finite"):
        save_backbone_weights(backbone, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_in_the_cache_of_the_hub_is_named(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x" * 100)
    monkeypatch.setattr("wsss_lab.models.timm_weights._cached", lambda tag: str(file))
    with pytest.raises(ValueError, match=rf"cached file {file} cannot be loaded .*delete it"):
        load_backbone_weights(build_backbone("resnet18"), "imagenet")
