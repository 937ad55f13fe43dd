"""PASCAL VOC 2012 and 2007 -> voc-mini: 2,750 photos at a long side of 320 px with tags and masks.

The archives are read once from begin to end, and only what the lists name is kept.
"""

import io
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from wsss_lab.config import OutputError, write_atomically, write_text_atomically
from wsss_lab.data.catalog import VOC_CLASSES, Archive
from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.prepare import common, unpack
from wsss_lab.data.tags import tags_from_boxes
from wsss_lab.data.voc_mini import LONG_SIDE, SPLITS, names_of

FOLDER = "voc_mini"
QUALITY = 85
"""Of the reduced JPEG files."""
_VOC12, _VOC07 = "VOCdevkit/VOC2012", "VOCdevkit/VOC2007"


@dataclass(frozen=True)
class _Source:
    """One archive and what is taken from it."""

    file: str
    base: str
    names: Mapping[str, str]
    """Name in the archive -> name in voc-mini."""
    masks: bool
    complete: bool = True
    """The archive holds all `names`; else they are shared out among several archives."""


def prepare_voc_mini(
    root: str | Path, download: bool = True, *, archives: Mapping[str, Archive] | None = None
) -> str:
    """Make `root/voc_mini` from the official archives of VOC 2012 and VOC 2007.

    Writes `JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/`, `tags.csv` and
    `prepared.json`. Tags count the boxes of VOC 2012 marked difficult, as the field's lists do, and
    leave those of VOC 2007 out. Archives stay in `root/archives` and may be deleted.

    Args:
        root: any folder.
        download: False uses existing archives only.
        archives: other addresses (a mirror) by official file name.

    Returns:
        summary of one line.

    Raises:
        DataError: an archive is missing, broken or another one; the message names the remedy.
    """
    root = Path(root)
    paths = common.fetch_all("voc-mini", root, download, archives)
    target = root / FOLDER
    settings = {
        "classes": VOC_CLASSES,
        "long_side": LONG_SIDE,
        "photos": f"Lanczos, JPEG quality {QUALITY}; masks: nearest",
        "tags": "names of boxes: of 2012 with difficult ones, of 2007 without",
        "archives": common.archive_hashes(root / "archives", paths),
    }
    if common.already(target / common.RECORD, settings):
        return f"voc-mini in {target} is prepared already."
    boxes: dict[str, tuple[int, ...]] = {}
    for source in _sources():
        boxes |= _take(source, paths[source.file], target)
    _require_all(target, boxes)
    lists = target / "ImageSets" / "Segmentation"
    for split in SPLITS:
        text = "".join(f"{name}\n" for name in names_of(split))
        write_text_atomically(lists / f"{split}.txt", text)
    common.put_tags(target / "tags.csv", dict(sorted(boxes.items())), VOC_CLASSES)
    counts = {split: len(names_of(split)) for split in SPLITS}
    common.write_record(target / common.RECORD, settings, counts, [target / "tags.csv"])
    return f"voc-mini in {target}: " + ", ".join(f"{s} {n}" for s, n in counts.items()) + " photos."


def _sources() -> list[_Source]:
    masked = {name: name for name in names_of("train") + names_of("val")}
    tagged = {name.removeprefix("2007_"): name for name in names_of("tags_only")}
    return [
        _Source("VOCtrainval_11-May-2012.tar", _VOC12, masked, masks=True),
        _Source("VOCtrainval_06-Nov-2007.tar", _VOC07, tagged, masks=False, complete=False),
        _Source("VOCtest_06-Nov-2007.tar", _VOC07, tagged, masks=False, complete=False),
    ]


def _take(source: _Source, path: Path, target: Path) -> dict[str, tuple[int, ...]]:
    """Write photos and masks of one archive; return the tags by name."""
    folders: dict[str, Callable[[bytes, str], None]] = {
        "JPEGImages": lambda data, name: _photo(data, target / "JPEGImages" / f"{name}.jpg")
    }
    if source.masks:
        folders["SegmentationClass"] = lambda data, name: _mask(
            data, target / "SegmentationClass" / f"{name}.png"
        )
    with tempfile.TemporaryDirectory() as drafts:
        boxes = Path(drafts)
        folders["Annotations"] = lambda data, name: _write(boxes / f"{name}.xml", data)
        try:
            with tarfile.open(path) as tar:
                members = unpacked = 0
                for member in common.progress(tar, f"read {path.name}"):
                    members, unpacked = members + 1, unpacked + member.size
                    unpack.require_bounds(path, members, unpacked)
                    place = PurePosixPath(member.name)
                    name = source.names.get(place.stem)
                    keep = folders.get(place.parent.name)
                    if name and keep and str(place.parent.parent) == source.base:
                        file = tar.extractfile(member)
                        if file is not None:
                            keep(file.read(), name)
        except (DataError, OutputError):
            raise
        except unpack.BROKEN as error:
            raise unpack.broken(path, error).error() from error
        found = {
            file.stem: tags_from_boxes(file, VOC_CLASSES, difficult=source.masks)
            for file in sorted(boxes.glob("*.xml"))
        }
    lacking = [new for new in source.names.values() if new not in found]
    if not found or (source.complete and lacking):
        what = f"holds no boxes of {lacking[0]} in {source.base}, so it is another archive"
        raise Problem(str(path), what, "Get the archive that the catalogue names").error()
    return found


def _write(path: Path, data: bytes) -> None:
    with common.writing(path):
        path.write_bytes(data)


def _reduced(image: Image.Image, how: Image.Resampling) -> Image.Image:
    scale = min(1.0, LONG_SIDE / max(image.size))
    return image.resize((round(image.width * scale), round(image.height * scale)), how)


def _save(path: Path, image: Image.Image, **options: object) -> None:
    write_atomically(path, lambda file: image.save(file, **options))  # type: ignore[arg-type]


def _photo(data: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(data)) as image:
        _save(path, _reduced(image.convert("RGB"), Image.Resampling.LANCZOS),
              format="JPEG", quality=QUALITY)  # fmt: skip


def _mask(data: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(data)) as image:  # stays in palette mode, so values stay
        _save(path, _reduced(image, Image.Resampling.NEAREST), format="PNG")


def _require_all(target: Path, boxes: Mapping[str, tuple[int, ...]]) -> None:
    """Every listed photo has a file, at least one tag and, where it needs one, a mask."""
    masked = {*names_of("train"), *names_of("val")}
    for name in names_of("train_tags") + names_of("val"):
        files = [target / "JPEGImages" / f"{name}.jpg"]
        files += [target / "SegmentationClass" / f"{name}.png"] if name in masked else []
        if lacking := [str(file) for file in files if not file.is_file()]:
            what = "did not come out of the archives"
            raise Problem(lacking[0], what, "Delete the archives and run again").error()
        if not boxes.get(name):
            what = f"no box of {name} names one of the 20 classes"
            raise Problem(str(target), what, "Delete the archives and run again").error()
