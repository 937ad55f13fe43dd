"""What the library sees on the photos of the page *Bring your own photo*.

    python book/_ext/photo_record.py             writes book/_static/photo/recorded.js

Likeliest classes and raw class maps of every view, for browsers that cannot run the network and for
readers who have not started it. Maps at full size, refined or cut, are made in the page from these.
"""

import base64
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from photo_page import SHOWN

from wsss_lab.cam import FUSIONS, class_activation_map
from wsss_lab.data.images import read_image
from wsss_lab.data.open_photos import open_photo
from wsss_lab.evaluate.explain import SIDE, fit_size
from wsss_lab.evaluate.inference import scaled
from wsss_lab.models.imagenet import ImageNetClassifier, imagenet_classifier
from wsss_lab.viz.arrays import HEAT

FOLDER = Path(__file__).parents[1] / "_static" / "photo"
RECORDED = FOLDER / "recorded.js"
COUNT = 5
"""Classes recorded of a photo."""


def pixels_of(name: str) -> torch.Tensor:
    """The photo as the network is shown it, (1, 3, h, w) in [0, 1]."""
    photo = torch.from_numpy(read_image(open_photo(name).path).copy()).permute(2, 0, 1)
    size = fit_size((photo.shape[1], photo.shape[2]), SIDE, 1)
    options = {"mode": "bilinear", "antialias": True, "align_corners": False}
    return torch.nn.functional.interpolate(photo[None].float() / 255, size, **options)


@torch.no_grad()
def record(classifier: ImageNetClassifier, name: str) -> dict[str, Any]:
    """Likeliest classes of a photo, and their raw maps from every view of `multi_scale`."""
    fusion = FUSIONS["multi_scale"]
    image, net = pixels_of(name), classifier.net
    views = [
        net.forward_features(classifier.normalize(scaled(image, s, fusion.flip)))
        for s in fusion.scales
    ]
    probs, top = net.forward_head(views[0][:1]).softmax(1)[0].topk(COUNT)
    weight = net.get_classifier().weight[top]
    maps = [class_activation_map(v, weight) for v in views]  # (plain and mirrored, class, gh, gw)
    return {
        "classes": [
            {"k": k, "prob": round(p, 6), "grids": [_grid(m[j, c]) for m in maps for j in (0, 1)]}
            for c, (k, p) in enumerate(zip(top.tolist(), probs.tolist(), strict=True))
        ]
    }


def _grid(values: torch.Tensor) -> dict[str, Any]:
    """A raw map as whole multiples of a step, 16 bits each."""
    array = values.double().numpy()
    step = float(np.abs(array).max()) / 32767 or 1.0
    numbers = np.rint(array / step).astype("<i2")
    text = base64.b64encode(numbers.tobytes()).decode("ascii")
    return {"size": list(array.shape), "step": step, "data": text}


def recorded(classifier: ImageNetClassifier) -> dict[str, Any]:
    """All that is recorded: names of the classes, colours of maps, classes and maps of photos."""
    colours = np.rint(mpl.colormaps[HEAT](np.arange(256))[:, :3] * 255).astype(np.uint8)
    return {
        "side": SIDE,
        "names": list(classifier.class_names),
        "heat": base64.b64encode(colours.tobytes()).decode("ascii"),
        "photos": {name: record(classifier, name) for name in SHOWN},
    }


if __name__ == "__main__":
    content = json.dumps(recorded(imagenet_classifier()))
    RECORDED.write_text(f"wsssPhoto.recorded = {content};\n", encoding="ascii")
    print(f"{RECORDED.name}: {RECORDED.stat().st_size / 1e3:.0f} kB")
