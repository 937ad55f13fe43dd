"""COCO-Stuff 10K v1.1 -> masks with official ids, and tags, for `ImageTagDataset.stuff10k`.

A label map `S` holds 0 (unlabelled), 1..91 (things) and 92..182 (stuff); 11 thing ids never occur,
which leaves 171 classes. Masks keep the official ids, with 255 for unlabelled, and the reader turns
them into one of two conventions of evaluation:

- 171 ways (mmsegmentation's, the default): ids are ranked 1..171, unlabelled is ignored;
- 182 ways (the authors' and DeepLab's): y = S - 1 with 0 -> 255, and mIoU averages over the classes
  that have pixels. Same classes, same pixels: the two differ in the size of the network's output.

Version 1.0 numbers its labels 1 (unlabelled), 2..81 (things), 82..172 (stuff). Its files list 172
names, `unlabeled` first; they are rejected, because most of its ids are legal here and wrong.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wsss_lab import IGNORE
from wsss_lab.data.catalog import STUFF_CLASSES, STUFF_IDS, Archive
from wsss_lab.data.errors import Problem
from wsss_lab.data.layouts import read_list
from wsss_lab.data.prepare import common, unpack

_CLASS = {number: c for c, number in enumerate(STUFF_IDS)}


class _Job(NamedTuple):
    source: str
    target: str


def prepare_stuff10k(
    root: str | Path,
    download: bool = True,
    *,
    workers: int | None = None,
    archives: Mapping[str, Archive] | None = None,
    unverified: bool = False,
) -> str:
    """Make `images/`, `masks/`, `tags_{train,test}.csv` and `prepared.json` in `root`.

    No checksum of this archive is published: it is downloaded only where that is accepted, hashed,
    and kept as reference.

    Args:
        root: any folder; the archive goes to `root/archives` and may be deleted afterwards.
        download: False uses an existing archive only.
        workers: processes that convert; None is one a core.
        archives: another address (a mirror) by official file name; published counts are then not
            required.
        unverified: download an archive that no published checksum verifies.

    Returns:
        summary of one paragraph.

    Raises:
        DataError: the archive is missing, broken, another one, or version 1.0; the message names
            the remedy.
    """
    root = Path(root)
    paths = common.fetch_all(
        "stuff10k", root, download, archives, unverified or archives is not None
    )
    (path,) = paths.values()
    settings = {
        "classes": STUFF_CLASSES,
        "ids": STUFF_IDS,
        "masks": "official ids 1..182, unlabelled 255",
        "archives": common.archive_hashes(root / "archives", paths),
    }
    if common.already(root / common.RECORD, settings):
        return f"COCO-Stuff 10K in {root} is prepared already."
    wanted = ("images", "annotations", "imageLists")
    unpack.require_members(path, unpack.unpack_zip(path, root, wanted), wanted)
    counts, digests, files = {}, {}, []
    for split in ("train", "test"):
        names = read_list(root / "imageLists" / f"{split}.txt")
        jobs = [
            _Job(str(root / f"annotations/{n}.mat"), str(root / f"masks/{n}.png")) for n in names
        ]
        done = common.convert(convert_file, jobs, workers or os.cpu_count() or 1, f"{split} masks")
        tags = {name: classes for name, (classes, _) in zip(names, done, strict=True)}
        digests[split] = common.masks_digest(sha for _, sha in done)
        files.append(root / f"tags_{split}.csv")
        common.put_tags(files[-1], tags, STUFF_CLASSES)
        counts[split] = len(names)
    common.require_counts(root, "stuff10k", counts, published=archives is None)
    common.write_record(root / common.RECORD, settings, counts, files, digests)
    return f"COCO-Stuff 10K in {root}: train {counts['train']}, test {counts['test']} images."


def read_stuff(path: str | Path) -> np.ndarray:
    """Read the label map of one COCO-Stuff 10K v1.1 `.mat` file.

    Returns:
        uint8 (h, w): official ids 1..182, 255 where unlabelled.

    Raises:
        DataError: missing, not such a file, version 1.0, or ids that v1.1 does not use.
    """
    path = Path(path)
    loadmat = common.need("scipy.io").loadmat
    if not path.is_file():
        raise Problem(
            str(path), "this annotation is not there", "Prepare again", missing=True
        ).error()
    try:
        stored = loadmat(str(path), variable_names=("S", "names"))
        label = np.asarray(stored["S"]).astype(np.int64)  # signed: S may be uint8 or double
        names = [str(np.squeeze(name)) for name in np.asarray(stored["names"]).ravel()]
    except Exception as error:  # scipy raises exceptions of many types on broken files
        what = f"holds no S and names ({type(error).__name__}: {error})"
        raise Problem(str(path), what, "Delete it and prepare again").error() from error
    if len(names) == 172 or names[:1] == ["unlabeled"]:
        raise Problem(
            str(path),
            "is COCO-Stuff 10K version 1.0 (172 names, unlabeled first), which numbers labels "
            "differently",
            "Get cocostuff-10k-v1.1.zip, delete the folder annotations, and prepare again",
        ).error()
    used = np.unique(label)
    wrong = [int(v) for v in used if v != 0 and v not in _CLASS]
    if label.ndim != 2 or wrong:
        what = f"has shape {label.shape} and ids {wrong[:5]} that version 1.1 does not use"
        raise Problem(str(path), what, "Get cocostuff-10k-v1.1.zip and prepare again").error()
    return np.where(label == 0, IGNORE, label).astype(np.uint8)


def convert_file(job: _Job) -> tuple[tuple[int, ...], bytes]:
    """Convert one `.mat` to a mask on disk; return its classes and the SHA-256 of its pixels."""
    label = read_stuff(job.source)
    common.put_mask(job.target, label)
    classes = tuple(_CLASS[int(v)] for v in np.unique(label) if v != IGNORE)
    return classes, hashlib.sha256(label.tobytes()).digest()
