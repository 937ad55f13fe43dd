"""Resumable downloads, verified by size and checksum."""

import hashlib
import json
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wsss_lab.config import is_full, output_error, write_json
from wsss_lab.data.catalog import Archive
from wsss_lab.data.errors import Problem

CHUNK = 1 << 20
"""Bytes read at a time."""


def fetch(
    archive: Archive,
    folder: str | Path,
    download: bool = True,
    attempts: int = 4,
    pause: float = 2.0,
) -> Path:
    """Return the verified archive in `folder`, downloading it if it is missing.

    An interrupted download leaves `NAME.part`, and the next call resumes there (HTTP Range), or
    from the start if the server cannot. An archive without a published checksum is hashed (SHA-256)
    the first time; `CHECKSUMS.json` keeps the hash for all later comparisons.

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
    _require_http(archive.url)
    target.parent.mkdir(parents=True, exist_ok=True)
    _require_space(archive, part)
    for attempt in range(1, attempts + 1):
        try:
            _transfer(archive, part)
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


def _require_http(url: str) -> None:
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        what = "is no address that starts with http:// or https://"
        raise Problem(url, what, "Use one that does, or put the file in place yourself").error()


def _require_space(archive: Archive, part: Path) -> None:
    have = part.stat().st_size if part.is_file() else 0
    free = shutil.disk_usage(part.parent).free
    if archive.size is not None and free < archive.size - have:
        raise Problem(
            str(part.parent),
            f"has {free / 1e9:.1f} GB free, {archive.name} needs {(archive.size - have) / 1e9:.1f}",
            "Make room or choose another --root",
        ).error()


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Redirect handler that follows http and https only."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,  # an email.message.Message
        newurl: str,
    ) -> urllib.request.Request | None:
        _require_http(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(archive: Archive, part: Path) -> None:
    """Append the missing bytes to `part`, in one attempt.

    Raises:
        OSError: the connection failed or ended early; received bytes are kept.
    """
    have = part.stat().st_size if part.is_file() else 0
    if have and have == archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"User-Agent": "wsss-lab"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    opener = urllib.request.build_opener(_HttpOnly)
    try:
        response = opener.open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # the part is as long as the file or longer: keep it only if it is exactly that
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return
        part.unlink()
        raise ConnectionError("the partial file did not fit and was dropped") from error
    with response:
        resumed = response.status == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        _receive(response, part, have if resumed else 0, archive.name)


def _receive(response: HTTPResponse, part: Path, start: int, name: str) -> None:
    """Write the body to `part` from byte `start` on."""
    length = response.headers.get("Content-Length")
    total = None if length is None else start + int(length)
    with (
        part.open("r+b" if start else "wb") as file,
        tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=name, disable=None
        ) as progress,
    ):
        file.seek(start)
        file.truncate()
        while chunk := response.read(CHUNK):
            file.write(chunk)
            progress.update(len(chunk))
        end = file.tell()
    if total is not None and end < total:
        raise ConnectionError(f"the connection ended after {end} of {total} bytes")


def digest(path: str | Path, algorithm: str) -> str:
    """Return the hexadecimal hash of a file, read piecewise."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


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
    record = target.with_name("CHECKSUMS.json")
    known: dict[str, dict[str, Any]] = json.loads(record.read_text()) if record.is_file() else {}
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
