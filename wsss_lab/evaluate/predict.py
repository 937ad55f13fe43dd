"""Masks for images nobody has tagged, from a trained run or from the packaged toy classifier.

The toy classifier names what is in an image, and its class activation map outlines it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wsss_lab.cam import normalize_cam
from wsss_lab.config import write_atomically
from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.class_names import BACKGROUND, require_foreground
from wsss_lab.data.errors import DataError, OnProblem, Problem
from wsss_lab.data.files import list_pictures, readable_suffixes, stem
from wsss_lab.data.images import read_image
from wsss_lab.data.masks import save_label
from wsss_lab.evaluate.inference import MultiScale, class_probabilities
from wsss_lab.evaluate.large import label_by_band, look, shrunk
from wsss_lab.evaluate.overlays import write_overlay
from wsss_lab.evaluate.trained import Trained, choose_device
from wsss_lab.methods.cam_baseline import TagClassifier
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.folded import folded
from wsss_lab.models.state import load_strictly
from wsss_lab.outputs import guard_outputs

WEIGHTS = "toy_cnn_tags"


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
        image: RGB, any size of at least 32 px; one of more than `MOST_PIXELS` pixels is shrunk for
            the network, see `wsss_lab.evaluate.large`.
        threshold: background where no map, scaled to maximum 1, exceeds it; 0..1.

    Returns:
        int64 labels 0..k, and the probability of every tag. Tags above 0.5 compete for pixels; an
        image without any becomes background.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected 0..1, got {threshold}")
    label, probs, _ = _predict(classifier, image, threshold)
    return label.long(), probs


def _predict(
    classifier: TagClassifier, image: Tensor, threshold: float
) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """As `predict`, labels perhaps of 8 bits; and the size at which the image was looked at."""
    size = (image.shape[-2], image.shape[-1])
    seen = shrunk(image[None], MultiScale().computing_size(*size))
    pixels = seen.to(next(classifier.parameters()).device).float() / 255
    features = classifier.features(pixels)
    probs = classifier.head(features)[0].sigmoid()
    maps = F.interpolate(
        classifier.head.cam(features), pixels.shape[-2:], mode="bilinear", align_corners=False
    )
    cam = normalize_cam(maps, "plain") * (probs > 0.5)[:, None, None]

    def label(maps: Tensor) -> Tensor:
        score, winner = maps.max(1)
        return torch.where(score > threshold, winner + 1, 0)

    return label_by_band(cam, size, label)[0], probs, (pixels.shape[-2], pixels.shape[-1])


def predict_folder(
    source: Path,
    out: Path,
    threshold: float = 0.4,
    *,
    trained: Trained | None = None,
    soft: bool = False,
    device: str = "auto",
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
    on_problem: OnProblem | None = None,
) -> Iterator[str]:
    """Write `<name>.png` (palette mask) and `<name>_overlay.jpg` for every image.

    Overlays have a legend below the picture. Pixels are taken as they are stored, see
    `wsss_lab.data.images`. Masks carry the class names.

    Args:
        source: an image file, or a folder of them; subfolders are left alone. No tags are needed.
        out: created if need be.
        threshold: background score of class maps, 0..1; see `predict`. Without meaning for
            networks that segment.
        trained: a network, see `wsss_lab.runs.weights.load_trained`; None takes the packaged toy
            classifier.
        soft: also write `<name>.npz` with `probs`, float16 (k1, h, w), and the class names; of a
            photo that is shrunk, see `wsss_lab.evaluate.large`, at the smaller size.
        device: "auto", "cpu" or "cuda".
        overwrite: replace files that are there; an input is never replaced.
        inputs: further files that must not be replaced.
        on_problem: called for an image that cannot be done; the others are done all the same. None
            raises when they are.

    Yields:
        One line per image: its name and what was found.

    Raises:
        FileNotFoundError: no such file, or no image in the folder.
        FileExistsError: a result would replace an image, or a file that is there already.
        ValueError: two images share a name, a wrong argument; without `on_problem`, images that
            cannot be done, named together at the end.
    """
    files = image_files(source)
    read = [*files.values(), *inputs, *([trained.file] if trained else [])]
    guard_outputs(_results(out, files, soft), read, overwrite=overwrite)
    label, classes = _labeller(trained, threshold, device, soft)
    problems: list[Problem] = []
    for name, file in files.items():
        try:
            pixels = read_image(file)
            mask, probs, said = label(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        except (ValueError, MemoryError, RuntimeError) as error:
            (on_problem or problems.append)(_problem_of(file, error))
            continue
        _write(out, name, pixels, mask, classes)
        if probs is not None:
            _write_soft(out / f"{name}.npz", probs, classes)
        yield f"{file.name}: {said}"
    if problems:
        raise DataError(" ".join(map(str, problems)))


def _problem_of(file: Path, error: Exception) -> Problem:
    """Return the problem of one image; a defect of the program is raised as it is.

    Raises:
        RuntimeError: anything but a lack of memory.
    """
    if isinstance(error, DataError):
        return Problem.of(error)
    if isinstance(error, ValueError):
        return Problem(str(file), str(error), "Change the image or leave it out")
    lacking = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if not lacking and "allocate memory" not in str(error):
        raise error
    return Problem(str(file), "is too large for the memory there is", "Scale it down")


def image_files(source: Path) -> dict[str, Path]:
    """Images by name, in a stable order.

    Raises:
        FileNotFoundError: there is none.
        ValueError: two would write the same mask.
    """
    if not source.is_dir():
        if source.is_file():
            return {stem(source.name): source}
        raise FileNotFoundError(f"no image at {source}; expected a file or folder of images")
    twins: list[Problem] = []
    found = list_pictures(source, twins.append)
    if twins:
        names = list(dict.fromkeys(stem(Path(twin.file).name) for twin in twins))[:3]
        raise ValueError(
            f"images: {source} has several images named {names}; their masks would have one name"
        )
    if not found.files:
        note = found.skipped_note()
        raise FileNotFoundError(
            f"no image at {source}; expected files of {', '.join(sorted(readable_suffixes()))}"
            + (f"; {note}" if note else "")
        )
    return found.files


def _results(out: Path, names: Iterable[str], soft: bool) -> list[Path]:
    """List the files that will be written for the images of these names."""
    endings = (".png", "_overlay.jpg", *([".npz"] if soft else []))
    return [out / f"{name}{ending}" for name in names for ending in endings]


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
        return _toy_labeller(classifier, threshold, soft), (BACKGROUND, *TOY_CLASSES)
    method, views, classes = trained.method.to(place), trained.views, trained.classes
    require_foreground(classes[1:], f"classes of {trained.file}")  # and they fit into 8 bits

    def label(image: Tensor) -> tuple[np.ndarray, Tensor | None, str]:
        size = (image.shape[-2], image.shape[-1])
        with folded(method):
            seen, output = look(method.predict, image[None], views, device=place)
        kind = "cam" if output.logits is None else "logits"

        def winner(scores: Tensor | None) -> Tensor:
            probs = class_probabilities(replace(output, **{kind: scores}), threshold)
            return probs.max(dim=1).indices

        scores = getattr(output, kind)
        label = winner(scores) if scores is None else label_by_band(scores, size, winner)
        mask = label[0].to(torch.uint8).cpu().numpy()
        names = [classes[c] for c in np.unique(mask) if c]
        said = (", ".join(names) or "background only") + _looked_at(seen.shape[-2:], size)
        return mask, class_probabilities(output, threshold)[0] if soft else None, said

    return label, classes


def _toy_labeller(classifier: TagClassifier, threshold: float, soft: bool) -> Labeller:
    place = next(classifier.parameters()).device

    @torch.no_grad()
    def label(image: Tensor) -> tuple[np.ndarray, Tensor | None, str]:
        mask, tags, seen = _predict(classifier, image, threshold)
        found = [f"{n} {p:.2f}" for n, p in zip(TOY_CLASSES, tags.tolist(), strict=True) if p > 0.5]
        probs = None
        if soft:
            _, output = look(classifier.predict, image[None], MultiScale(), device=place)
            probs = class_probabilities(output, threshold)[0]
        said = (", ".join(found) or "nothing named") + _looked_at(seen, image.shape[-2:])
        return mask.to(torch.uint8).cpu().numpy(), probs, said

    return label


def _looked_at(seen: Sequence[int], size: Sequence[int]) -> str:
    """Return the size at which a photo was looked at, in words; nothing where it is its own."""
    return "" if tuple(seen) == tuple(size) else f" (looked at in {seen[1]}x{seen[0]} px)"


def _write_soft(path: Path, probs: Tensor, classes: tuple[str, ...]) -> None:
    content: dict[str, Any] = {"probs": probs.half().cpu().numpy(), "classes": np.array(classes)}
    write_atomically(path, lambda file: np.savez_compressed(file, **content))


def _write(
    out: Path, name: str, pixels: np.ndarray, mask: np.ndarray, classes: tuple[str, ...]
) -> None:
    """Palette mask and overlay."""
    save_label(out / f"{name}.png", mask, classes)
    write_overlay(out / f"{name}_overlay.jpg", pixels, mask, classes)
