"""Sanity rows: what they predict, and what they score."""

import pytest
import torch

from wsss_lab.metrics import ConfusionMatrix, all_background, mean_iou, random_cam, tag_oracle

TAGS = torch.tensor([[0, 1, 0, 1, 1], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]).float()


def test_all_background_scores_the_background_share_over_the_classes():
    truth = torch.zeros(2, 10, 10, dtype=torch.int64)
    truth[:, :2] = 1
    truth[:, 2:4] = 2
    counts = ConfusionMatrix(3).update(all_background(2, (10, 10)), truth).compute()
    assert float(mean_iou(counts)[1]) == pytest.approx(0.6 / 3)


def test_random_cam_is_a_normalised_map_of_the_tagged_classes():
    cam = random_cam(TAGS, (4, 4), (32, 40), generator=torch.Generator().manual_seed(3))
    again = random_cam(TAGS, (4, 4), (32, 40), generator=torch.Generator().manual_seed(3))
    assert torch.equal(cam, again)
    torch.testing.assert_close(cam.amax((2, 3)), TAGS)
    assert cam.min() >= 0
    assert (cam[:, :, :, 1:] - cam[:, :, :, :-1]).abs().max() < 0.2  # as smooth as a 4x4 grid


@pytest.mark.parametrize("area", [0.0, 0.25, 0.5, 1.0])
def test_tag_oracle_fills_a_centred_box_with_strips(area):
    h, w = 60, 80
    label = tag_oracle(TAGS, (h, w), area=area)
    assert (label[2] == 0).all()
    share = (label[0] > 0).float().mean()
    assert float(share) == pytest.approx(area, abs=0.03)
    assert torch.equal(label, label.flip(1))
    assert torch.equal(label[1], label[1].flip(1))
    if area == 0:
        return
    middle = label[0, h // 2]
    order = middle[middle > 0].unique_consecutive()
    assert order.tolist() == [2, 4, 5]
    counts = [int((middle == c).sum()) for c in (2, 4, 5)]
    assert max(counts) - min(counts) <= 1
    assert set(label[1].unique().tolist()) <= {0, 1}


def test_tag_oracle_of_everything_labels_every_pixel():
    assert (tag_oracle(torch.ones(1, 20), (30, 60), area=1.0) > 0).all()


def test_bad_area():
    with pytest.raises(ValueError, match="area"):
        tag_oracle(TAGS, (4, 4), area=1.5)
