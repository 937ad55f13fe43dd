"""Resumable downloads, verified by size and checksum."""

import hashlib
import os
import shutil
import tarfile
import time
import urllib.error
import zipfile
from http.client import HTTPException
from pathlib import Path
from typing import Any

from wsss_lab.config import is_full, output_error, read_json, write_json
from wsss_lab.data.catalog import Archive
from wsss_lab.data.errors import Problem
from wsss_lab.data.prepare.transfer import origin_of, require_http, transfer

RECORD = "CHECKSUMS.json"
"""File of the checksums of verified archives, in their folder."""


def fetch(
    archive: Archive,
    folder: str | Path,
    download: bool = True,
    attempts: int = 4,
    pause: float = 2.0,
) -> Path:
    """Return the verified archive in `folder`, downloading it if it is missing.

    An interrupted download leaves `NAME.part`, and the next call resumes there (HTTP Range), or
    from the start if the server cannot or has another file by now. An archive without a published
    checksum is hashed (SHA-256) the first time; `CHECKSUMS.json` keeps the hash for all later
    comparisons.

    Args:
        archive: the archive.
        folder: its folder; made if needed.
        download: False never downloads; the error for a missing archive then names its address.
        attempts: number of connections tried.
        pause: seconds before the second attempt; doubles with each.

    Raises:
        DataError: missing and not downloaded, or not the right file.
    """
    target = Path(folder) / archive.name
    if target.is_file():
        verify(archive, target)
        return target
    part = target.with_name(target.name + ".part")
    if not download:
        raise _instructions(archive, target, "it is not there").error()
    require_http(archive.url)
    target.parent.mkdir(parents=True, exist_ok=True)
    _require_space(archive, part)
    for attempt in range(1, attempts + 1):
        try:
            transfer(archive, part)
            break
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and is_full(error, part):
                raise output_error(part, error) from error  # another attempt changes nothing
            # 4xx (no such file, not allowed): another attempt changes nothing
            refused = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if refused or attempt == attempts:
                problem = _instructions(archive, target, f"the download failed ({error})")
                raise problem.error() from error
            time.sleep(pause * 2 ** (attempt - 1))
    verify(archive, part, target)
    os.replace(part, target)
    origin_of(part).unlink(missing_ok=True)
    return target


def _instructions(archive: Archive, target: Path, what: str) -> Problem:
    size = "" if archive.size is None else f"{archive.size} bytes, "
    checksum = f"MD5 {archive.md5}" if archive.md5 else "no published checksum"
    return Problem(
        str(target),
        f"{archive.about}: {what}",
        f"Get {archive.url} ({size}{checksum}) by any means and put it at {target.resolve()}, or "
        "run again with a network: a broken download goes on where it stopped",
        missing=True,
    )


def _require_space(archive: Archive, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    free = shutil.disk_usage(part.parent).free
    if archive.size is not None and free < archive.size - have:
        raise Problem(
            str(part.parent),
            f"has {free / 1e9:.1f} GB free, {archive.name} needs {(archive.size - have) / 1e9:.1f}",
            "Make room or choose another --root",
        ).error()


def digest(path: str | Path, algorithm: str) -> str:
    """Return the hexadecimal hash of a file, read piecewise."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def read_checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a folder's `CHECKSUMS.json`; none if it is not there.

    Raises:
        DataError: it is damaged.
    """
    record = folder / RECORD
    if not record.is_file():
        return {}
    try:
        known = read_json(record, "")
    except ValueError as error:
        raise Problem(
            str(record), f"is damaged ({error})", "Delete it and run again"
        ).error() from error
    if not all(isinstance(entry, dict) for entry in known.values()):
        raise Problem(str(record), "is no list of checksums", "Delete it and run again").error()
    return known


def verify(archive: Archive, path: Path, target: Path | None = None) -> None:
    """Compare size and checksum of a file with the catalogue, or with the first file recorded.

    Args:
        archive: the expected archive.
        path: the file.
        target: its final name, if `path` is a temporary one.

    Raises:
        DataError: it is another file.
    """
    target = target or path
    size = path.stat().st_size
    record = target.with_name(RECORD)
    known = read_checksums(record.parent)
    seen = known.get(archive.name, {})
    expected = {"size": archive.size or seen.get("size"), "md5": archive.md5}
    if archive.md5 is None:
        expected["sha256"] = seen.get("sha256")
    found: dict[str, Any] = {"size": size}
    if expected["size"] in (None, size):
        found |= {a: digest(path, a) for a in ("md5" if archive.md5 else "sha256",)}
    for key, value in found.items():
        if expected.get(key) not in (None, value):
            against = "as published" if key == "md5" or archive.size else "as when first seen"
            raise Problem(
                str(path),
                f"is not {archive.name}: {key} is {value}, expected {expected[key]} ({against})",
                f"Delete it (and what {record} says of it) and run again: {archive.url}",
            ).error()
    if archive.md5 is None and not (zipfile.is_zipfile(path) or tarfile.is_tarfile(path)):
        # an error page in place of the file must not become the checksum to compare with
        what = "is neither a zip nor a tar file, or not a whole one"
        raise Problem(str(path), what, "Delete it and run again").error()
    source = "published" if archive.md5 else "computed from the first file seen; none is published"
    if {key: seen.get(key) for key in found} != found:
        known[archive.name] = {**found, "url": archive.url, "checksum_source": source}
        write_json(record, known)
