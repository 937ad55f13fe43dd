"""Draws by weight: rare classes come more often, and a step depends on seed and number only."""

import numpy as np
import pytest
import torch

from wsss_lab.data.loader import StepLoader
from wsss_lab.data.sampling import WeightedSampler, balance_weights, weights_of


def tags(frequent=90, rare=10):
    table = torch.zeros(frequent + rare, 2)
    table[:frequent, 0], table[frequent:, 1] = 1, 1
    return table


def test_weight_is_the_root_of_one_over_the_rarest_class():
    table = tags()
    table[0, 1] = 1  # a frequent class beside a rare one: the rare one counts
    weights = balance_weights(table)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(weights[-1])
    assert weights[-1] / weights[1] == pytest.approx((90 / 11) ** 0.5)


def test_an_image_without_tags_is_drawn_too():
    table = tags()
    table[5] = 0
    weights = balance_weights(table)
    assert 0 < weights[5] < weights[1]


def test_rare_classes_come_more_often_than_in_epochs():
    table = tags()
    sampler = WeightedSampler(balance_weights(table), 8, seed=1)
    drawn = torch.cat([sampler[step] for step in range(400)])
    share = table[drawn, 1].mean().item()
    assert 0.22 < share < 0.28  # 10 sqrt(1/10) of 10 sqrt(1/10) + 90 sqrt(1/90) is 1/4


def test_images_of_a_batch_differ_and_steps_repeat_exactly():
    weights = balance_weights(tags(12, 4))
    sampler = WeightedSampler(weights, 16, seed=3)
    assert sorted(sampler[7].tolist()) == list(range(16))
    again = WeightedSampler(weights, 16, seed=3)
    assert torch.equal(sampler[5], again[5])
    assert not torch.equal(sampler[5], sampler[6])
    assert not torch.equal(sampler[5], WeightedSampler(weights, 16, seed=4)[5])


def test_bad_weights_and_batches_are_refused():
    with pytest.raises(ValueError, match=r"batch: expected 1..3"):
        WeightedSampler(np.ones(3), 4)
    for value in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="weights: expected positive"):
            WeightedSampler(np.array([1.0, value]), 1)


def test_a_data_set_without_a_table_of_tags_is_refused():
    with pytest.raises(ValueError, match=r"data.balance.*leave balance off"):
        weights_of([{"image": 0}])


class Images:
    tags = tags(12, 4)

    def __len__(self):
        return 16

    def __getitem__(self, index):
        image = torch.full((3, 4, 4), index, dtype=torch.uint8)
        return {"image": image, "tags": self.tags[index], "name": str(index)}


def test_the_loader_takes_what_the_sampler_draws():
    weights = weights_of(Images())
    with StepLoader(Images(), 6, 2, weights=weights) as loader:
        for step in (0, 3, 1):
            expected = WeightedSampler(weights, 6, 2)[step].tolist()
            assert loader(step)["names"] == [str(i) for i in expected]
    halves = [StepLoader(Images(), 6, 2, weights=weights, rank=r, world=2)(3) for r in (0, 1)]
    joined = [name for pair in zip(*(h["names"] for h in halves), strict=True) for name in pair]
    assert joined == [str(i) for i in WeightedSampler(weights, 6, 2)[3].tolist()]
