"""Bounds of lists and real pixels, as all methods read them from a batch."""

import torch

from wsss_lab.methods.common.batches import real_boxes, tag_bound, valid_pixels

TAGS = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0]])
IMAGES = torch.zeros(2, 3, 4, 6)


def test_a_known_bound_is_taken():
    assert tag_bound({"images": IMAGES, "tags": TAGS, "max_tags": 3}) == 3


def test_tags_are_counted_on_a_cpu_only():
    assert tag_bound({"images": IMAGES, "tags": TAGS}) is None  # `present_classes` counts them
    assert tag_bound({"images": IMAGES, "tags": TAGS.to("meta")}) == 4  # meta holds no numbers


def test_real_pixels():
    plain = {"images": IMAGES, "tags": TAGS}
    assert real_boxes(plain).tolist() == [[0, 4, 0, 6]] * 2
    assert valid_pixels(plain).all()
    assert valid_pixels(plain).shape == (2, 4, 6)
    boxed = plain | {"boxes": torch.tensor([[1, 4, 0, 6], [0, 4, 2, 5]], dtype=torch.int32)}
    assert real_boxes(boxed).dtype == torch.int64
    found = valid_pixels(boxed)
    assert found.sum((1, 2)).tolist() == [18, 12]
    assert not found[0, 0].any()
    assert not found[1, :, :2].any()
    assert not found[1, :, 5:].any()
    assert valid_pixels(boxed | {"valid": ~found}).equal(~found)
