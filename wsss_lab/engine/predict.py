"""Masks for images nobody has tagged: the packaged toy classifier names, its CAM outlines."""

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from wsss_lab.cam import normalize_cam
from wsss_lab.config import git_revision, versions
from wsss_lab.data.catalog import TOY_CLASSES, voc_palette
from wsss_lab.data.masks import write_mask
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import BACKBONES, build_backbone

WEIGHTS = "toy_cnn_tags"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def toy_classifier() -> TagClassifier:
    """The packaged tag classifier of the toy world: `toy_cnn`, ten classes, in eval mode.

    Raises:
        FileNotFoundError: if this installation lacks the weights.
    """
    file = resources.files("wsss_lab") / "weights" / f"{WEIGHTS}.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{WEIGHTS}.safetensors is not in this installation; reinstall it")
    classifier = TagClassifier(build_backbone("toy_cnn"), len(TOY_CLASSES))
    state = safetensors.torch.load(file.read_bytes())
    classifier.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    classifier.backbone.weight_tag = WEIGHTS
    return classifier.eval()


@torch.no_grad()
def predict(
    classifier: TagClassifier, image: UInt8[Tensor, "3 h w"], threshold: float = 0.4
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "k"]]:
    """Label map of one image from its own predicted tags.

    Args:
        classifier: names the image and gives the maps.
        image: RGB, any size of at least 32 px.
        threshold: background where no map, scaled to maximum 1, exceeds it; 0..1.

    Returns:
        int64 labels 0..k, and the probability of every tag. Tags above 0.5 compete for pixels; an
        image without any becomes background.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0..1, got {threshold}")
    pixels = image[None].float() / 255
    features = classifier.features(pixels)
    probs = classifier.head(features)[0].sigmoid()
    maps = F.interpolate(
        classifier.head.cam(features), image.shape[-2:], mode="bilinear", align_corners=False
    )
    cam = normalize_cam(maps, "plain")[0] * (probs > 0.5)[:, None, None]
    score, winner = cam.max(0)
    return torch.where(score > threshold, winner + 1, 0), probs


def predict_folder(source: Path, out: Path, threshold: float = 0.4) -> Iterator[str]:
    """Write `<name>.png` (palette mask) and `<name>_overlay.jpg` for every image.

    Args:
        source: an image file, or a folder of them.
        out: created if need be.
        threshold: see `predict`.

    Yields:
        One line per image: its name and the tags found.

    Raises:
        FileNotFoundError: no such file, or no image in the folder.
    """
    files = (
        sorted(f for f in source.iterdir() if f.suffix.lower() in SUFFIXES)
        if (source.is_dir())
        else [source]
    )
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"no image at {source}; expected a file or folder of {SUFFIXES}")
    classifier = toy_classifier()
    out.mkdir(parents=True, exist_ok=True)
    for file in files:
        with Image.open(file) as opened:
            pixels = np.asarray(opened.convert("RGB"))
        label, probs = predict(
            classifier, torch.from_numpy(pixels.copy()).permute(2, 0, 1), threshold
        )
        mask = label.to(torch.uint8).numpy()
        write_mask(out / f"{file.stem}.png", mask)
        blend = 0.5 * pixels + 0.5 * voc_palette()[mask]
        overlay = np.where(mask[:, :, None] > 0, blend, pixels).astype(np.uint8)
        Image.fromarray(overlay).save(out / f"{file.stem}_overlay.jpg", quality=92)
        found = [
            f"{n} {p:.2f}" for n, p in zip(TOY_CLASSES, probs.tolist(), strict=True) if p > 0.5
        ]
        yield f"{file.name}: {', '.join(found) or 'nothing named'}"


def describe() -> dict[str, Any]:
    """Versions, backbones and packaged weights."""
    folder = resources.files("wsss_lab") / "weights"
    packed = [f.name for f in folder.iterdir() if f.name.endswith(".safetensors")]
    return {
        "versions": versions(),
        "git": git_revision(),
        "backbones": list(BACKBONES),
        "weights": sorted(packed) if folder.is_dir() else [],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
