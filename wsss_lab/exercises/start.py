"""Exercises of the chapter *Start here*."""

from itertools import product
from math import comb
from typing import Any

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


register(
    "start-1",
    accepts=lambda answer: (int(answer[0]), int(answer[1])) == (_budget(20), _budget(239.7)),
    hint="One hundred hours are 360 000 seconds; an image that is half finished does not count.",
    right=lambda: (18_000, 1_501),
    wrong=lambda: (300, 25),
)
register(
    "start-2",
    accepts=lambda answer: abs(float(answer) - 1) < 0.02,
    hint="The ends of the hull score the weight itself. What does the sea score at its brightest?",
    right=lambda: 1.0,
    wrong=lambda: 0.5,  # enough for the middle of the hull alone
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
register(
    "start-7",
    accepts=lambda answer: abs(float(answer) - 3) < 0.02,
    hint="How many values may the new pixel take, if the tags are there already?",
    right=lambda: 3,
    wrong=lambda: 2,  # only the classes, without background
)
