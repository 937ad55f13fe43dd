"""Photos for the page *Bring your own photo*, as a script that a page opened from disk can read.

As an extension of Sphinx this adds `photos.js` to the built book: the open photos of the package as
data URLs. A page from disk may not read the pixels of an image file.
"""

import base64
import json
from pathlib import Path

from wsss_lab.data.open_photos import open_photo

SHOWN = {
    "gcompris_animals_dog": "A German shepherd standing in dry grass, its head at the upper right",
    "gcompris_animals_horse": "Four dark horses and a foal on a meadow under a blue sky",
    "gcompris_animals_cat": "A kitten on its back on a red cloth, playing with a ball of wool",
    "gcompris_animals_scarlet_macaw": "A red macaw on a branch in front of pale rocks",
    "gcompris_animals_sheep": "A sheep on a lawn, looking at the camera",
    "gcompris_animals_cow": "A black and white cow from the side, two others far behind",
    "gcompris_erase_kingfisher": "A kingfisher on a mossy twig in front of a plain background",
    "skimage_chelsea": "The face of a ginger cat, filling the picture",
    "coco_000000000471": "A yellow school bus on an empty car park",
    "coco_000000255165": "A desk with two monitors, keyboards and a printer",
    "coco_000000126107": "A gull in flight above a beach and the sea",
    "coco_000000565778": "A blue railway carriage that comes out of a tunnel",
}
"""Open photo -> what is to be seen. Those with named photographers first."""


def photos_script() -> str:
    """The script with the photos, their words and credits."""
    found = []
    for name, alt in SHOWN.items():
        photo = open_photo(name)
        data = base64.b64encode(photo.path.read_bytes()).decode("ascii")
        found.append(
            {"name": name, "alt": alt, "address": f"data:image/jpeg;base64,{data}"}
            | {key: getattr(photo, key) for key in ("author", "licence", "source", "changes")}
        )
    return f"wsssPhoto.photos = {json.dumps(found)};\n"


def add_photos(app, error):
    """Put the photos into the built book."""
    folder = Path(app.outdir) / "_static" / "photo"
    if error is None and folder.is_dir():
        (folder / "photos.js").write_text(photos_script(), encoding="ascii")


def setup(app):
    app.connect("build-finished", add_photos)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
