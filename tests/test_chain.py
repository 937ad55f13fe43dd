"""The whole chain on files: data set -> backbone -> CAM -> label -> mIoU.

On a toy export that the test writes, and on real photos in VOC layout where `--photos` names them.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wsss_lab.cam import FUSIONS, cam_to_label, multi_scale_cam
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.toy import write_voc
from wsss_lab.evaluate.evaluate import evaluate as score_method
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.predict import toy_classifier
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.metrics import ConfusionMatrix, Protocol, Report
from wsss_lab.models.backbones import build_backbone


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_voc(folder, split="val", count=20, size=96)
    return ImageTagDataset.voc(folder, "val", masks=True)


@pytest.fixture
def photos(request):
    """Real photos in VOC layout, at most 30 of them."""
    folder = Path(request.config.getoption("--photos") or "no folder given")
    if not (folder / "JPEGImages").is_dir():
        pytest.skip("no folder of real photos: --photos DIR or WSSS_LAB_PHOTOS")
    split = sorted((folder / "ImageSets" / "Segmentation").glob("*.txt"))[0].stem
    return ImageTagDataset.voc(folder, split, masks=True, tags="masks")


def truth_cam(mask, classes):
    """Maps that know the answer: 1 on every pixel of the class."""
    return F.one_hot(mask.masked_fill(mask == 255, 0), classes + 1)[..., 1:].permute(2, 0, 1)[None]


def evaluate(dataset, cams, stride=1):
    """Report of labels made from class maps, with the true tags."""
    classes = len(dataset.classes)
    confusion = ConfusionMatrix(classes + 1)
    for index in range(min(30, len(dataset))):
        sample = dataset[index]
        mask = sample["mask"]
        cam = cams(sample).float()
        if stride > 1:
            cam = F.interpolate(cam, [s // stride for s in mask.shape], mode="area")
            cam = F.interpolate(cam, mask.shape, mode="bilinear", align_corners=False)
        label = cam_to_label(cam, sample["tags"][None], 0.5)
        assert label.shape == (1, *mask.shape)
        confusion.update(label[0], mask)
    protocol = Protocol(split="val", images=len(dataset), tags_at_test=True)
    return Report.from_confusion(confusion.compute(), protocol)


def test_truth_maps_are_near_perfect_on_the_toy_export(toy_folder):
    classes = len(toy_folder.classes)
    assert evaluate(toy_folder, lambda s: truth_cam(s["mask"], classes)).miou > 0.999
    # the price of a stride-8 grid at 96 px, paid before any network is involved
    assert 0.5 < evaluate(toy_folder, lambda s: truth_cam(s["mask"], classes), 8).miou < 0.95


def network_cams(classifier):
    """Maps of a network, with the scales and the flip of the released codes."""

    @torch.no_grad()
    def cams(sample):
        image = sample["image"][None].float() / 255
        return multi_scale_cam(classifier.raw_cam, image, FUSIONS["tscd"])

    return cams


def random_classifier(dataset):
    torch.manual_seed(0)
    return TagClassifier(build_backbone("toy_cnn"), len(dataset.classes)).eval()


def test_trained_classifier_beats_random_weights_on_the_toy_export(toy_folder):
    random = evaluate(toy_folder, network_cams(random_classifier(toy_folder))).miou
    trained = evaluate(toy_folder, network_cams(toy_classifier())).miou
    assert trained > random + 0.1


def test_evaluate_agrees_with_the_chain_by_hand(toy_folder):
    """The same maps, scored by the engine with the true tags at a fixed threshold."""
    method = toy_classifier()
    by_hand = evaluate(toy_folder, network_cams(method))
    found = score_method(
        method,
        toy_folder,
        MultiScale(cam=FUSIONS["tscd"], cam_norm="tscd"),
        num_classes=len(toy_folder.classes) + 1,
        cam_threshold=0.5,
        tags_at_test=True,
    )
    assert found.reports["cam+true tags"].miou == pytest.approx(by_hand.miou, abs=2e-3)
    assert found.reports["cam"].miou < by_hand.miou  # without being told, it errs in naming too


def test_truth_maps_are_near_perfect_on_photos(photos):
    classes = len(photos.classes)
    assert evaluate(photos, lambda s: truth_cam(s["mask"], classes)).miou > 0.999
    assert evaluate(photos, lambda s: truth_cam(s["mask"], classes), 16).miou > 0.8


def test_the_chain_runs_on_photos(photos):
    report = evaluate(photos, network_cams(random_classifier(photos)))
    assert 0 < report.miou < 0.6  # random weights: mechanics only
    assert "images" in report.table()
