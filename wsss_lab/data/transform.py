"""Training samples of an image: one crop and, optionally, the same crop in other colours.

Both share their geometry, so labels made on one fit the other. CoSA's released code makes the
second one with one of nine operations on a Pillow image (`strong_released`, which
`TrainingTransform` uses); `strong` is the same with torchvision v2 on bytes in a tensor, on any
device, equal to one grey level.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor

from wsss_lab.config import IMAGENET_MEAN
from wsss_lab.data.config import DataConfig
from wsss_lab.data.crops import (
    Window,
    draw_window,
    long_side_size,
    scaled_size,
    view,
    view_mask,
    view_plain,
    view_released,
)
from wsss_lab.data.loader import TrainingSample
from wsss_lab.data.sample import Sample

STRONG_OPS = (
    "identity",
    "autocontrast",
    "equalize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "posterize",
)
"""Operations of the strong version, one per image (CoSA, released code)."""
MAGNITUDES = range(1, 10)
"""Magnitudes of an operation; identity, autocontrast and equalize have none."""
BLUR_RADIUS = (0.1, 2.0)
"""Pillow's radius, px (CoSA, released code)."""


def draw_magnitude(legacy: np.random.RandomState) -> int:
    """Draw a magnitude as CoSA's released code does."""
    return int(legacy.randint(MAGNITUDES.start, MAGNITUDES.stop))


def _amounts(name: str, magnitude: int) -> tuple[float, int, int]:
    """Return the factor of an enhancement, threshold of solarize and bits of posterize."""
    if name not in STRONG_OPS:
        raise ValueError(f"name: expected one of {', '.join(STRONG_OPS)}, got {name!r}")
    if magnitude not in MAGNITUDES:
        raise ValueError(f"magnitude: expected 1..9, got {magnitude}")
    return 0.18 * magnitude + 0.1, min(int(25.6 * magnitude), 255), 4 - int(0.4 * magnitude)


def strong(
    image: UInt8[Tensor, "*b 3 h w"], name: str, magnitude: int
) -> UInt8[Tensor, "*b 3 h w"]:
    """Apply one operation of `STRONG_OPS` to a uint8 tensor, on the tensor's device.

    Args:
        image: RGB, one image or many that get the same operation.
        name: the operation.
        magnitude: 1..9. Colour, contrast, brightness and sharpness change by the factor
            0.18 m + 0.1; solarize inverts values from int(25.6 m) on; posterize keeps
            4 - int(0.4 m) bits.

    Returns:
        Image of `strong_released`, up to one grey level.

    Raises:
        ValueError: unknown operation or magnitude.
    """
    from torchvision.transforms.v2 import functional as v2  # costs a second, so not at import

    factor, threshold, bits = _amounts(name, magnitude)
    operations: dict[str, Callable[[Tensor], Tensor]] = {
        "identity": lambda x: x,
        "autocontrast": v2.autocontrast,
        "equalize": v2.equalize,
        "solarize": lambda x: v2.solarize(x, threshold),
        "color": lambda x: v2.adjust_saturation(x, factor),
        "contrast": lambda x: v2.adjust_contrast(x, factor),
        "brightness": lambda x: v2.adjust_brightness(x, factor),
        "sharpness": lambda x: v2.adjust_sharpness(x, factor),
        "posterize": lambda x: v2.posterize(x, bits),
    }
    return operations[name](image)


def strong_released(
    image: UInt8[Tensor, "3 h w"], name: str, magnitude: int
) -> UInt8[Tensor, "3 h w"]:
    """Apply one operation of `STRONG_OPS` with Pillow as CoSA's released code does, bit for bit.

    Raises:
        ValueError: unknown operation or magnitude.
    """
    factor, threshold, bits = _amounts(name, magnitude)
    operations: dict[str, Callable[[Image.Image], Image.Image]] = {
        "identity": lambda x: x,
        "autocontrast": ImageOps.autocontrast,
        "equalize": ImageOps.equalize,
        "solarize": lambda x: ImageOps.solarize(x, threshold),
        "color": lambda x: ImageEnhance.Color(x).enhance(factor),
        "contrast": lambda x: ImageEnhance.Contrast(x).enhance(factor),
        "brightness": lambda x: ImageEnhance.Brightness(x).enhance(factor),
        "sharpness": lambda x: ImageEnhance.Sharpness(x).enhance(factor),
        "posterize": lambda x: ImageOps.posterize(x, bits),
    }
    return _through_pillow(image, operations[name])


def blur(image: UInt8[Tensor, "3 h w"], radius: int | float) -> UInt8[Tensor, "3 h w"]:
    """Apply Pillow's Gaussian blur (three box filters), as CoSA's released code does.

    Args:
        image: RGB.
        radius: standard deviation, px.
    """
    return _through_pillow(image, lambda photo: photo.filter(ImageFilter.GaussianBlur(radius)))


def _through_pillow(image: Tensor, operation: Callable[[Image.Image], Image.Image]) -> Tensor:
    photo = operation(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)


def squash(image: UInt8[Tensor, "3 h w"], side: int) -> UInt8[Tensor, "3 s s"]:
    """Resize the whole image to a square, without keeping its proportions.

    ASDT's released code passes this to the CRF of its second teacher, whose probabilities are those
    of a crop (a slip: the label is not used there). Bilinear between four pixels; how the released
    code resizes is not known to us.

    Args:
        image: RGB.
        side: px.
    """
    small = F.interpolate(image[None].float(), (side, side), mode="bilinear", align_corners=False)
    return small[0].add_(0.5).to(torch.uint8)


def jitter(
    image: UInt8[Tensor, "3 h w"], factors: Float[np.ndarray, "3"]
) -> UInt8[Tensor, "3 h w"]:
    """Change brightness, contrast (around the mean grey) and saturation in one pass.

    Equals the three operations of torchvision in sequence, but rounded and clipped only once.

    Args:
        image: RGB.
        factors: factors of brightness, contrast and saturation; 1 changes nothing.
    """
    brightness, contrast, saturation = (float(f) for f in factors)
    pixels = image.permute(1, 2, 0).reshape(-1, 3).float()
    grey = pixels @ torch.tensor([0.299, 0.587, 0.114])
    own = brightness * contrast * saturation
    shared = brightness * contrast * (1 - saturation) * grey
    offset = brightness * (1 - contrast) * grey.mean() + 0.5  # 0.5: rounds
    mixed = pixels.mul_(own).add_((shared + offset)[:, None]).clamp_(0, 255).to(torch.uint8)
    height, width = image.shape[-2:]
    return mixed.view(height, width, 3).permute(2, 0, 1)


def squashes(data: DataConfig) -> bool:
    """Return whether training samples have `squashed`, for one released code (ASDT)."""
    return data.form == "released" and data.scale_per == "batch"


class TrainingTransform:
    """Transform for `StepLoader`: scale, crop, mirror and colours.

    The same amount of random numbers is drawn whatever is switched on, so one setting never changes
    the draws of another.

    Args:
        data: crop, scale, mirror, padding, colours.
        mean: the network's mean colour, RGB in [0, 1], which `pad="mean"` fills in.
    """

    def __init__(self, data: DataConfig, mean: Sequence[float] = IMAGENET_MEAN):
        self.data = data
        self.fill = tuple(mean) if data.pad == "mean" else None

    def __call__(
        self, sample: Sample, rng: np.random.Generator, step_rng: np.random.Generator
    ) -> TrainingSample:
        """Return one training sample; see `wsss_lab.data.loader.Transform`."""
        data, image = self.data, sample["image"]
        place, colours = rng.random(4), rng.random(8)
        number = float(step_rng.random() if data.scale_per == "batch" else place[0])
        size = self._size(image.shape[-2], image.shape[-1], number)
        window = draw_window(size, data.crop, place[1:], data.flip)
        weak = self._weak(self._cut(image, window), colours)
        made: TrainingSample = {
            "image": weak,
            "tags": sample["tags"],
            "name": sample["name"],
            "box": window.box,
        }
        if "mask" in sample:
            made["mask"] = view_mask(sample["mask"], window, whole=data.form == "released")
        if squashes(data):
            made["squashed"] = squash(image, data.crop)
        if data.strong:
            name = STRONG_OPS[int(colours[5] * len(STRONG_OPS))]
            # Pillow also where form is "ours": on a CPU it is twice as fast as bytes in tensors
            made["strong"] = strong_released(
                weak, name, MAGNITUDES[int(colours[6] * len(MAGNITUDES))]
            )
        return made

    def _size(self, height: int, width: int, number: float) -> tuple[int, int]:
        """Return the size of the scaled image."""
        data = self.data
        low, high = data.scale
        if data.resize == "scale":
            return scaled_size(height, width, low + (high - low) * number)
        first, last = int(low * data.crop), int(high * data.crop + 1e-6)  # 448 / 0.875 is 512
        side = first + min(int(number * (last - first + 1)), last - first)
        return long_side_size(height, width, max(1, side))

    def _cut(self, image: Tensor, window: Window) -> Tensor:
        if self.data.form == "ours":
            return view(image, window)
        if self.data.resize == "scale":
            return view_released(image, window)
        return view_plain(image, window).add_(0.5).to(torch.uint8)

    def _weak(self, image: Tensor, colours: np.ndarray) -> Tensor:
        """Apply jitter and blur to the crop."""
        data = self.data
        if data.jitter:
            image = jitter(image, 1 + data.jitter * (2 * colours[:3] - 1))
        if colours[3] < data.blur:
            low, high = BLUR_RADIUS
            image = blur(image, low + (high - low) * float(colours[4]))
        return image
