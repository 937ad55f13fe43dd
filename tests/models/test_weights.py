"""Loading weights: what is found, what is refused, and what the message says."""

import argparse

import pytest
import safetensors.torch
import timm
import torch

from wsss_lab.models import timm_weights, weights
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.base import count_parameters
from wsss_lab.models.weights import (
    IMAGENET_TAGS,
    load_backbone_weights,
    load_strictly,
    pretrained_backbone,
    read_state_dict,
    save_backbone_weights,
    toy_metrics,
)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A stand-in for the installed package, with a folder for weights."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(weights.resources, "files", lambda _: tmp_path)
    return tmp_path / "weights"


@pytest.fixture
def offline(monkeypatch):
    monkeypatch.setattr(timm_weights, "_cached", lambda tag: None)
    monkeypatch.setattr(timm_weights, "_hub_reachable", lambda: False)


def test_toy_weights_round_trip(packaged):
    source = build_backbone("toy_vit")
    save_backbone_weights(source, packaged / "toy_vit.safetensors", {"accuracy": 0.9})
    target = build_backbone("toy_vit")
    assert not same(source, target)
    assert load_backbone_weights(target, "toy") is target
    assert same(source, target)
    assert target.weight_tag == "toy"
    assert toy_metrics("toy_vit") == {
        "backbone": "toy_vit",
        "parameters": sum(p.numel() for p in source.net.parameters()),
        "accuracy": 0.9,
    }


def test_absent_toy_weights(packaged):
    with pytest.raises(FileNotFoundError, match="no weights for 'toy_cnn'"):
        load_backbone_weights(build_backbone("toy_cnn"), "toy")
    with pytest.raises(FileNotFoundError, match="toy_cnn, toy_mit2, toy_vit2, toy_mit and toy_vit"):
        load_backbone_weights(build_backbone("resnet18"), "toy")


FORMS = [
    (form, ending)
    for form in ("own", "net", "parallel", "wrapped", "classifier")
    for ending in ("pth", "safetensors")
    if (form, ending) != ("wrapped", "safetensors")  # these files cannot be nested
]


@pytest.mark.parametrize(("form", "ending"), FORMS)
def test_local_files(tmp_path, form, ending):
    source = build_backbone("toy_cnn")
    state = {
        "own": source.net.state_dict(),
        "net": source.state_dict(),
        "parallel": {f"module.{k}": v for k, v in source.net.state_dict().items()},
        "wrapped": {"epoch": 3, "model": source.net.state_dict()},
        "classifier": source.net.state_dict() | {"head.weight": torch.zeros(10, 144)},
    }[form]
    file = tmp_path / f"weights.{ending}"
    if ending == "pth":
        torch.save(state, file)
    else:
        safetensors.torch.save_file(state, file)
    target = load_backbone_weights(build_backbone("toy_cnn"), file)
    assert same(source, target)
    assert target.weight_tag == f"file:weights.{ending}"


def test_old_batch_norm_without_counters(tmp_path):
    source = build_backbone("toy_cnn")
    state = {
        k: v for k, v in source.net.state_dict().items() if not k.endswith("num_batches_tracked")
    }
    torch.save(state, tmp_path / "old.pth")
    assert same(source, load_backbone_weights(build_backbone("toy_cnn"), tmp_path / "old.pth"))


def test_official_names_are_recognised(tmp_path):
    source = build_backbone("mit_b0", embed_dims=(8, 16, 20, 32))
    renamed = {}
    for key, value in source.net.state_dict().items():
        words = key.split(".")
        if words[0] == "patch_embed":
            key = "patch_embed1." + ".".join(words[1:])
        else:
            stage, rest = int(words[1]) + 1, ".".join(words[2:])
            key = {"downsample": "patch_embed", "blocks": "block", "norm": "norm"}[words[2]]
            key = f"{key}{stage}.{rest.partition('.')[2]}".replace(
                "mlp.dwconv", "mlp.dwconv.dwconv"
            )
        renamed[key] = value
    torch.save(renamed | {"head.weight": torch.zeros(1000, 32)}, tmp_path / "mit_b0.pth")
    target = build_backbone("mit_b0", embed_dims=(8, 16, 20, 32))
    assert same(source, load_backbone_weights(target, tmp_path / "mit_b0.pth"))


def test_every_misfit_is_named_and_nothing_is_changed():
    backbone = build_backbone("toy_cnn")
    before = {k: v.clone() for k, v in backbone.net.state_dict().items()}
    state = dict(before)
    state["stem.9.weight"] = state.pop("stem.0.weight")
    state["stage1.0.conv1.weight"] = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"1 missing.*stem\.0.*1 unexpected.*stem\.9.*1 of another"
    ):
        load_strictly(backbone.net, state, what="a test")
    assert all(torch.equal(v, before[k]) for k, v in backbone.net.state_dict().items())


def test_damaged_files(tmp_path):
    source = build_backbone("toy_cnn")
    for ending in ("pth", "safetensors"):
        file = tmp_path / f"whole.{ending}"
        if ending == "pth":
            torch.save(source.net.state_dict(), file)
        else:
            save_backbone_weights(source, file)
        cut = tmp_path / f"cut.{ending}"
        cut.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        empty = tmp_path / f"empty.{ending}"
        empty.write_bytes(b"")
        text = tmp_path / f"text.{ending}"
        text.write_text("<!DOCTYPE html><html>not found</html>")
        for bad in (cut, empty, text):
            with pytest.raises(ValueError, match=r"bytes\): it is truncated or not a weights file"):
                load_backbone_weights(build_backbone("toy_cnn"), bad)
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        read_state_dict(tmp_path / "absent.pth")


def test_pickled_objects_are_not_loaded(tmp_path):
    file = tmp_path / "args.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, file)
    with pytest.raises(ValueError, match="pickled Python objects"):
        read_state_dict(file)
    torch.save([1, 2], file)
    with pytest.raises(ValueError, match="no state dict"):
        read_state_dict(file)


def test_offline_says_what_to_fetch(offline):
    with pytest.raises(ConnectionError, match=r"huggingface.co/timm/resnet18.tv_in1k.*toy_cnn"):
        load_backbone_weights(build_backbone("resnet18"), "imagenet")
    with torch.device("meta"):
        for name, needed in [("mit_b1", "mit_b1.pth"), ("wrn38", "res38_cls.pth")]:
            with pytest.raises(FileNotFoundError, match=needed):
                load_backbone_weights(build_backbone(name), "imagenet")


def test_offline_fallback_only_on_request(offline, packaged):
    save_backbone_weights(build_backbone("toy_mit"), packaged / "toy_mit.safetensors")
    with pytest.raises(ConnectionError):
        pretrained_backbone("resnet18", "resnet18.a1_in1k")
    with pytest.warns(UserWarning, match="toy_mit takes the place of resnet18"):
        backbone = pretrained_backbone("resnet18", offline_fallback="toy_mit", output_stride=16)
    assert (backbone.name, backbone.weight_tag) == ("toy_mit", "toy")


def test_cached_timm_weights_need_no_connection(tmp_path, monkeypatch):
    donor = timm.create_model("resnet18")
    safetensors.torch.save_file(donor.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr(timm_weights, "_cached", lambda tag: str(tmp_path / "model.safetensors"))
    monkeypatch.setattr(timm_weights, "_hub_reachable", lambda: pytest.fail("asked for the hub"))
    backbone = load_backbone_weights(build_backbone("resnet18"), "imagenet")
    assert torch.equal(backbone.net.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert backbone.weight_tag == "timm:resnet18.tv_in1k"


def test_exact_tags_exist_in_timm():
    assert IMAGENET_TAGS["vit_b16"] == "vit_base_patch16_224.orig_in21k_ft_in1k"
    for tag in IMAGENET_TAGS.values():
        assert timm.models.is_model_pretrained(tag)
        assert timm.get_pretrained_cfg(tag).hf_hub_id == f"timm/{tag}"


PACKAGED = ("toy_cnn", "toy_mit", "toy_vit", "toy_mit2", "toy_vit2")


def test_bad_sources(tmp_path):
    with pytest.raises(ValueError, match="source must be"):
        load_backbone_weights(build_backbone("toy_cnn"), "nonsense")
    with pytest.raises(ValueError, match="no ImageNet weights for toy_cnn"):
        load_backbone_weights(build_backbone("toy_cnn"), "imagenet")
    with pytest.raises(ValueError, match="must end in"):
        save_backbone_weights(build_backbone("toy_cnn"), tmp_path / "x.pth")


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_weights_load(name):
    """Packaged weights fit, are small, and say how they were made and how good they are."""
    backbone = load_backbone_weights(build_backbone(name), "toy")
    assert backbone.weight_tag == "toy"
    file = weights.resources.files("wsss_lab") / "weights" / f"{name}.safetensors"
    assert file.stat().st_size <= 6e6
    facts = toy_metrics(name)
    assert facts["backbone"] == name
    assert facts["parameters"] == count_parameters(backbone.net)
    assert facts["accuracy"] > 0.9
    assert {"config", "git", "versions", "seed", "device"} <= facts.keys()
