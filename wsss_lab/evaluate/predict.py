"""Masks for images nobody has tagged, from a trained run or from the packaged toy classifier.

The toy classifier names what is in an image, and its class activation map outlines it.
"""

from collections import Counter
from collections.abc import Callable, Iterator
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
from wsss_lab.config import write_atomically
from wsss_lab.data.catalog import TOY_CLASSES, voc_palette
from wsss_lab.data.images import read_image
from wsss_lab.data.masks import save_label
from wsss_lab.evaluate.inference import MultiScale, multi_scale_predict
from wsss_lab.evaluate.trained import Trained, choose_device
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.state import load_strictly

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
    load_strictly(classifier, state, what=f"packaged weights {WEIGHTS}", widen=True)
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


def predict_folder(
    source: Path,
    out: Path,
    threshold: float = 0.4,
    *,
    trained: Trained | None = None,
    soft: bool = False,
    device: str = "auto",
) -> Iterator[str]:
    """Write `<name>.png` (palette mask) and `<name>_overlay.jpg` for every image.

    Args:
        source: an image file, or a folder of them; subfolders are left alone. No tags are needed.
        out: created if need be.
        threshold: background score of class maps, 0..1; see `predict`. Without meaning for
            networks that segment.
        trained: a network, see `wsss_lab.runs.weights.load_trained`; None takes the packaged toy
            classifier.
        soft: also write `<name>.npz` with `probs`, float16 (k1, h, w), and the class names.
        device: "auto", "cpu" or "cuda".

    Yields:
        One line per image: its name and what was found.

    Raises:
        FileNotFoundError: no such file, or no image in the folder.
        ValueError: an image cannot be read, or two images share a name.
    """
    files = _image_files(source)
    label, classes = _labeller(trained, threshold, device, soft)
    for file in files:
        pixels = read_image(file, exif=True)
        try:
            mask, probs, said = label(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        _write(out, file.stem, pixels, mask)
        if probs is not None:
            _write_soft(out / f"{file.stem}.npz", probs, classes)
        yield f"{file.name}: {said}"


def _image_files(source: Path) -> list[Path]:
    """Images in a stable order.

    Raises:
        FileNotFoundError: there is none.
        ValueError: two would write the same mask.
    """
    files = [source]
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files or not files[0].is_file():
        raise FileNotFoundError(f"no image at {source}; expected a file or folder of {SUFFIXES}")
    stems = Counter(file.stem for file in files)
    if twice := [stem for stem, times in stems.items() if times > 1][:3]:
        raise ValueError(
            f"images: {source} has several images named {twice}; their masks would have one name"
        )
    return files


Labeller = Callable[[Tensor], tuple[np.ndarray, Tensor | None, str]]
"""uint8 image (3, h, w) -> label map, probabilities (k1, h, w) or None, classes found."""


def _labeller(
    trained: Trained | None, threshold: float, device: str, soft: bool
) -> tuple[Labeller, tuple[str, ...]]:
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0..1, got {threshold}")
    place = choose_device(device)
    if trained is None:
        classifier = toy_classifier().to(place)
        return _toy_labeller(classifier, threshold, soft), ("background", *TOY_CLASSES)
    method, views, classes = trained.method.to(place), trained.views, trained.classes

    def label(image: Tensor) -> tuple[np.ndarray, Tensor | None, str]:
        pixels = image[None].to(place).float() / 255
        output = multi_scale_predict(method.predict, pixels, views)
        probs = class_probabilities(output, threshold)[0]
        mask = probs.max(dim=0).indices.to(torch.uint8).cpu().numpy()
        names = [classes[c] for c in np.unique(mask) if c]
        return mask, probs if soft else None, ", ".join(names) or "background only"

    return label, classes


def _toy_labeller(classifier: TagClassifier, threshold: float, soft: bool) -> Labeller:
    place = next(classifier.parameters()).device

    @torch.no_grad()
    def label(image: Tensor) -> tuple[np.ndarray, Tensor | None, str]:
        mask, tags = predict(classifier, image.to(place), threshold)
        found = [f"{n} {p:.2f}" for n, p in zip(TOY_CLASSES, tags.tolist(), strict=True) if p > 0.5]
        probs = None
        if soft:
            view = image[None].to(place).float() / 255
            output = multi_scale_predict(classifier.predict, view, MultiScale())
            probs = class_probabilities(output, threshold)[0]
        return mask.to(torch.uint8).cpu().numpy(), probs, ", ".join(found) or "nothing named"

    return label


def class_probabilities(output: SegOutput, threshold: float) -> Float[Tensor, "b k1 h w"]:
    """Soft maps whose argmax is the label map.

    Args:
        output: at image size, of `multi_scale_predict`.
        threshold: background score of class maps; not used where there are logits.

    Returns:
        Softmax of the logits; else the background score beside the maps of the tags that the
        method itself predicts, divided by their sum.

    Raises:
        ValueError: the method gives neither logits nor maps.
    """
    if output.logits is not None:
        return output.logits.softmax(1)
    if output.cam is None:
        raise ValueError("the method gives neither segmentation logits nor class maps")
    cam = output.cam
    if output.tag_logits is not None:
        cam = cam * (output.tag_logits > 0)[:, :, None, None]
    scores = torch.cat([torch.full_like(cam[:, :1], threshold), cam], 1)
    return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)


def _write_soft(path: Path, probs: Tensor, classes: tuple[str, ...]) -> None:
    content: dict[str, Any] = {"probs": probs.half().cpu().numpy(), "classes": np.array(classes)}
    write_atomically(path, lambda file: np.savez_compressed(file, **content))


def _write(out: Path, name: str, pixels: np.ndarray, mask: np.ndarray) -> None:
    """Palette mask and overlay."""
    save_label(out / f"{name}.png", mask)
    blend = 0.5 * pixels + 0.5 * voc_palette()[mask]
    overlay = np.where(mask[:, :, None] > 0, blend, pixels).astype(np.uint8)
    picture = Image.fromarray(overlay)
    write_atomically(
        out / f"{name}_overlay.jpg", lambda file: picture.save(file, "JPEG", quality=92)
    )
