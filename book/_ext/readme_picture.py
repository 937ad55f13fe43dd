"""Draw the picture of the README with the packaged classifier: nothing is trained, nothing chosen.

    python book/_ext/readme_picture.py

The scenes are the first of the split `val` with two tags each, good or bad as they come.
"""

import io
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from wsss_lab import viz
from wsss_lab.cam import cam_to_label, normalize_cam
from wsss_lab.data.toy import scene
from wsss_lab.evaluate.predict import predict, toy_classifier

OUT = Path(__file__).parents[1] / "_static" / "readme.png"
SCENES, THRESHOLD = 3, 0.4
TITLES = ("image", "class maps", "pseudo-label", "prediction", "truth")
GREY = "#767676"  # reads on GitHub's white and on its black alike


def stages(classifier, drawn) -> list[np.ndarray]:
    """Pictures of one scene, in the order of `TITLES`."""
    image = torch.from_numpy(drawn.image).permute(2, 0, 1)
    tags = torch.from_numpy(drawn.tags)[None]
    with torch.no_grad():
        maps = classifier.raw_cam(image[None] / 255)
    maps = torch.nn.functional.interpolate(maps, image.shape[-2:], mode="bilinear")
    maps = normalize_cam(maps) * tags[:, :, None, None]
    pseudo = cam_to_label(maps, tags, THRESHOLD)[0]
    label, _ = predict(classifier, image, THRESHOLD)
    shown = [viz.overlay(drawn.image, x) for x in (maps[0].amax(0), pseudo, label, drawn.mask)]
    return [drawn.image, *shown]


def draw() -> bytes:
    """The whole picture as PNG with a transparent ground and 128 colours."""
    classifier = toy_classifier()
    drawn = (scene(0, i, split="val") for i in count())
    rows = [stages(classifier, s) for s in islice((s for s in drawn if s.tags.sum() == 2), SCENES)]
    figure = Figure(figsize=(8, 5.1), layout="constrained")
    for axes, pictures in zip(figure.subplots(SCENES, len(TITLES)), rows, strict=True):
        for ax, picture, title in zip(axes, pictures, TITLES, strict=True):
            ax.imshow(picture)
            ax.set_axis_off()
            if pictures is rows[0]:
                ax.set_title(title, color=GREY, fontsize=12)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, transparent=True)
    small = Image.open(buffer).quantize(128, method=Image.Quantize.FASTOCTREE)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    OUT.write_bytes(draw())
    print(f"{OUT}: {OUT.stat().st_size / 1e3:.0f} kB")
