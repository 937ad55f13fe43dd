"""The one-pass sweep against one label map per threshold."""

import pytest
import torch

from wsss_lab.cam import cam_to_label
from wsss_lab.metrics import ConfusionMatrix, ThresholdSweep, mean_iou, threshold_sweep


def scene(b=3, k=4, h=15, w=17, quantised=False):
    cam = torch.rand(b, k, h, w)
    if quantised:  # many scores exactly on thresholds, many ties
        cam = (cam * 20).floor() / 20
    tags = (torch.rand(b, k) < 0.6).float()
    tags[0] = 0
    truth = torch.randint(0, k + 1, (b, h, w)).masked_fill(torch.rand(b, h, w) < 0.1, 255)
    return cam, tags, truth


def by_hand(cam, tags, truth, thresholds):
    k1 = cam.shape[1] + 1
    found = []
    for t in thresholds.tolist():
        label = cam_to_label(cam, tags, t)
        found.append(ConfusionMatrix(k1).update(label, truth).compute()[:, :k1])
    return torch.stack(found)


EVEN = torch.arange(100) / 100
UNEVEN = torch.tensor([0.0, 0.1, 0.15, 0.2, 0.5, 0.55, 0.9])


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize(
    "thresholds",
    [EVEN, UNEVEN, torch.linspace(0.2, 0.6, 9), torch.tensor([0.45]), torch.tensor([0.1, 0.3])],
    ids=["even", "uneven", "part", "one", "two"],
)
def test_every_confusion_matrix_is_exact(quantised, tagged, thresholds):
    cam, tags, truth = scene(quantised=quantised)
    tags = tags if tagged else None
    result = threshold_sweep(cam, tags, truth, thresholds)
    assert torch.equal(result.confusion, by_hand(cam, tags, truth, thresholds))


def test_scores_next_to_a_threshold_fall_on_the_right_side():
    """The value itself is background, the next larger float is not, on every grid."""
    for thresholds in (EVEN, torch.linspace(0.013, 0.97, 37), torch.arange(1000) / 1000):
        up = torch.nextafter(thresholds, torch.tensor(2.0))
        down = torch.nextafter(thresholds, torch.tensor(-1.0))
        scores = torch.cat([down, thresholds, up, torch.tensor([0.0, 1.0, 5.0, -3.0])])
        sweep = ThresholdSweep(2, thresholds)
        below = sweep._below(scores)
        assert torch.equal(below.long(), (thresholds[None] < scores[:, None]).sum(1))


def test_default_thresholds():
    assert torch.equal(ThresholdSweep(3).thresholds, EVEN)


def test_best_threshold_and_policy():
    cam, tags, truth = scene()
    sweep = ThresholdSweep(5).update(cam, tags, truth)
    result = sweep.compute("zero")
    iou, miou = mean_iou(by_hand(cam, tags, truth, EVEN), "zero")
    torch.testing.assert_close(result.iou, iou)
    torch.testing.assert_close(result.miou, miou)
    assert result.best_miou == float(miou.max())
    assert result.best_threshold == float(EVEN[int(miou.argmax())])


def test_streaming_merging_and_one_batch_agree():
    cam, tags, truth = scene(b=6)
    whole = ThresholdSweep(5).update(cam, tags, truth)
    first, second = ThresholdSweep(5), ThresholdSweep(5)
    for i in range(6):
        part = slice(i, i + 1)
        (first if i % 2 else second).update(cam[part], tags[part], truth[part])
    assert torch.equal(first.merge(second).histogram, whole.histogram)
    other = ThresholdSweep(5)
    other.load_state_dict(whole.state_dict())
    assert torch.equal(other.compute().confusion, whole.compute().confusion)
    assert int(whole.reset().histogram.sum()) == 0


def test_half_precision_maps_and_8_bit_truth():
    cam, tags, truth = scene()
    half = cam.bfloat16()
    result = threshold_sweep(half, tags, truth.to(torch.uint8))
    assert torch.equal(result.confusion, by_hand(half.float(), tags, truth, EVEN))


def test_foreground_shrinks_with_the_threshold():
    result = threshold_sweep(*scene())
    background = result.confusion[:, :, 0].sum(1)
    assert (background.diff() >= 0).all()
    assert (result.confusion.sum((1, 2)) == result.confusion[0].sum()).all()


def test_bad_input():
    cam, tags, truth = scene()
    sweep = ThresholdSweep(5)
    broken = cam.clone()
    broken[1, 2, 3, 4] = torch.nan
    for arguments, match in (
        ((broken, torch.ones_like(tags), truth), "NaN"),
        ((broken, None, truth), "NaN"),
        ((cam[:, :3], tags, truth), "cam must be"),
        ((cam, tags[:, :3], truth), "tags must be"),
        ((cam, tags, truth[:, 1:]), "resize the maps"),
        ((cam, tags, truth.float()), "integer labels"),
        ((cam, tags, torch.where(truth == 1, 9, truth)), r"got \[9\]"),
        ((cam, tags, torch.where(truth == 1, -1, truth)), r"got \[-1\]"),
    ):
        with pytest.raises(ValueError, match=match):
            sweep.update(*arguments)
    assert int(sweep.histogram.sum()) == 0
    for thresholds in ([], [0.2, 0.1], [0.1, 0.1]):
        with pytest.raises(ValueError, match="ascending"):
            ThresholdSweep(5, thresholds)
    with pytest.raises(ValueError, match="num_classes"):
        ThresholdSweep(1)
    with pytest.raises(ValueError, match="same classes"):
        sweep.merge(ThresholdSweep(5, [0.1, 0.2]))
