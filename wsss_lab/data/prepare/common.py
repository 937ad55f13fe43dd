"""Shared steps of all preparations: archives at hand, parallel conversion, a record of results."""

import contextlib
import hashlib
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

from wsss_lab.config import output_error, write_text_atomically
from wsss_lab.data.catalog import ARCHIVES, DATASETS, Archive
from wsss_lab.data.errors import Problem
from wsss_lab.data.masks import write_mask
from wsss_lab.data.prepare.download import fetch, read_checksums
from wsss_lab.data.tags import Tags, write_tags
from wsss_lab.data.workers import worker_pool

RECORD = "prepared.json"
"""File name of the record: derived files, rules and source archives."""

_VOC = "VOCdevkit/VOC2012"
DERIVED = (
    *("tags.csv", "tags_*.csv", "masks/*"),
    *(f"{_VOC}/{part}" for part in ("tags.csv", "SegmentationClassAug/*")),
    f"{_VOC}/ImageSets/Segmentation/train_aug.txt",
)
"""Files that preparations make of the archives."""

Job = TypeVar("Job")
Result = TypeVar("Result")


def need(module: str) -> ModuleType:
    """Import a module of the extra `data`.

    Raises:
        ImportError: it is not installed; the message names the command.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f'{name} is needed here: pip install "wsss-lab[data]"') from error


def progress(items: Iterable[Job], label: str, total: int | None = None) -> Iterable[Job]:
    """Show a progress bar on a terminal, nothing elsewhere."""
    return tqdm(items, desc=label, total=total, disable=None)


def fetch_all(
    kind: str,
    root: Path,
    download: bool,
    archives: Mapping[str, Archive] | None,
    unverified: bool = True,
) -> dict[str, Path]:
    """Return all archives of a data set, verified, in `root/archives`.

    Raises:
        DataError: an archive cannot be had (see `fetch`), or the folder holds somebody's own data
            set; or, without `unverified`, an archive would be downloaded that no published checksum
            verifies.
    """
    _require_own(root)
    catalogue = archives or ARCHIVES
    names = DATASETS[kind].archives
    for archive in (catalogue[name] for name in names):
        target = root / "archives" / archive.name
        if download and not unverified and archive.md5 is None and not target.is_file():
            raise Problem(
                str(target),
                f"{archive.about}: no checksum of it is published, so nothing tells whether "
                f"{archive.url} sends the right file",
                "Run again with --accept-unverified to take what comes (its SHA-256 is kept), or "
                "put the file there yourself",
                missing=True,
            ).error()
    return {name: fetch(catalogue[name], root / "archives", download) for name in names}


def _require_own(root: Path) -> None:
    """Refuse a folder with tags or masks that no preparation has written: it would replace them."""
    if (root / "archives" / "CHECKSUMS.json").is_file():
        return
    for pattern in DERIVED:
        for path in sorted(root.glob(pattern)):
            raise Problem(
                str(path),
                "is there already, and not from here; it would be replaced",
                "Choose a new folder, or move it away",
            ).error()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an `OSError` is of the file that is written.

    Raises:
        OutputError: names the file, and whether the disk is full.
    """
    try:
        yield
    except OSError as error:
        raise output_error(path, error) from error


def put_mask(path: str | Path, label: np.ndarray) -> None:
    """`write_mask`; a full disk is not taken for a broken archive.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(Path(path)):
        write_mask(path, label)


def put_tags(path: Path, tags: Tags, classes: Sequence[str]) -> None:
    """`write_tags`, which leaves nothing behind where the disk is full.

    Raises:
        OutputError: it cannot be written.
    """
    with writing(path):
        write_tags(path, tags, classes)


def convert(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, label: str
) -> list[Result]:
    """Return `[work(job) for job in jobs]`, computed in processes if `workers > 1`."""
    if workers <= 1:
        return [work(job) for job in progress(jobs, label)]
    with worker_pool(workers, get_context("spawn")) as pool:
        results = pool.map(work, jobs, chunksize=max(1, min(64, len(jobs) // workers)))
        return list(progress(results, label, len(jobs)))


def require_counts(root: Path, kind: str, found: Mapping[str, int], published: bool) -> None:
    """Check the numbers of images against the published ones, if the archives are official.

    Raises:
        DataError: a split has another size.
    """
    for split, number in DATASETS[kind].counts.items() if published else ():
        if found.get(split) != number:
            raise Problem(
                str(root),
                f"split {split} came out with {found.get(split)} images, published are {number}",
                "Delete what was unpacked there (not the folder archives) and run again",
            ).error()


def already(path: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether the record at `path` holds the same settings."""
    try:
        stored = json.loads(path.read_text())
        return stored["settings"] == json.loads(json.dumps(settings))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def write_record(
    path: Path,
    settings: Mapping[str, Any],
    counts: Mapping[str, int],
    tag_files: Iterable[Path],
    masks: Mapping[str, str] | None = None,
) -> None:
    """Write the record: rules, class order, counts, checksums of tag files and of mask pixels."""
    record = {
        "settings": settings,
        "counts": counts,
        "sha256": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in tag_files},
        "masks_sha256": masks or {},
    }
    write_text_atomically(path, json.dumps(record, indent=2) + "\n")


def archive_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the recorded checksums of verified archives."""
    known = read_checksums(folder)
    return {n: known[n].get("md5") or known[n]["sha256"] for n in names}


def masks_digest(masks: Iterable[bytes]) -> str:
    """Return one checksum of a split's masks: SHA-256 over the SHA-256 of each, in list order."""
    total = hashlib.sha256()
    for mask in masks:
        total.update(mask)
    return total.hexdigest()
