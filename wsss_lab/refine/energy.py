"""Dense CRF energy as a loss (Tang et al., ECCV 2018), gated by confidence (RRM, AAAI 2020).

Neighbouring pixels of similar colour should get similar classes, above all where the network is
unsure or has no label:

    E = -(1/b) sum_{n,k,i} S_nki g_ni (K_n S_nk)_i,        S = P * roi,
    g = max(roi - max_k P_k, 0),  but 1 where the label is 255,

with K the bilateral Gaussian kernel over (x, y, r, g, b), at half resolution. The loss is 1e-7 E:
a sum over pixels, so it grows with the crop, and at most 0.

TSCD and CoSA take this term from AFA, ASDT from RRM. It is the same term; the papers differ in its
inputs:

======  =========================  ============================  ===============================
        image                      region of interest            label
======  =========================  ============================  ===============================
TSCD    de-normalised crop, float  box of real pixels            refined CAM label
CoSA    strong view (solarised     box of real pixels            teacher's CAM label (CPL)
        and posterised), float
ASDT    `uint8` crop               0/1 map, 0 in crop padding    teacher A's reliable pixels
======  =========================  ============================  ===============================

Facts about the released codes, kept here:

* The gradient is written by hand: dE/dP = -(2/b) roi g (K S), with g held constant. It is not the
  derivative of E: that has K(g S) in place of one of the two g (K S), and a term through g.
  `gradient="true"` gives the derivative.
* K is the permutohedral lattice, not normalised: about 0.5 (TSCD, CoSA) to 0.6 (ASDT) of the exact
  sum, so weights tuned with it need that factor with any other filter.
* The gate is 1 where the label is 255, also outside the region of interest (S is 0 there).

Different here: the filter stays on the device of the tensors; the originals copy images and
probabilities to the CPU and back in every step.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from wsss_lab import IGNORE
from wsss_lab.ranges import Factor, Positive, Range, Settings
from wsss_lab.refine.features import Images, bilateral_features
from wsss_lab.refine.inputs import check_images, check_match, check_probs
from wsss_lab.refine.lattice import Lattice

Gradient = Literal["released", "true"]


def confidence_gate(
    probs: Float[Tensor, "b k1 h w"],
    roi: Float[Tensor, "b h w"],
    labels: Integer[Tensor, "b h w"],
) -> Float[Tensor, "b h w"]:
    """Return each pixel's weight: 1 minus its confidence, 1 where it has no label."""
    unsure = (roi - probs.amax(1)).clamp(min=0)
    return torch.where(labels == IGNORE, torch.ones_like(unsure), unsure)


def bilateral_energy(
    probs: Float[Tensor, "b k1 h w"],
    images: Images,
    roi: Float[Tensor, "b h w"],
    labels: Integer[Tensor, "b h w"],
    *,
    sigma_xy: float,
    sigma_rgb: float,
    gradient: Gradient = "released",
) -> Float[Tensor, ""]:
    """Compute E at the resolution of its inputs, without weight.

    Args:
        probs: softmax output, in [0, 1].
        images: RGB in 0..255.
        roi: 1 where pixels are real, else 0.
        labels: only the pixels with 255 matter.
        sigma_xy: px at this resolution.
        sigma_rgb: on the 0..255 scale.
        gradient: "released", as in all released codes, or "true".

    Raises:
        ValueError: sizes or devices that do not fit, NaN (CPU only).
    """
    for name, maps in (("images", images), ("roi", roi), ("labels", labels)):
        check_match(probs, maps, ("probs", name))
    with torch.autocast(probs.device.type, enabled=False):
        dtype = torch.float64 if probs.dtype == torch.float64 else torch.float32
        probs, roi = probs.to(dtype), roi.to(dtype)
        lattice = Lattice(bilateral_features(images.to(dtype), sigma_xy, sigma_rgb))
        if gradient == "released":
            gate = confidence_gate(probs.detach(), roi, labels)
            return _ReleasedEnergy.apply(probs, lattice, gate, roi)
        gate = confidence_gate(probs, roi, labels)
        segments = probs * roi[:, None]
        return -(segments * gate[:, None] * lattice.filter(segments)).sum() / len(probs)


class _ReleasedEnergy(torch.autograd.Function):
    """E with the hand-written gradient of the released codes; filters once, in the forward."""

    @staticmethod
    def forward(ctx: Any, probs: Tensor, lattice: Lattice, gate: Tensor, roi: Tensor) -> Tensor:
        segments = probs * roi[:, None]
        slope = lattice.filter(segments).mul_(gate[:, None])
        value = -torch.dot(segments.flatten(), slope.flatten()) / len(probs)
        ctx.save_for_backward(slope.mul_(roi[:, None]))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return slope * (grad * (-2 / len(slope))), None, None, None


@dataclass(frozen=True)
class DenseEnergyLoss(Settings):
    """Loss `weight * E` on a reduced image; the same in TSCD, CoSA and ASDT.

    Attributes:
        weight: 1e-7. TSCD multiplies the result by 0.01 more, ASDT by 0.5 per head.
        sigma_rgb: on the 0..255 scale.
        sigma_xy: px at full resolution; scaled like the image.
        scale: 0.5: half resolution.
        gradient: "released": the hand-written one; "true": the derivative of the value.
        old_resize: sampling of sizes that `scale` does not divide. True: with the ratio of the two
            sizes, as PyTorch before 1.6 did (ASDT was written for 0.4.1); False: with `scale`.
    """

    weight: Factor = 1e-7
    sigma_rgb: Positive = 15
    sigma_xy: Positive = 100
    scale: Annotated[float, Range("(0, 1]")] = 0.5
    gradient: Gradient = "released"
    old_resize: bool = False

    def __call__(
        self,
        probs: Float[Tensor, "b k1 h w"],
        images: Images,
        valid: Bool[Tensor, "b h w"],
        labels: Integer[Tensor, "b h w"],
    ) -> Float[Tensor, ""]:
        """Return the loss, at most 0; float32 (float64 for float64 `probs`).

        Args:
            probs: softmax of logits brought to the size of the images.
            images: RGB in 0..255, `uint8` or float; not normalised.
            valid: True at real pixels, False in padding (`wsss_lab.cam.box_to_valid`).
            labels: 0..k, 255 where there is no label.

        Raises:
            ValueError: shapes, types or devices that do not fit; on the CPU also values that do
                not: logits, NaN, normalised images. Elsewhere values are not checked, and only the
                lattice waits for the device, once, for its size.
        """
        _check_energy(probs, images, valid, labels)
        with torch.autocast(probs.device.type, enabled=False):
            if probs.dtype != torch.float64:
                probs = probs.float()
            small = self._resize(probs, "bilinear")
            picture = self._resize(images.float(), "nearest")
            roi = self._resize(valid[:, None].float(), "nearest")[:, 0]
            marks = self._resize(labels[:, None].float(), "nearest")[:, 0].long()
            energy = bilateral_energy(
                small,
                picture,
                roi,
                marks,
                sigma_xy=self.sigma_xy * self.scale,
                sigma_rgb=self.sigma_rgb,
                gradient=self.gradient,
            )
        return self.weight * energy

    def _resize(self, maps: Tensor, mode: str) -> Tensor:
        if self.scale == 1:
            return maps
        align = False if mode == "bilinear" else None
        return F.interpolate(
            maps,
            scale_factor=self.scale,
            mode=mode,
            align_corners=align,
            recompute_scale_factor=self.old_resize,
        )


def _check_energy(probs: Tensor, images: Tensor, valid: Tensor, labels: Tensor) -> None:
    check_probs(probs)
    check_images(images)
    check_match(probs, images, ("probs", "images"))
    for name, maps in (("valid", valid), ("labels", labels)):
        if maps.ndim != 3:
            raise ValueError(
                f"{name}: expected (batch, height, width), got {tuple(maps.shape)}; drop or add "
                "an axis"
            )
        check_match(probs, maps, ("probs", name))
    if valid.dtype != torch.bool:
        raise ValueError(
            f"valid: expected bool, True at real pixels, got {valid.dtype}; boxes become a mask "
            "with wsss_lab.cam.box_to_valid"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels: expected integers, got {labels.dtype}; convert with .long()")
