"""Exercises of the chapter *Start here*."""

from collections.abc import Callable
from itertools import product
from math import comb
from typing import Any

import torch
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.exercises import register


def _near(answer: Any, *wanted: float) -> bool:
    return len(answer) == len(wanted) and all(
        abs(float(a) - b) < 0.005 for a, b in zip(answer, wanted, strict=True)
    )


def _budget(seconds_per_image: float, hours: float = 100) -> int:
    return int(hours * 3600 // seconds_per_image)


def _maps_with_all_tags(pixels: int, tagged: int) -> int:
    maps = product(range(tagged + 1), repeat=pixels)
    return sum(set(range(1, tagged + 1)) <= set(one) for one in maps)


def _maps_at_least(iou: float, truth: int = 6, pixels: int = 16) -> int:
    """Make label maps of one class by hits in the truth and false pixels outside it."""
    return sum(
        comb(truth, hits) * comb(pixels - truth, false)
        for hits in range(truth + 1)
        for false in range(pixels - truth + 1)
        if hits + false > 0 and hits >= iou * (truth + false)
    )


def _tags(mask: Tensor, k: int) -> Tensor:
    classes = torch.arange(1, k + 1)
    return (mask.flatten(1)[:, None] == classes[:, None]).any(2).float()


def _tags_by_length(mask: Tensor, k: int) -> Tensor:
    """Make the likeliest mistake: background counts as the first class."""
    return torch.stack([torch.bincount(m[m != IGNORE], minlength=k)[:k] > 0 for m in mask]).float()


def _reads_tags(function: Callable[[Tensor, int], Tensor]) -> bool:
    drawn = torch.Generator().manual_seed(0)
    for k, size in ((2, (1, 2, 3)), (5, (4, 3, 3)), (10, (3, 2, 2))):
        mask = torch.randint(0, k + 1, size, generator=drawn)
        mask[torch.rand(size, generator=drawn) < 0.3] = IGNORE
        answer = torch.as_tensor(function(mask, k))
        if answer.shape != (size[0], k) or not torch.equal(answer.float(), _tags(mask, k)):
            return False
    return True


register(
    "start-1",
    accepts=lambda answer: (int(answer[0]), int(answer[1])) == (_budget(20), _budget(239.7)),
    hint="One hundred hours are 360 000 seconds; an image that is half finished does not count.",
    right=lambda: (18_000, 1_501),
    wrong=lambda: (300, 25),
)
register(
    "start-2",
    accepts=_reads_tags,
    hint="Compare with the classes 1 to k; neither 0 nor 255 is a class, and a row is an image.",
    right=lambda: _tags,
    wrong=lambda: _tags_by_length,
)
register(
    "start-3",
    accepts=lambda answer: int(answer) == _maps_with_all_tags(5, 2),
    hint="Start from all maps over three values, take off those that lack one tag, and think about "
    "the map that lacks both.",
    right=lambda: 180,
    wrong=lambda: 3**5 - 2 * 2**5,
)
register(
    "start-4",
    accepts=lambda answer: int(answer) == _maps_at_least(0.75),
    hint="With i hits and f false pixels the score is i / (6 + f); count the ways to choose both.",
    right=lambda: 62,
    wrong=lambda: 56,
)
register(
    "start-5",
    accepts=lambda answer: _near(answer, 3 / 6, 6 / 11),
    hint="Hits over hits plus misses plus false pixels; sky is not claimed by either map.",
    right=lambda: (0.5, 6 / 11),
    wrong=lambda: (1.0, 6 / 11),
)
register(
    "start-6",
    accepts=lambda answer: {str(row).strip().upper() for row in answer} == {"A", "D"},
    hint="Backbone, pre-training, split, scales, CRF and tags at evaluation must all be the same.",
    right=lambda: {"A", "D"},
    wrong=lambda: {"A", "C"},
)
