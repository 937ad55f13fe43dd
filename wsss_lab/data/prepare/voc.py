"""PASCAL VOC 2012 and SBD -> the layout that `ImageTagDataset.voc` reads.

train_aug is (SBD train + SBD val + VOC train) without VOC val: 10,582 images. Masks of VOC's own
train and val images stay VOC's; only images that VOC did not segment get a mask from SBD. SBD's
masks are coarser and have no void borders, so swapping them changes scores.
"""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from wsss_lab.config import OutputError, write_text_atomically
from wsss_lab.data.catalog import VOC_CLASSES, Archive
from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.layouts import read_list
from wsss_lab.data.prepare import common, unpack
from wsss_lab.data.tags import tags_from_boxes

_TAR, _SBD = "VOCtrainval_11-May-2012.tar", "benchmark.tgz"
_VOC = "VOCdevkit/VOC2012"
_PARTS = ("JPEGImages", "Annotations", "ImageSets/Segmentation", "SegmentationClass")


def prepare_voc(
    root: str | Path,
    download: bool = True,
    *,
    difficult: bool = True,
    archives: Mapping[str, Archive] | None = None,
) -> str:
    """Make VOC 2012 with train_aug under `root/VOCdevkit/VOC2012`.

    Writes `SegmentationClassAug/`, `ImageSets/Segmentation/train_aug.txt`, `tags.csv` (train_aug
    and val) and `prepared.json` there. Archives stay in `root/archives` and may be deleted.

    Args:
        root: any folder.
        download: False uses existing archives only.
        difficult: tags count boxes marked difficult, as the field's lists do.
        archives: other addresses (a mirror) by official file name; published counts are then not
            required.

    Returns:
        summary of one paragraph.

    Raises:
        DataError: an archive is missing, broken or another one; the message names the remedy.
    """
    root = Path(root)
    paths = common.fetch_all("voc", root, download, archives)
    voc = root / _VOC
    settings = {
        "classes": VOC_CLASSES,
        "tags": f"names of all boxes, {'with' if difficult else 'without'} difficult ones",
        "masks": "VOC's own where it has one, else SBD's",
        "archives": common.archive_hashes(root / "archives", paths),
    }
    record = voc / common.RECORD
    if common.already(record, settings):
        return f"VOC 2012 in {voc} is prepared already."
    wanted = [f"{_VOC}/{part}" for part in _PARTS]
    found = unpack.unpack_tar(paths[_TAR], root, wanted)
    unpack.require_members(paths[_TAR], found, wanted)
    lists = {s: read_list(voc / f"ImageSets/Segmentation/{s}.txt") for s in ("train", "val")}
    own = {path.stem for path in (voc / "SegmentationClass").glob("*.png")}
    sbd = _unpack_sbd(paths[_SBD], voc / "SegmentationClassAug", own)
    lists["train_aug"] = sorted(sbd.union(lists["train"]).difference(lists["val"]))
    _require_masks(paths[_SBD], voc, lists["train_aug"], own)
    counts = {split: len(names) for split, names in lists.items()}
    counts["trainval"] = len(read_list(voc / "ImageSets/Segmentation/trainval.txt"))
    common.require_counts(voc, "voc", counts, published=archives is None)
    text = "".join(f"{name}\n" for name in lists["train_aug"])
    write_text_atomically(voc / "ImageSets/Segmentation/train_aug.txt", text)
    names = [*lists["train_aug"], *lists["val"]]
    boxes = {
        n: tags_from_boxes(voc / f"Annotations/{n}.xml", VOC_CLASSES, difficult) for n in names
    }
    common.put_tags(voc / "tags.csv", boxes, VOC_CLASSES)
    common.write_record(record, settings, counts, [voc / "tags.csv"])
    return f"VOC 2012 in {voc}: " + ", ".join(f"{s} {n}" for s, n in counts.items()) + " images."


def _unpack_sbd(path: Path, target: Path, skip: set[str]) -> set[str]:
    """Read SBD's archive once: write masks of images not in `skip`, return all listed names."""
    base = "benchmark_RELEASE/dataset"
    lists: dict[str, list[str]] = {}
    try:
        with tarfile.open(path) as tar:
            members = unpacked = 0
            for member in common.progress(tar, f"unpack {path.name}"):
                members, unpacked = members + 1, unpacked + member.size
                unpack.require_bounds(path, members, unpacked)
                name = PurePosixPath(member.name)
                folder, file = str(name.parent), tar.extractfile(member)
                if file is None:
                    continue
                if folder == base and name.stem in ("train", "val"):
                    lists[f"{base}/{name.name}"] = file.read().decode().split()
                elif folder == f"{base}/cls" and name.suffix == ".mat" and name.stem not in skip:
                    label = read_sbd(file.read(), f"{path}: {name}")
                    common.put_mask(target / f"{name.stem}.png", label)
    except (DataError, OutputError):
        raise
    except unpack.BROKEN as error:
        raise unpack.broken(path, error).error() from error
    unpack.require_members(path, lists, (f"{base}/train.txt", f"{base}/val.txt"))
    return {name for names in lists.values() for name in names}


def read_sbd(data: bytes, where: str) -> np.ndarray:
    """Read the label map of one SBD `cls/ID.mat`: uint8 (h, w), 0..20, without void.

    Args:
        data: content of the file.
        where: name of the file in errors.

    Raises:
        DataError: it is no such file.
    """
    loadmat = common.need("scipy.io").loadmat
    try:
        stored = loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)
        label = np.asarray(stored["GTcls"].Segmentation)
    except Exception as error:  # scipy raises exceptions of many types on broken files
        what = f"holds no GTcls.Segmentation ({error})"
        raise Problem(where, what, "Delete the archive and run again").error() from error
    if label.ndim != 2 or label.dtype.kind not in "iu" or label.max() > len(VOC_CLASSES):
        what = f"is no label map with ids 0..20 ({label.dtype} {label.shape})"
        raise Problem(where, what, "Delete the archive and run again").error()
    return label.astype(np.uint8)


def _require_masks(path: Path, voc: Path, names: list[str], own: set[str]) -> None:
    have = own | {p.stem for p in (voc / "SegmentationClassAug").glob("*.png")}
    lacking = [name for name in names if name not in have]
    if lacking:
        what = f"lists {len(lacking)} images without a mask, the first is {lacking[0]}"
        raise Problem(str(path), what, "Delete the archive and run again").error()
