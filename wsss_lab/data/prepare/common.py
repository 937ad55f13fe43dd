"""Shared steps of all preparations: safe extraction, parallel conversion, a record of results."""

import contextlib
import hashlib
import importlib
import json
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import IO, Any, TypeVar

import numpy as np
from tqdm import tqdm

from wsss_lab.config import OutputError, output_error, write_text_atomically
from wsss_lab.data.catalog import ARCHIVES, DATASETS, Archive
from wsss_lab.data.errors import DataError, Problem
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

BROKEN = (
    *(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    # encrypted members, unknown compression, headers that contradict themselves
    *(RuntimeError, ValueError, OverflowError, struct.error, IndexError),
)
"""Exceptions of the standard library for incomplete archives."""

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


def broken(path: Path, error: Exception) -> Problem:
    """Return the problem of an archive that cannot be read to its end."""
    return Problem(
        str(path), f"cannot be unpacked ({error})", "Delete it and run again to fetch it anew"
    )


def require_members(path: Path, found: Iterable[str], needed: Iterable[str]) -> None:
    """Check that an archive has all required folders and files.

    Raises:
        DataError: one is missing.
    """
    lacking = sorted(set(needed) - set(found))
    if lacking:
        raise Problem(
            str(path),
            f"holds no {lacking[0]}, so it is another archive than expected",
            "Get the archive that the catalogue names (wsss_lab.data.catalog.ARCHIVES)",
        ).error()


MEMBERS = 1_000_000
"""Most members of an archive; COCO's have 83,000."""
UNPACKED = 100_000_000_000
"""Most bytes that an archive may unpack to."""
HARMLESS = 500_000_000
"""Up to so many bytes any compression is accepted."""
RATIO = 50
"""Most bytes unpacked per byte of the archive beyond that; COCO's annotations reach 4."""


def require_bounds(path: Path, members: int, unpacked: int) -> None:
    """Refuse an archive that would fill the disk.

    Args:
        path: the archive.
        members: so many are known of.
        unpacked: bytes of these members.

    Raises:
        DataError: too many, too large, or out of proportion to the archive.
    """
    size = max(path.stat().st_size, 1)
    if members > MEMBERS or unpacked > UNPACKED or unpacked > max(HARMLESS, RATIO * size):
        raise Problem(
            str(path),
            f"would unpack to {members} members and {unpacked / 1e9:.1f} GB or more from "
            f"{size / 1e9:.3f} GB",
            "Do not use this archive; get the one that the catalogue names",
        ).error()


def _refuse_unsafe(path: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if ".." in parts or name.startswith(("/", "\\")) or (parts and ":" in parts[0]):
        raise Problem(
            str(path), f"holds the unsafe path {name!r}", "Do not use this archive"
        ).error()


def unpack_tar(path: Path, target: Path, wanted: Sequence[str]) -> set[str]:
    """Extract the members under the folders `wanted`; existing files are kept.

    Returns:
        the folders of `wanted` that were found.

    Raises:
        DataError: a broken archive, or a member that points out of `target`.
        OutputError: a file cannot be written; nothing half-written is left.
    """
    seen: set[str] = set()
    try:
        with tarfile.open(path) as tar:
            members = unpacked = 0
            for member in progress(tar, f"unpack {path.name}"):
                members, unpacked = members + 1, unpacked + member.size
                require_bounds(path, members, unpacked)
                _refuse_unsafe(path, member.name)
                prefix = next((w for w in wanted if member.name.startswith(w + "/")), None)
                if prefix is None or not member.isfile():
                    continue
                seen.add(prefix)
                file = target / member.name
                if not (file.is_file() and file.stat().st_size == member.size):
                    source = tar.extractfile(member)
                    assert source is not None  # a file has content
                    _extract(source, file)
    except (DataError, OutputError):
        raise
    except BROKEN as error:
        raise broken(path, error).error() from error
    return seen


def unpack_zip(path: Path, target: Path, wanted: Sequence[str]) -> set[str]:
    """Extract a zip file as `unpack_tar` does; `wanted` may name single files too."""
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            require_bounds(path, len(infos), sum(info.file_size for info in infos))
            for info in progress(infos, f"unpack {path.name}"):
                name = info.filename
                _refuse_unsafe(path, name)
                prefix = next((w for w in wanted if name == w or name.startswith(w + "/")), None)
                if prefix is None or info.is_dir():
                    continue
                seen.add(prefix)
                file = target / name
                if file.is_file() and file.stat().st_size == info.file_size:
                    continue
                with archive.open(info) as source:
                    _extract(source, file)
    except (DataError, OutputError):
        raise
    except BROKEN as error:
        raise broken(path, error).error() from error
    return seen


def _extract(source: IO[bytes], file: Path) -> None:
    """Copy a member to its place: whole or not at all.

    Raises:
        OutputError: it cannot be written, for example as the disk is full.
        one of `BROKEN`: the archive is broken.
    """
    part = file.with_name(f".{file.name}.tmp")
    try:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            sink = part.open("wb")
        with contextlib.ExitStack() as stack:
            stack.enter_context(writing(file))  # closing writes, too
            stack.enter_context(sink)
            while piece := _read(source):
                sink.write(piece)
        with writing(file):
            os.replace(part, file)
    except BaseException:  # Ctrl-C and SIGTERM too
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _read(source: IO[bytes]) -> bytes:
    """Read the next piece of a member; an error is the archive's, not of the place it goes to."""
    try:
        return source.read(1 << 20)
    except OSError as error:
        raise zipfile.BadZipFile(str(error)) from error


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
