"""Photos of any size: one rule, results at their own size, and memory that stays bounded."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from pixels import Pixels

from wsss_lab.data.masks import read_mask
from wsss_lab.evaluate.evaluate import evaluate, score_shard
from wsss_lab.evaluate.inference import MultiScale, multi_scale_predict, resize_bilinear
from wsss_lab.evaluate.large import (
    BAND,
    SEPARATE,
    at_rows,
    bands,
    enlarged_label,
    group_size,
    label_by_band,
    look,
    shrunk,
)
from wsss_lab.evaluate.map_refinement import MapRefinement
from wsss_lab.ranges import MOST_PIXELS
from wsss_lab.recipes.cam_baseline.config import Config, TestConfig
from wsss_lab.recipes.cam_baseline.recipe import cam_views, seg_views
from wsss_lab.runs.labels import label_stage
from wsss_lab.train.devices import make_fabric

CPU = torch.device("cpu")
SMALL = MultiScale(most_pixels=65536)


def photo(h, w, seed=0):
    """Smooth coloured noise, so that neighbouring pixels are alike."""
    coarse = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return (resize_bilinear(coarse, (h, w)) * 255).to(torch.uint8)


@pytest.mark.parametrize(
    "size", [(500, 500), (640, 640), (1024, 1024), (375, 500), (1, 30), (1, 1)]
)
def test_ordinary_photos_are_looked_at_as_they_are(size):
    assert MultiScale().computing_size(*size) == size
    image = photo(*size)
    assert shrunk(image, MultiScale().computing_size(*size)) is image


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((3000, 4000), (886, 1182)),
        ((4000, 3000), (1182, 886)),
        ((1024, 1025), (1023, 1024)),
        ((1, 20000), (32, 32768)),
        ((20000, 1), (32768, 32)),
        ((100, 200000), (32, 32768)),
    ],
)
def test_size_at_which_a_large_photo_is_looked_at(size, wanted):
    views = MultiScale()
    assert views.computing_size(*size) == wanted
    assert wanted[0] * wanted[1] <= views.most_pixels
    assert views.computing_size(*wanted) == wanted  # and not shrunk again


def test_every_view_of_a_thin_photo_is_bounded():
    seen = []

    def predict(view, tags):
        seen.append(view.shape[-2] * view.shape[-1])
        return Pixels().predict(view)

    views = replace(SMALL, logits=replace(SMALL.logits, scales=(1.0, 0.5, 1.5)))
    look(predict, photo(1, 3000), views)
    assert len(seen) == 3
    assert max(seen) <= 1.5**2 * views.most_pixels


def test_shrinking_takes_the_mean_of_an_area():
    blocks = torch.randint(0, 256, (1, 3, 8, 12), dtype=torch.uint8)
    fine = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(shrunk(fine, (8, 12)), blocks)
    chess = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    chess[..., ::2, ::2] = 100
    assert (shrunk(chess, (4, 4)) == 25).all()


@pytest.mark.parametrize("size", [(97, 61), (40, 400), (1, 70), (200, 3)])
def test_rows_are_those_of_the_resized_whole(size):
    scores = torch.randn(2, 3, 20, 25)
    whole = resize_bilinear(scores, size)
    parts = [at_rows(scores, size, slice(i, min(i + 7, size[0]))) for i in range(0, size[0], 7)]
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=1e-4, atol=1e-5)
    assert torch.equal(at_rows(scores, (20, 25), slice(3, 9)), scores[..., 3:9, :])


def test_bands_cover_a_photo_once_and_stay_small():
    scores = torch.zeros(1, 81, 8, 8)
    found = list(bands(scores, (3000, 4000)))
    assert [row for rows in found for row in range(rows.start, rows.stop)] == list(range(3000))
    assert all((rows.stop - rows.start) * 4000 * 81 <= BAND for rows in found)
    assert list(bands(scores, (8, 8))) == [slice(0, 8)]


def test_labels_of_bands_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr("wsss_lab.evaluate.large.BAND", 5 * 90 * 4)
    scores = torch.randn(1, 4, 20, 30)
    calls = []

    def label(part):
        calls.append(part.shape)
        return part.max(1).indices

    found = label_by_band(scores, (70, 90), label)
    assert len(calls) == 14
    assert found.dtype == torch.uint8
    wanted = resize_bilinear(scores, (70, 90)).max(1).indices
    assert (found == wanted).float().mean() > 0.999  # a tie in rounding
    own = label_by_band(scores, (20, 30), label)
    assert torch.equal(own, scores.max(1).indices)


def test_labels_of_rules_are_enlarged_by_copies():
    label = torch.tensor([[[0, 255], [3, 1]]])
    found = enlarged_label(label, (4, 6))
    assert torch.equal(found, label.repeat_interleave(2, 1).repeat_interleave(3, 2).byte())
    assert enlarged_label(label, (2, 2)) is label


def test_photos_that_go_alone():
    many = group_size(8, SMALL, CPU)
    assert many((128, 128)) == 8
    assert many((240, 320)) == 1
    gpu = group_size(8, SMALL, torch.device("cuda"))
    assert gpu((200, 300)) == 8
    assert gpu((240, 320)) == 1  # above SMALL.most_pixels
    assert SEPARATE > 128 * 128 * 3


def test_look_changes_nothing_in_ordinary_photos():
    images = photo(120, 170)
    seen, output = look(Pixels().predict, images, MultiScale())
    wanted = multi_scale_predict(Pixels().predict, images.float() / 255, MultiScale())
    assert seen is images
    assert torch.equal(output.logits, wanted.logits)


class Worlds(list):
    class_names = ("red", "green")
    num_classes = 2


def samples(*sizes):
    """Photos of two classes, red and green, with blue as background."""
    found = Worlds()
    for i, size in enumerate(sizes):
        image = photo(*size, seed=i)[0]
        mask = (image.float().argmax(0) + 1) % 3
        mask[:2, :2] = 255
        found.append(
            {"image": image, "mask": mask, "tags": torch.tensor([1.0, 1.0]), "name": f"{i}"}
        )
    return found


def test_scores_of_a_large_photo_are_those_of_enlarged_scores():
    """Counted at the photo's own size, logits and maps alike."""
    data, method = samples((300, 400)), Pixels(2)
    found = score_shard(method, data, SMALL, 3, thresholds=[0.2, 0.5], tags_at_test=True)
    image, mask = data[0]["image"][None], data[0]["mask"]
    small = shrunk(image, SMALL.computing_size(300, 400)).float() / 255
    assert small.shape[-2] * small.shape[-1] <= 65536
    output = multi_scale_predict(method.predict, small, SMALL)
    label = resize_bilinear(output.logits, (300, 400)).max(1).indices[0]
    counts = found.labels["seg"].compute()
    assert int(counts.sum()) == int((mask != 255).sum())
    right = int(((label == mask) & (mask != 255)).sum())
    assert abs(int(counts.diagonal().sum()) - right) < 20  # ties in rounding
    sweep = found.sweeps["cam+true tags"].compute()
    assert int(sweep.confusion[0].sum()) == int((mask != 255).sum())


def test_a_limit_changes_no_score_of_ordinary_photos():
    data, method = samples((120, 130), (200, 200)), Pixels(2)
    options = {"num_classes": 3, "cam_threshold": 0.4, "tags_at_test": True}
    one = evaluate(method, data, MultiScale(), **options)
    other = evaluate(method, data, MultiScale(most_pixels=65536), **options)
    assert one.as_dict() == other.as_dict()


def test_labels_and_scores_with_a_refinement_have_the_photos_size(tmp_path):
    data = samples((300, 400), (120, 90), (1, 3000))
    fabric = make_fabric(Config().run)
    label_stage(
        Pixels(2).eval(), data, tmp_path, views=SMALL, refine=MapRefinement(2), batch=4, workers=0,
        fabric=fabric, log=lambda line: None,
    )  # fmt: skip
    for sample in data:
        label = read_mask(tmp_path / f"{sample['name']}.png", 3)
        assert label.shape == tuple(sample["mask"].shape)
    assert len(np.unique(read_mask(tmp_path / "0.png", 3))) > 1
    found = evaluate(Pixels(2), data, SMALL, num_classes=3, refine=MapRefinement(2))
    assert found.sweeps["cam"].confusion[0].sum() == sum((s["mask"] != 255).sum() for s in data)


def test_a_rule_of_its_own_gives_labels_of_the_photos_size(tmp_path):
    def rule(images, cam, tags):
        assert images.shape[-2:] == cam.shape[-2:]
        return cam.argmax(1)

    data = samples((300, 400))
    label_stage(
        Pixels(2).eval(), data, tmp_path, views=SMALL, rule=rule, batch=4, workers=0,
        fabric=make_fabric(Config().run), log=lambda line: None,
    )  # fmt: skip
    assert read_mask(tmp_path / "0.png", 3).shape == (300, 400)


def test_the_setting_reaches_all_views():
    config = Config(test=TestConfig(most_pixels=70000))
    assert cam_views(config).most_pixels == seg_views(config).most_pixels == 70000
    assert Config().test.most_pixels == MOST_PIXELS
    with pytest.raises(ValueError, match="most_pixels"):
        TestConfig(most_pixels=100)


MEASURE = """
import os, resource, sys
from pathlib import Path
import numpy as np, torch
from PIL import Image
from wsss_lab.evaluate.evaluate import evaluate
from wsss_lab.evaluate.explain import explain
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.map_refinement import MapRefinement
from wsss_lab.evaluate.predict import predict_folder
from wsss_lab.evaluate.trained import Trained
from wsss_lab.methods.cam_baseline import SegNetwork, TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.imagenet import imagenet_classifier
from wsss_lab.recipes.cam_baseline.config import Config
from wsss_lab.runs.labels import label_stage
from wsss_lab.train.devices import make_fabric

def work(h, w, out):
    torch.manual_seed(0)
    names = tuple(f"class {i}" for i in range(20))
    pixels = np.add.outer(np.arange(h) // 7 % 256, np.arange(w) // 5 % 256).astype(np.uint8)
    pixels = np.stack([pixels, pixels // 2, 255 - pixels], 2)
    Image.fromarray(pixels).save(out / "photo.png", compress_level=1)
    network = SegNetwork(build_backbone("toy_cnn"), 21).eval()
    classes = ("background", *names)
    trained = Trained("cam_baseline", network, MultiScale(), classes, Config(), out, False)
    list(predict_folder(out / "photo.png", out / "masks", trained=trained))
    class Data(list):
        class_names, num_classes = names, 20
    tags = torch.zeros(20)
    tags[[3, 17]] = 1
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    mask = torch.zeros(h, w, dtype=torch.uint8)
    data = Data([{"image": image, "mask": mask, "tags": tags, "name": "photo"}])
    tagger, refine = TagClassifier(build_backbone("toy_cnn"), 20).eval(), MapRefinement(1)
    label_stage(tagger, data, out / "labels", views=MultiScale(), refine=refine, batch=8, workers=0,
                fabric=make_fabric(Config().run), log=lambda line: None)
    evaluate(tagger, data, num_classes=21, cam_threshold=0.4, refine=refine, tags_at_test=True)
    evaluate(network, data, num_classes=21)
    assert explain(imagenet_classifier(), image).image.shape[-1] <= 320
    for folder in ("masks", "labels"):
        assert Image.open(out / folder / "photo.png").size == (w, h)

build_backbone("toy_cnn"), imagenet_classifier()  # imports what the processes below then share
for name in sys.argv[2:]:  # each in a process of its own, for its own peak
    h, w = map(int, name.split("x"))
    out = Path(sys.argv[1]) / name
    out.mkdir()
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0, name
        continue
    work(h, w, out)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, flush=True)
    os._exit(0)
"""
BOUND = 800
"""MiB that predicting, labelling and scoring 12 megapixels may take beyond 0.5: network, maps and
weights of PAR at 1 megapixel instead of 0.5, and a few bytes for each of the 12 million pixels.
Maps of 20 classes at 12 megapixels alone would take 915."""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux only")
def test_memory_of_12_megapixels(tmp_path):
    sizes = ["612x816", "3000x4000", "1x20000"]
    command = [sys.executable, "-c", MEASURE, str(tmp_path), *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    peaks = [int(line) for line in done.stdout.splitlines()]
    small, large, strip = peaks
    assert large - small < BOUND
    assert strip - small < BOUND
