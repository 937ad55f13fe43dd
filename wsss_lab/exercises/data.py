"""Exercises of the chapter *Data and measurement*."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.data.catalog import COCO_IDS
from wsss_lab.exercises import register
from wsss_lab.metrics import ConfusionMatrix


def _close(answer: Any, wanted: tuple[float, ...]) -> bool:
    """Compare sequences: same length, and every number within 0.001."""
    return len(answer) == len(wanted) and all(
        abs(float(a) - b) < 1e-3 for a, b in zip(answer, wanted, strict=True)
    )


register(
    "data-1",
    accepts=lambda answer: int(answer) == 3**16 - 2 * 2**16 + 1,
    hint="Start from 3 choices for each of 16 pixels, take away the maps without a boat and those "
    "without a car, and add back what was taken away twice.",
    right=lambda: 42_915_650,
    wrong=lambda: 3**16,
)


def _masks_to_try(k: int) -> list[Tensor]:
    """Return small label maps with border pixels, empty classes and the last class alone."""
    generator = torch.Generator().manual_seed(3)
    masks = [torch.randint(0, k + 1, (5, 7), generator=generator) for _ in range(3)]
    masks += [torch.zeros(4, 4, dtype=torch.int64), torch.full((4, 4), IGNORE)]
    masks += [torch.tensor([[0, k], [IGNORE, IGNORE]]), torch.tensor([[1, IGNORE], [1, 0]])]
    masks[0][2] = IGNORE
    return masks


def _expected_tags(mask: Tensor, k: int) -> list[float]:
    return [float((mask == c + 1).any()) for c in range(k)]


def _makes_tags(answer: Callable[[Tensor, int], Tensor]) -> bool:
    """Check that a function (mask, k) -> tags agrees with the definition on every trial."""
    for k in (3, 10):
        for mask in _masks_to_try(k):
            tags = torch.as_tensor(answer(mask.clone(), k)).float()
            if tags.shape != (k,) or tags.tolist() != _expected_tags(mask, k):
                return False
    return True


def _tags_right(mask: Tensor, k: int) -> Tensor:
    return (torch.bincount(mask.flatten(), minlength=256)[1 : k + 1] > 0).float()


def _tags_shifted(mask: Tensor, k: int) -> Tensor:
    """Make the likely mistake: mask value 0 is not treated as background."""
    return (torch.bincount(mask.flatten(), minlength=256)[:k] > 0).float()


register(
    "data-2",
    accepts=_makes_tags,
    hint="Tag c belongs to mask value c + 1; neither 0 nor 255 gives a tag, and the answer has k "
    "entries also where the last classes are absent.",
    right=lambda: _tags_right,
    wrong=lambda: _tags_shifted,
)


def _maps_ids(answer: Callable[[int], int]) -> bool:
    """Check that a function from category id to mask value is right for all 80 ids."""
    return all(answer(number) == c + 1 for c, number in enumerate(COCO_IDS))


register(
    "data-3",
    accepts=_maps_ids,
    hint="The ids have gaps, the mask values have none: count how many ids up to this one exist.",
    right=lambda: lambda number: COCO_IDS.index(number) + 1,
    wrong=lambda: lambda number: number,
)

register(
    "data-4",
    accepts=lambda answer: _close(answer, (0.8, 0.5, 0.65)),
    hint="For each class: diagonal, divided by its row sum plus its column sum minus the diagonal. "
    "Column 255 belongs to the row sum here, because unlabelled pixels count as wrong.",
    right=lambda: (40 / 50, 10 / 20, 0.65),
    wrong=lambda: (40 / 46, 10 / 16, (40 / 46 + 10 / 16) / 2),
)


def _confusion_right(pred: Tensor, truth: Tensor, k1: int) -> Tensor:
    counted = truth != IGNORE
    pairs = truth[counted] * k1 + pred[counted]
    return torch.bincount(pairs, minlength=k1 * k1).view(k1, k1)


def _confusion_transposed(pred: Tensor, truth: Tensor, k1: int) -> Tensor:
    """Make the likely mistake: prediction in rows keeps IoU but swaps precision and recall."""
    return _confusion_right(pred, truth, k1).T


def _counts_pairs(answer: Callable[[Tensor, Tensor, int], Tensor]) -> bool:
    """Check that a function (pred, truth, k1) -> counts agrees with `ConfusionMatrix`."""
    generator = torch.Generator().manual_seed(5)
    for k1, shape in ((3, (4, 4)), (11, (2, 6, 5)), (2, (3, 3))):
        truth = torch.randint(0, k1, shape, generator=generator)
        pred = torch.randint(0, max(1, k1 - 1), shape, generator=generator)  # last never predicted
        truth.view(-1)[::4] = IGNORE
        wanted = ConfusionMatrix(k1).update(pred, truth).compute()[:, :k1]
        counts = torch.as_tensor(answer(pred.clone(), truth.clone(), k1))
        if counts.shape != wanted.shape or not torch.equal(counts.long(), wanted):
            return False
    return True


register(
    "data-5",
    accepts=_counts_pairs,
    hint="Rows are truth and columns prediction. Leave out truth of 255 before you count, and give "
    "bincount a minlength so that classes that never occur keep their place.",
    right=lambda: _confusion_right,
    wrong=lambda: _confusion_transposed,
)

register(
    "data-6",
    accepts=lambda answer: [int(n) for n in answer] == [3, 7],
    hint="Round 1449 up to a multiple of the number of processes.",
    right=lambda: (3, 7),
    wrong=lambda: (1, 1),
)
