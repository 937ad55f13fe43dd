"""Objects that are predicted in images without any."""

import torch

from wsss_lab.evaluate.scores import Scores, shows_nothing, summarise
from wsss_lab.metrics import Protocol

TRUTH = torch.zeros(3, 2, 4, dtype=torch.int64)
TRUTH[0, 0] = 1
TRUTH[1, 0, 0] = 255
PRED = torch.zeros_like(TRUTH)
PRED[0] = 1  # in an image that shows class 1: no false alarm of this kind
PRED[1, 0, :3] = 1  # one of them on a void pixel


def test_void_pixels_are_no_class():
    assert shows_nothing(TRUTH).tolist() == [False, True, True]


def test_shares_of_images_and_pixels_whatever_the_batches():
    whole = Scores(2, [])
    whole.add_labels("seg", PRED, TRUTH)
    whole.add_alarms("seg", PRED, TRUTH)
    parts = Scores(2, [])
    for i in range(3):
        part = Scores(2, [])
        part.add_labels("seg", PRED[i : i + 1], TRUTH[i : i + 1])
        part.add_alarms("seg", PRED[i : i + 1], TRUTH[i : i + 1])
        parts.merge(part)
    for scores in (whole, parts):
        found = summarise(scores, Protocol(), None, None)
        alarms = found.as_dict()["seg"]["false_alarms"]
        assert alarms == {"images": 2, "share": 1 / 2, "pixel_share": 2 / 15}
        assert "in 50.00 % of 2 images without any class, on 13.33 % of" in found.table()


def test_nothing_is_reported_where_every_image_shows_a_class():
    scores = Scores(2, [])
    scores.add_labels("seg", PRED[:1], TRUTH[:1])
    scores.add_alarms("seg", PRED[:1], TRUTH[:1])
    assert "false_alarms" not in summarise(scores, Protocol(), None, None).as_dict()["seg"]
