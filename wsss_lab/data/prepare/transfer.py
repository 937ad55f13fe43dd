"""One attempt of a download: goes on where the last one ended, never with another file's end."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wsss_lab.config import write_json
from wsss_lab.data.catalog import Archive
from wsss_lab.data.errors import Problem

CHUNK = 1 << 20
"""Bytes read at a time."""


def require_http(url: str) -> None:
    """Refuse addresses that are neither http nor https.

    Raises:
        DataError: it is another scheme.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        what = "is no address that starts with http:// or https://"
        raise Problem(url, what, "Use one that does, or put the file in place yourself").error()


class _HttpOnly(urllib.request.HTTPRedirectHandler):
    """Redirect handler that follows http and https only, and never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,  # an email.message.Message
        newurl: str,
    ) -> urllib.request.Request | None:
        require_http(newurl)
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            what = f"leads to {newurl}, which anyone on the way could change"
            raise Problem(req.full_url, what, "Put the file in place yourself").error()
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def origin_of(part: Path) -> Path:
    """File beside a partial download that holds the mark of the version it is of."""
    return part.with_name(part.name + ".json")


def _mark(headers: Message) -> str:
    """Mark of a file's version: a strong entity tag, else the time of its last change, else ""."""
    tag = headers.get("ETag") or ""
    return tag if tag.startswith('"') else headers.get("Last-Modified") or ""


def _known_mark(part: Path) -> str:
    try:
        mark = json.loads(origin_of(part).read_text("utf-8"))["mark"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    # it becomes a header: a line break in it would begin another one
    return mark if isinstance(mark, str) and mark.isascii() and mark.isprintable() else ""


def transfer(archive: Archive, part: Path) -> None:
    """Append the missing bytes to `part`, in one attempt.

    Without a mark of its version, and without a checksum that would find a mixture, a part is
    fetched anew.

    Raises:
        OSError: the connection failed or ended early, or the server has another file by now;
            received bytes of one version are kept.
        DataError: it is larger than the catalogue allows.
    """
    have = part.stat().st_size if part.is_file() else 0
    if have and have == archive.size and archive.md5:
        return
    mark = _known_mark(part)
    if have and not (mark or archive.md5):
        have = 0
    request = urllib.request.Request(archive.url, headers={"User-Agent": "wsss-lab"})
    # also from byte 0 where a part was dropped: a server may answer ranges from another copy
    if have or origin_of(part).is_file():
        request.add_header("Range", f"bytes={have}-")
    if have and mark:
        request.add_header("If-Range", mark)
    try:
        response = urllib.request.build_opener(_HttpOnly).open(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # the part is as long as the file or longer: keep it only if it is exactly that
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return
        part.unlink()
        raise ConnectionError("the partial file did not fit and was dropped") from error
    with response:
        _take(response, archive, part, have, mark)


def _take(response: HTTPResponse, archive: Archive, part: Path, have: int, mark: str) -> None:
    """Receive the body where it belongs, once it is known to be of the part's version."""
    found = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)",
                         response.headers.get("Content-Range", ""))  # fmt: skip
    resumed = response.status == 206 and found is not None and int(found[1]) == have
    total = int(found[2]) if resumed and found and found[2] != "*" else None
    other = total is not None and archive.size not in (None, total)
    if have and resumed and (other or (mark and _mark(response.headers) not in ("", mark))):
        part.unlink()
        raise ConnectionError("the server has another file by now; the part of the old one is gone")
    start = have if resumed else 0
    length = response.headers.get("Content-Length") or ""
    if total is None and re.fullmatch(r"\d{1,18}", length):
        total = start + int(length)
    limit = archive.size if archive.size is not None else archive.limit
    if total is not None and total > limit:
        raise _too_large(archive, total, limit)
    if not start:
        write_json(origin_of(part), {"mark": _mark(response.headers), "url": archive.url})
    _receive(response, archive, part, start, total, limit)


def _too_large(archive: Archive, size: int, limit: int) -> Exception:
    return Problem(
        archive.url,
        f"sends {size} bytes or more, {archive.name} has at most {limit}",
        "It is another file; put the right one in place yourself",
    ).error()


def _receive(
    response: HTTPResponse, archive: Archive, part: Path, start: int, total: int | None, limit: int
) -> None:
    """Write the body to `part` from byte `start` on."""
    with (
        part.open("r+b" if start else "wb") as file,
        tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=archive.name, disable=None
        ) as progress,
    ):
        file.seek(start)
        file.truncate()
        while chunk := response.read(CHUNK):
            if file.tell() + len(chunk) > limit:
                raise _too_large(archive, file.tell() + len(chunk), limit)
            file.write(chunk)
            progress.update(len(chunk))
        end = file.tell()
    if total is not None and end < total:
        raise ConnectionError(f"the connection ended after {end} of {total} bytes")
