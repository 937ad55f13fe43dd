"""Likeliest ImageNet classes of a photo, and maps of where the network sees them.

| map | networks |
|---|---|
| CAM: the classifier at every cell (CVPR 2016) | those that average a map and classify the mean |
| Grad-CAM: channels weighted by mean gradients (ICCV 2017) | those with a last map |
| attention x gradient, summed over layers | transformers whose attention can be recorded |
"""

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from wsss_lab.cam import class_activation_map, grad_cam, normalize_cam
from wsss_lab.cam.attention_maps import attention_gradients
from wsss_lab.config import write_atomically
from wsss_lab.data.images import read_image
from wsss_lab.evaluate.inference import MultiScale
from wsss_lab.evaluate.large import shrunk
from wsss_lab.models.attention import record_attention
from wsss_lab.models.imagenet import ImageNetClassifier, imagenet_classifier
from wsss_lab.outputs import guard_outputs
from wsss_lab.viz.arrays import overlay, rgb
from wsss_lab.viz.figures import Sheet, image_grid, png_bytes
from wsss_lab.viz.strip import data_uri

SIDE = 320
"""Long side at which a photo is looked at, px."""


@dataclass(frozen=True)
class Explanation:
    """Likeliest classes of one photo and their maps.

    Attributes:
        names: of the classes, likeliest first.
        probs: softmax probabilities, 0..1, one per class.
        maps: by kind of map, (classes, h, w), 0..1, at the size of `image`.
        image: the photo as the network saw it, RGB in [0, 1].
        weight_tag: origin of the weights.
    """

    names: tuple[str, ...]
    probs: tuple[float, ...]
    maps: dict[str, Float[Tensor, "m h w"]]
    image: Float[Tensor, "3 h w"]
    weight_tag: str


def fit_size(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """Compute the height and width with the long side `side`, both multiples of `multiple`."""
    scale = side / max(size)
    height, width = (max(multiple, round(s * scale / multiple) * multiple) for s in size)
    return height, width


def explain(
    classifier: ImageNetClassifier,
    photo: UInt8[Tensor, "3 h w"],
    *,
    count: int = 5,
    side: int = SIDE,
) -> Explanation:
    """Name the likeliest classes of a photo and map each of them.

    Args:
        classifier: from `imagenet_classifier`.
        photo: RGB.
        count: classes, 1..k.
        side: long side at which the photo is looked at, px.

    Raises:
        ValueError: `count` or `side` out of range, or a network of which no map can be read.
    """
    classes = len(classifier.class_names)
    if not 1 <= count <= classes:
        raise ValueError(f"count: expected 1..{classes} classes, got {count}")
    if not 32 <= side <= 2048:
        raise ValueError(f"side: expected 32..2048 px, got {side}")
    own = (photo.shape[1], photo.shape[2])
    size = fit_size(own, side, classifier.multiple)
    pixels = shrunk(photo[None], MultiScale().computing_size(*own)).float() / 255
    image = F.interpolate(pixels, size, mode="bilinear", antialias=True, align_corners=False)
    with torch.enable_grad():
        logits, maps = _class_maps(classifier.net, classifier.normalize(image), count)
    probs, top = logits.detach().softmax(1)[0].topk(count)
    if not maps:
        raise ValueError("backbone: no map can be read of this network; take lite0 or a usual CNN")
    full = {
        kind: normalize_cam(F.interpolate(m, size, mode="bilinear", align_corners=False), "plain")[
            0
        ]
        for kind, m in maps.items()
    }
    names = tuple(classifier.class_names[i] for i in top.tolist())
    return Explanation(names, tuple(probs.tolist()), full, image[0], classifier.weight_tag)


def _class_maps(
    net: Any, images: Float[Tensor, "1 3 h w"], count: int
) -> tuple[Float[Tensor, "1 k"], dict[str, Float[Tensor, "1 m gh gw"]]]:
    """Run the network; return logits and raw maps of its `count` likeliest classes, in order."""
    attention: list[Tensor] = []
    try:
        with record_attention(net) as record:
            features = net.forward_features(images)
        attention = record.maps
    except ValueError:  # it has no attention, or none that can be recorded
        features = net.forward_features(images)
    if features.ndim == 4:
        # some timm networks keep channels last
        last = features.shape[1] != net.num_features
        grid = features.permute(0, 3, 1, 2) if last else features
        logits = net.forward_head(grid.permute(0, 2, 3, 1) if last else grid)
        top = logits[0].topk(count).indices
        return logits, _grid_maps(net, grid, logits, top)
    logits = net.forward_head(features)
    top = logits[0].topk(count).indices
    if not attention:
        return logits, {}
    maps = _attention_maps(net, images, logits, attention, top)
    return logits, {"attention x gradient": maps}


def _grid_maps(
    net: Any, grid: Float[Tensor, "1 d gh gw"], logits: Float[Tensor, "1 k"], top: Int[Tensor, " m"]
) -> dict[str, Float[Tensor, "1 m gh gw"]]:
    found = {}
    head = net.get_classifier()
    weight = getattr(head, "weight", None)
    if weight is not None and weight.ndim == 2 and weight.shape[1] == grid.shape[1]:
        # a class activation map explains the logit only where the logit is its mean
        mean = F.linear(grid.mean((2, 3)), weight, head.bias)
        if torch.allclose(mean, logits, rtol=1e-3, atol=1e-3):
            found["CAM"] = class_activation_map(grid, weight)[:, top].detach()
    tags = torch.zeros_like(logits).index_fill(1, top, 1)
    found["Grad-CAM"] = grad_cam(grid, logits, tags)[:, top]
    return found


def _attention_maps(
    net: Any,
    images: Float[Tensor, "1 3 h w"],
    logits: Float[Tensor, "1 k"],
    attention: list[Tensor],
    top: Int[Tensor, " m"],
) -> Float[Tensor, "1 m gh gw"]:
    """Attention times the positive part of its gradient, summed over layers, mean over heads."""
    prefix = int(getattr(net, "num_prefix_tokens", 0))
    # the class token's row where the class token is classified, else all rows of patches
    rows = slice(0, 1) if getattr(net, "global_pool", "") == "token" else slice(prefix, None)
    tags = torch.zeros_like(logits).index_fill(1, top, 1)
    gradients, index, _ = attention_gradients(logits, attention, tags, rows)
    layers = [
        (g.relu() * a[..., rows, :].detach()).mean(dim=(2, 3))[:, 0, prefix:]
        for g, a in zip(gradients, attention, strict=True)
    ]
    grid = net.patch_embed.dynamic_feat_size(images.shape[2:])
    maps = torch.stack(layers).sum(0).unflatten(1, grid)  # in the order of `index`
    return maps[torch.searchsorted(index[0], top)][None]


def picture(explanation: Explanation) -> Sheet:
    """Arrange the photo and its maps: one row per kind of map, one column per class."""
    found = explanation
    images, titles = [], []
    for kind, maps in found.maps.items():
        images.append(found.image.numpy())
        titles.append(kind)
        for name, prob, cam in zip(found.names, found.probs, maps, strict=True):
            images.append(overlay(found.image, cam))
            titles.append(f"{short(name)} {prob:.0%}")
    return image_grid(images, titles, columns=1 + len(found.names))


def short(name: str, longest: int = 18) -> str:
    """Cut a class name at its first synonym, and at `longest` letters."""
    first = name.split(",")[0]
    return first if len(first) <= longest else first[: longest - 1] + "\u2026"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, sans-serif; }}
body {{ margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem; }}
.row {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .75rem; }}
figure {{ margin: 0; }} img {{ width: 100%; border-radius: 4px; }}
figcaption {{ font-size: .9rem; }}
</style>
<h1>{title}</h1>
<p>Weights: {weights}. Each map is scaled to its own largest value:
it tells where, not how sure.</p>
{sections}
</html>
"""


def page(explanation: Explanation, title: str) -> str:
    """Write an HTML page that needs no network: every picture is part of it."""
    found, sections = explanation, []
    photo = _figure(rgb(found.image), f"Photo {title}", "photo")
    for kind, maps in found.maps.items():
        figures = [photo]
        for name, prob, cam in zip(found.names, found.probs, maps, strict=True):
            alt = f"{kind} of {name}, laid over the photo"
            figures.append(_figure(overlay(found.image, cam), alt, f"{name} {prob:.1%}"))
        body = "\n".join(figures)
        sections.append(f'<h2>{html.escape(kind)}</h2>\n<div class="row">{body}</div>')
    return _PAGE.format(
        title=html.escape(title),
        weights=html.escape(found.weight_tag),
        sections="\n".join(sections),
    )


def _figure(pixels: UInt8[np.ndarray, "h w 3"], alt: str, caption: str) -> str:
    source = data_uri(pixels, "webp", 85)
    return (
        f'<figure><img src="{source}" alt="{html.escape(alt, quote=True)}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def check_ending(path: Path) -> None:
    """Refuse a file that is neither PNG nor HTML.

    Raises:
        ValueError: names the file.
    """
    endings = (".png", ".html")
    if path.suffix.lower() not in endings:
        raise ValueError(f"out: expected a file ending in {' or '.join(endings)}, got {path.name}")


def write_explanation(explanation: Explanation, path: Path, title: str) -> None:
    """Write `picture` as PNG, or `page` as HTML, by the ending of the file.

    Raises:
        ValueError: another ending.
        OutputError: the file cannot be written.
    """
    check_ending(path)
    if path.suffix.lower() == ".png":
        data = png_bytes(picture(explanation))
    else:
        data = page(explanation, title).encode("utf-8")
    write_atomically(path, lambda file: file.write(data))


def explain_file(
    photo: Path,
    out: Path | None = None,
    backbone: str = "lite0",
    weights: str = "",
    count: int = 5,
    side: int = SIDE,
    *,
    overwrite: bool = False,
    inputs: Iterable[Path] = (),
) -> Iterator[str]:
    """Explain an image file, and write the maps.

    Args:
        photo: image file.
        out: PNG or HTML file; None takes PHOTO_explained.png in the current folder.
        backbone: see `imagenet_classifier`.
        weights: see `imagenet_classifier`.
        count: classes.
        side: long side at which the photo is looked at, px.
        overwrite: replace the file `out`, if there is one; never an input.
        inputs: further files that must not be replaced.

    Yields:
        One line per class, and one for the file.

    Raises:
        ValueError, OSError: photo, network, weights or target do not fit.
    """
    out = Path(f"{photo.stem}_explained.png") if out is None else out
    check_ending(out)
    files = [Path(weights)] if Path(weights).is_file() else []
    guard_outputs([out], [photo, *files, *inputs], overwrite=overwrite)
    pixels = torch.from_numpy(read_image(photo).copy()).permute(2, 0, 1)
    found = explain(imagenet_classifier(backbone, weights), pixels, count=count, side=side)
    for name, prob in zip(found.names, found.probs, strict=True):
        yield f"{prob:6.1%}  {name}"
    write_explanation(found, out, photo.name)
    yield f"{', '.join(found.maps)} of these classes: {out}"
