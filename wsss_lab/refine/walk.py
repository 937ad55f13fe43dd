"""One step of a random walk of class maps along a learned affinity.

An affinity matrix holds for two cells of the token grid how surely they belong to one class; only
near pairs count (`radius_mask`). A step along it carries class maps to places they missed
(`random_walk`). AFA and TSCD learn such an affinity from their own pseudo-labels.

Sources: AFA, Ru et al., CVPR 2022; TSCD, AAAI 2023; both as released.
"""

from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor


def grid_label(
    label: Integer[Tensor, "b h w"], size: tuple[int, int]
) -> Integer[Tensor, "b gh gw"]:
    """Reduce a label map to the token grid; cell (y, x) reads pixel (y h // gh, x w // gw).

    Raises:
        ValueError: if `label` is not (b, h, w) or the grid is empty.
    """
    if label.ndim != 3 or min(size) < 1:
        raise ValueError(
            f"label must be (b, h, w) and size at least 1 x 1, got {tuple(label.shape)} and {size}"
        )
    rows, columns = (
        torch.arange(n, device=label.device) * side // n
        for n, side in zip(size, label.shape[1:], strict=True)
    )
    return label[:, rows[:, None], columns]


def radius_mask(
    gh: int, gw: int, radius: int, device: torch.device | str = "cpu"
) -> Bool[Tensor, "n n"]:
    """Mark pairs of cells at most `radius` cells apart in rows and in columns (a square).

    The released code fills it in four nested loops; here it is one comparison, and cached. Do not
    write into it.

    Raises:
        ValueError: if the grid is empty or the radius negative.
    """
    if min(gh, gw) < 1 or radius < 0:
        raise ValueError(
            f"gh and gw must be 1 or more and radius 0 or more, got {gh}, {gw} and {radius}"
        )
    return _radius_mask(gh, gw, radius, str(torch.device(device)))


@lru_cache(maxsize=16)
def _radius_mask(gh: int, gw: int, radius: int, device: str) -> Tensor:
    y, x = (torch.arange(n, device=device) for n in (gh, gw))
    near_y, near_x = ((a[:, None] - a).abs() <= radius for a in (y, x))
    return (near_y[:, None, :, None] & near_x[None, :, None, :]).reshape(gh * gw, gh * gw)


def random_walk(
    cam: Float[Tensor, "b k gh gw"],
    affinity: Float[Tensor, "b n n"],
    tags: Float[Tensor, "b k"] | None = None,
    *,
    mask: Bool[Tensor, "n n"] | None = None,
    background: float | None = None,
    power: float = 2.0,
) -> Float[Tensor, "b c gh gw"]:
    """Propagate maps one step along the affinity.

    Cell j receives the sum over i of value(i) T(i, j). T is the affinity of near pairs to the
    `power`, every column divided by its sum plus a constant (0.1 with a background, 1e-4 without),
    so a column sums to less than one.

    Source: released code of AFA (training and validation) and TSCD (validation only). They
    overwrite the affinity with its masked copy; here it is left unchanged.

    Args:
        cam: maps on the token grid, 0..1.
        affinity: 0..1, after the sigmoid.
        tags: 0 or 1 (anything above 0 counts); other classes stay zero. None propagates all, as the
            released code without background does.
        mask: pairs with a transition, see `radius_mask`; None is all.
        background: constant score of a background channel, put first; then a softmax over
            background and tagged classes comes before the step (0.35 in the released code). None
            propagates the maps as they are.
        power: contrast of the affinity.

    Returns:
        Maps of `k` classes, or `k + 1` with `background`; zero for absent classes. float32 also
        under autocast (float64 for float64 maps).

    Raises:
        ValueError: if shapes disagree.
    """
    if cam.ndim != 4 or cam.numel() == 0:
        raise ValueError(f"cam must be (b, k, gh, gw), not empty, got {tuple(cam.shape)}")
    if tags is not None and tags.shape != cam.shape[:2]:
        raise ValueError(f"tags must be (b, k) = {tuple(cam.shape[:2])}, got {tuple(tags.shape)}")
    b, _, gh, gw = cam.shape
    if affinity.shape != (b, gh * gw, gh * gw):
        raise ValueError(
            f"affinity must be (b, n, n) = {(b, gh * gw, gh * gw)} for a {gh} x {gw} grid, got "
            f"{tuple(affinity.shape)}; resize the maps to the grid of the affinity"
        )
    _check_mask(mask, gh * gw)
    with torch.autocast(cam.device.type, enabled=False):
        kind = torch.float64 if cam.dtype == torch.float64 else torch.float32
        maps = cam.to(kind).flatten(2)
        present = torch.ones_like(maps[:, :, 0], dtype=torch.bool) if tags is None else tags > 0
        if background is not None:
            maps = torch.cat([torch.full_like(maps[:, :1], background), maps], dim=1)
            present = torch.cat([torch.ones_like(present[:, :1]), present], dim=1)
            maps = maps.masked_fill(~present[:, :, None], -torch.inf).softmax(dim=1)
        maps = maps.masked_fill(~present[:, :, None], 0)
        step = affinity.to(kind)
        if mask is not None:
            step = step.masked_fill(~mask.bool(), 0)
        step = step**power
        column = step.sum(dim=1, keepdim=True) + (1e-4 if background is None else 0.1)
        return (maps @ (step / column)).unflatten(2, (gh, gw))


def _check_mask(mask: Tensor | None, n: int) -> None:
    if mask is not None and mask.shape != (n, n):
        raise ValueError(
            f"mask must be (n, n) = {(n, n)}, got {tuple(mask.shape)}; see radius_mask"
        )
