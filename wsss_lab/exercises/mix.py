"""Exercises of the chapter on mixing techniques."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.exercises import register
from wsss_lab.losses import enlarge
from wsss_lab.methods.mix.technique import Technique

Effect = Callable[[Sequence[float], Sequence[float], Sequence[float], Sequence[float]], float]


def _near(answer: Any, expected: tuple[float, ...], within: float = 1e-3) -> bool:
    """Compare numbers, by default to three digits."""
    given = torch.as_tensor(answer, dtype=torch.float64).flatten()
    wanted = torch.tensor(expected, dtype=torch.float64)
    return given.shape == wanted.shape and bool(((given - wanted).abs() <= within).all())


register(
    "mix-1",
    accepts=lambda answer: _near(answer, (5 / 6, 1 / 60)),
    hint="The maps keep what the other teacher does not get; the weight acts on the other alone.",
    right=lambda: (5 / 6, 1 / 60),
    wrong=lambda: (0.9, 0.1),  # the weight taken for the share
)


def _interaction(
    base: Sequence[float], one: Sequence[float], other: Sequence[float], both: Sequence[float]
) -> float:
    seeds = zip(base, one, other, both, strict=True)
    return sum(d - b - c + a for a, b, c, d in seeds) / len(base)


def _is_interaction(function: Effect) -> bool:
    """Check a pair that only adds up, and one that does not, over several seeds."""
    base, one, other = [30.0, 32.0, 31.0], [33.0, 36.0, 34.0], [35.0, 35.0, 38.0]
    sums = [b + c - a for a, b, c in zip(base, one, other, strict=True)]
    less = [value - lost for value, lost in zip(sums, (1.0, 2.0, 6.0), strict=True)]
    added, lost = float(function(base, one, other, sums)), float(function(base, one, other, less))
    return abs(added) < 1e-4 and abs(lost + 3) < 1e-4


register(
    "mix-2",
    accepts=_is_interaction,
    hint="An effect is a difference to the base; take both effects away from that of the pair.",
    right=lambda: _interaction,
    wrong=lambda: lambda base, one, other, both: (sum(both) - sum(one) - sum(other)) / len(base),
)


class _Lopsided:
    """A network that makes labels and looks further to the right than to the left."""

    def segment(self, images: Tensor) -> Tensor:
        kernel = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])[None, None, None]
        scores = [
            F.conv2d(F.pad(one[:, None], (2, 2)), kernel)[:, :, ::2, ::2]
            for one in images.unbind(1)
        ]
        return torch.cat(scores, 1)


def _state() -> SimpleNamespace:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 16, 16, generator=g)
    labels = torch.randint(0, 3, (2, 16, 16), generator=g)
    labels[:, :2] = IGNORE
    return SimpleNamespace(images=images, labels=labels, size=(16, 16), maker=_Lopsided())


class _Mirror(Technique):
    def __init__(self, back: bool = True) -> None:
        super().__init__()
        self.back = back

    def labels(self, state: Any) -> Tensor:
        seen = []
        for images in (state.images, state.images.flip(-1)):
            seen.append(enlarge(state.maker.segment(images), state.size).max(dim=1).indices)
        other = seen[1].flip(-1) if self.back else seen[1]
        return state.labels.masked_fill(seen[0] != other, IGNORE)


def _is_mirror(kind: type[Technique]) -> bool:
    """Check the labels that are left, that all others are gone, and that the input stays."""
    state, before = _state(), _state().labels
    technique = kind()
    given = technique.labels(state)  # type: ignore[arg-type]
    expected = _Mirror().labels(_state())
    untouched = torch.equal(state.labels, before)
    return isinstance(technique, Technique) and untouched and torch.equal(given, expected)


register(
    "mix-3",
    accepts=_is_mirror,
    hint="Mirror the labels of the mirror image back before you compare, and change a copy.",
    right=lambda: _Mirror,
    wrong=lambda: lambda: _Mirror(back=False),
)

register(
    "mix-4",
    accepts=lambda answer: _near(answer, (111, 0.05 / 36), 5e-5),
    hint="Arms: none, one, two of eight. Holm asks the smallest p value to pass 0.05 over what?",
    right=lambda: (111, 0.05 / 36),
    wrong=lambda: (108, 0.05),  # the base forgotten, and no correction
)
