"""Predictions of ASDT and their counts, against loops and against the method itself."""

import dataclasses

import pytest
import torch

from wsss_lab import IGNORE
from wsss_lab.methods.asdt.config import PRESETS
from wsss_lab.methods.asdt.method import ASDT
from wsss_lab.methods.asdt.predictions import agreement, image_counts, predictions
from wsss_lab.models.backbones import build_backbone


def method(**changes):
    torch.manual_seed(0)
    config = dataclasses.replace(PRESETS["toy"], hidden=8, scales=(1.0,), **changes)
    return ASDT(build_backbone("toy_cnn"), 3, config).eval()


IMAGES = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(1))
TAGS = torch.tensor([[1.0, 0, 1], [0, 1, 0]])


def test_predictions_are_those_of_the_method():
    asdt = method()
    found = predictions(asdt, IMAGES, TAGS)
    assert set(found) == {"head1", "head2", "fused", "label_a", "label_b"}
    assert all(label.shape == (2, 32, 40) for label in found.values())
    assert torch.equal(found["fused"], asdt.predict(IMAGES).logits.argmax(1))
    assert set(found["label_b"][1].unique().tolist()) <= {0, 2}  # among the tags
    assert set(predictions(asdt, IMAGES)) == {"head1", "head2", "fused"}
    assert not any(label.requires_grad for label in found.values())


def test_without_student_and_without_background():
    assert "head2" not in predictions(method(selection="none"), IMAGES)
    found = predictions(method(background=False, things=2), IMAGES, TAGS)
    for label in found.values():
        assert set(label.unique().tolist()) <= {1, 2, 3, IGNORE}  # classes as masks have them


def test_predicting_changes_nothing():
    asdt = method()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in asdt.state_dict().items()}
    predictions(asdt, IMAGES, TAGS)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(v, state[k]) for k, v in asdt.state_dict().items())


def test_counts_by_loops():
    random = torch.Generator().manual_seed(2)
    pred, truth = torch.randint(0, 4, (2, 3, 5, 6), generator=random)
    pred[pred == 3], truth[truth == 3] = IGNORE, IGNORE
    found = image_counts(pred, truth, 3)
    wanted = torch.zeros(3, 3, 4, dtype=torch.int64)
    for b in range(3):
        for t, p in zip(truth[b].flatten().tolist(), pred[b].flatten().tolist(), strict=True):
            if t != IGNORE:
                wanted[b, t, 3 if p == IGNORE else p] += 1
    assert torch.equal(found, wanted)
    both = (pred != IGNORE) & (truth != IGNORE)
    same, labelled = agreement(pred, truth)
    assert (int(same), int(labelled)) == (int(((pred == truth) & both).sum()), int(both.sum()))
    with pytest.raises(ValueError, match=r"pred: expected 0\.\.2 or 255"):
        image_counts(pred.clamp(max=7), truth, 3)
