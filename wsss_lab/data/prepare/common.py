"""Shared steps of all preparations: safe extraction, parallel conversion, a record of results."""

import hashlib
import importlib
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any, TypeVar

from tqdm import tqdm

from wsss_lab.data.catalog import ARCHIVES, DATASETS, Archive
from wsss_lab.data.errors import Problem
from wsss_lab.data.prepare.download import fetch
from wsss_lab.data.workers import start_worker

RECORD = "prepared.json"
"""File name of the record: derived files, rules and source archives."""

BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error)
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
    kind: str, root: Path, download: bool, archives: Mapping[str, Archive] | None
) -> dict[str, Path]:
    """Return all archives of a data set, verified, in `root/archives`."""
    catalogue = archives or ARCHIVES
    names = DATASETS[kind].archives
    return {name: fetch(catalogue[name], root / "archives", download) for name in names}


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
    """
    seen: set[str] = set()
    try:
        with tarfile.open(path) as tar:
            for member in progress(tar, f"unpack {path.name}"):
                _refuse_unsafe(path, member.name)
                prefix = next((w for w in wanted if member.name.startswith(w + "/")), None)
                if prefix is None or not member.isfile():
                    continue
                seen.add(prefix)
                file = target / member.name
                if not (file.is_file() and file.stat().st_size == member.size):
                    tar.extract(member, target, filter="data")
    except BROKEN as error:
        raise broken(path, error).error() from error
    return seen


def unpack_zip(path: Path, target: Path, wanted: Sequence[str]) -> set[str]:
    """Extract a zip file as `unpack_tar` does; `wanted` may name single files too."""
    seen: set[str] = set()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in progress(archive.infolist(), f"unpack {path.name}"):
                name = info.filename
                _refuse_unsafe(path, name)
                prefix = next((w for w in wanted if name == w or name.startswith(w + "/")), None)
                if prefix is None or info.is_dir():
                    continue
                seen.add(prefix)
                file = target / name
                if file.is_file() and file.stat().st_size == info.file_size:
                    continue
                file.parent.mkdir(parents=True, exist_ok=True)
                part = file.with_name(f".{file.name}.tmp")
                with archive.open(info) as source, part.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                os.replace(part, file)
    except BROKEN as error:
        raise broken(path, error).error() from error
    return seen


def convert(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, label: str
) -> list[Result]:
    """Return `[work(job) for job in jobs]`, computed in processes if `workers > 1`."""
    if workers <= 1:
        return [work(job) for job in progress(jobs, label)]
    parent = (os.getpid(),)
    with ProcessPoolExecutor(workers, get_context("spawn"), start_worker, parent) as pool:
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
    except (OSError, ValueError, KeyError, TypeError):
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
    path.write_text(json.dumps(record, indent=2) + "\n")


def archive_hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the recorded checksums of verified archives."""
    known = json.loads((folder / "CHECKSUMS.json").read_text())
    return {n: known[n].get("md5") or known[n]["sha256"] for n in names}


def masks_digest(masks: Iterable[bytes]) -> str:
    """Return one checksum of a split's masks: SHA-256 over the SHA-256 of each, in list order."""
    total = hashlib.sha256()
    for mask in masks:
        total.update(mask)
    return total.hexdigest()
