"""Unpack archives without trust in them: paths, sizes and ends are checked."""

import contextlib
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO

from wsss_lab.config import OutputError
from wsss_lab.data.errors import DataError, Problem
from wsss_lab.data.prepare.common import progress, writing

BROKEN = (
    *(OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    # encrypted members, unknown compression, headers that contradict themselves
    *(RuntimeError, ValueError, OverflowError, struct.error, IndexError),
)
"""Exceptions of the standard library for incomplete archives."""


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
