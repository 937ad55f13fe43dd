"""TSCD's losses as pure functions: self correspondence distillation (SCD) and affinity.

SCD compares two views of an image at two sets of points. In the maps, point p of the first view and
point q of the second have some cosine; in the segmentation they have another. Where the cosine of
the maps is above its usual level, that of the segmentation is raised; where below, lowered.

Docstrings keep three sources apart: *In the paper* (what is known of its text), *In the released
code*, and *Here*.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from torch import Tensor


def correspondence(
    first: Float[Tensor, "b c p"], second: Float[Tensor, "b c q"]
) -> Float[Tensor, "b p q"]:
    """Compute the cosine of every value of one view and every value of the other, -1..1.

    Zero vectors have cosine 0. Of maps it is the feature (CAM) correspondence F, of segmentation
    logits the segmentation correspondence S. *In the released code* of raw logits, background
    included, without softmax.
    """
    unit = [F.normalize(x, dim=1, eps=1e-10) for x in (first, second)]
    return unit[0].transpose(1, 2) @ unit[1]


def recentre(
    target: Float[Tensor, "b p q"], level: bool = True, shift: float = 0.0
) -> Float[Tensor, "b p q"]:
    """Subtract from every row its mean over the second view, and add the mean of everything.

    A point that resembles all others carries no information: what counts is to resemble one point
    more than another. *In the released code* the mean of everything is over the batch, and added
    back; a second re-centring changes nothing and is left out here. STEGO, where this comes from,
    adds it back, too, and then subtracts a constant b; the released TSCD does not.

    Args:
        target: cosines of the maps.
        level: add the mean of everything; without it every row has mean 0.
        shift: STEGO's b, subtracted at the end.
    """
    centred = target - target.mean(dim=2, keepdim=True)
    return (centred + target.mean() if level else centred) - shift


def lobes(
    recentred: Float[Tensor, "b p q"],
) -> tuple[Float[Tensor, "b p q"], Float[Tensor, "b p q"]]:
    """Split a re-centred target into its positive (attracting) and negative (repelling) part.

    Both are 0 or more; `recentred` is the first minus the second. The negative lobe exists because
    of the re-centring alone: cosines of maps, which are not negative, have none.
    """
    return recentred.clamp(min=0), (-recentred).clamp(min=0)


def scd_loss(
    target: Float[Tensor, "b p q"],
    student: Float[Tensor, "b p q"],
    level: bool = True,
    shift: float = 0.0,
) -> Float[Tensor, ""]:
    """Self correspondence distillation: minus the mean of max(S, 0) times the re-centred F.

    The loss may be negative. *In the released code* a weight of 0.1 comes on top, and the target
    has no gradient.

    Args:
        target: F, the correspondence of the maps.
        student: S, that of the segmentation.
        level: see `recentre`.
        shift: see `recentre`.

    Raises:
        ValueError: if the shapes differ.
    """
    if target.shape != student.shape or target.ndim != 3:
        raise ValueError(
            "target and student must both be (b, p, q), got "
            f"{tuple(target.shape)} and {tuple(student.shape)}; sample both at the same points"
        )
    # clamp: values already on opposite sides are not pushed further apart.
    # detach: the maps are the teacher; with a gradient they could meet the segmentation half-way
    return -(student.clamp(min=0) * recentre(target.detach(), level, shift)).mean()


def affinity_loss(
    affinity: Float[Tensor, "b n n"], target: Integer[Tensor, "b n n"]
) -> Float[Tensor, ""]:
    """Compute the distance of the affinity from its label; both kinds of pairs weigh one half.

    Half the sum of 1 - a over same pairs, divided by their number in the batch plus one, and
    likewise of a over different pairs. Source: AFA and TSCD as released; L1 rather than
    cross-entropy.

    Args:
        affinity: 0..1, after the sigmoid.
        target: from `wsss_lab.methods.tscd.labels.affinity_label`.

    Raises:
        ValueError: if shapes disagree.
    """
    if affinity.shape != target.shape or affinity.ndim != 3:
        raise ValueError(
            "affinity and target must both be (b, n, n), got "
            f"{tuple(affinity.shape)} and {tuple(target.shape)}; make the target on the grid of "
            "the affinity"
        )
    # a million pairs at 512 px: half precision would round the later ones away
    affinity = affinity if affinity.dtype == torch.float64 else affinity.float()
    same, different = target == 1, target == 0
    # the added one makes a term 0 where its kind of pair is missing
    missing = (1 - affinity).masked_fill(~same, 0).sum() / (same.sum() + 1)
    wrong = affinity.masked_fill(~different, 0).sum() / (different.sum() + 1)
    return 0.5 * (missing + wrong)
