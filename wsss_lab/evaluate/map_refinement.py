"""Class maps whose edges follow those of the image, before a threshold makes labels of them.

PAR (AFA, Ru et al., CVPR 2022) in the form in which its paper refines labels: a background of one
constant score beside the maps. PAR's weights sum to 1.01, so after n steps background and maps have
grown alike, by 1.01 to the power n. Divided by that, the background is the same constant as before;
so it is left out here, and the threshold keeps its meaning.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wsss_lab.ranges import Count, Settings
from wsss_lab.refine import PAR, refine_present
from wsss_lab.refine.local import PAR_KERNEL

FEW = 6
"""Classes up to which whole planes are faster than an index on a CPU; measured."""


@dataclass(frozen=True)
class MapRefinement(Settings):
    """Refine maps by PAR, in a number of steps; n steps and then m are n + m steps.

    Every map is refined on its own: the others, and which of them may win, do not change it.
    """

    steps: Count
    """Steps of PAR."""

    def __str__(self) -> str:
        """Return what reports call it."""
        return f"PAR, {self.steps} steps"

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "b 3 h w"],
        maps: Float[Tensor, "b k h w"],
        tags: Float[Tensor, "b k"] | None,
    ) -> Float[Tensor, "b k h w"]:
        """Return the refined maps.

        Args:
            images: RGB.
            maps: normalised maps, 0..1.
            tags: 0 or 1; maps of other classes become zero, which saves most of the work. None
                refines all.

        Returns:
            Maps in 0..1: every value is a mean of 48 neighbours per step.
        """
        if tags is None:
            tags = torch.ones(maps.shape[:2], device=maps.device)
        if not bool((tags > 0).any()):
            return torch.zeros_like(maps)
        growth = (1 + PAR_KERNEL.position) ** self.steps
        if not maps.is_cpu:
            refined = refine_present(PAR(iterations=self.steps), images.float() / 255, maps, tags)
            return refined.div_(growth).clamp_(0, 1)
        made = torch.zeros_like(maps, dtype=torch.float32)
        for image, own, on, target in zip(images, maps, tags > 0, made, strict=True):
            if count := int(on.sum()):  # one by one: weights of one image stay in the caches
                par = PAR(iterations=self.steps, by_plane=count <= FEW)
                refined = par(image[None].float() / 255, own[on][None])[0]
                target[on] = refined.div_(growth).clamp_(0, 1)
        return made


def map_refinement(steps: int) -> MapRefinement | None:
    """Return the refinement of so many steps; None for none.

    Raises:
        ValueError: fewer than none.
    """
    return MapRefinement(steps) if steps else None
