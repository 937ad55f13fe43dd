"""A full disk is named as such wherever data is prepared, and leaves no half file."""

import errno
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from wsss_lab.config import OutputError, is_full, write_atomically, write_text_atomically
from wsss_lab.data.catalog import Archive
from wsss_lab.data.errors import DataError
from wsss_lab.data.masks import save_label, write_mask
from wsss_lab.data.prepare import common, download, unpack
from wsss_lab.data.tags import write_tags

SIZE = 3_000_000


class Full(io.RawIOBase):
    """A file on a disk with room for a megabyte."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        if self.file.tell() + len(data) > 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def close(self):
        self.file.close()
        super().close()

    def __getattr__(self, name):
        return getattr(self.file, name)


@pytest.fixture
def full_disk(monkeypatch):
    """Every file that is opened by `Path.open` for writing is on a full disk."""
    real = Path.open

    def opened(self, mode="r", *args, **options):
        file = real(self, mode, *args, **options)
        return Full(file) if mode == "wb" else file

    monkeypatch.setattr(Path, "open", opened)


def archive(folder, kind):
    path, content = (
        folder / f"a.{kind}",
        np.random.default_rng(0).integers(0, 256, SIZE, np.uint8).tobytes(),
    )
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("images/small.jpg", b"small")
            made.writestr("images/large.jpg", content)
    else:
        with tarfile.open(path, "w:gz") as made:
            for name, data in {"small": b"small", "large": content}.items():
                info = tarfile.TarInfo(f"images/{name}.jpg")
                info.size = len(data)
                made.addfile(info, io.BytesIO(data))
    return path


UNPACK = {"zip": unpack.unpack_zip, "tar": unpack.unpack_tar}


@pytest.mark.parametrize("kind", sorted(UNPACK))
def test_a_disk_that_fills_while_unpacking_is_named_and_holds_no_half_file(
    tmp_path, kind, full_disk
):
    source = archive(tmp_path, kind)
    with pytest.raises(OutputError, match=r"large.jpg: cannot be written \(disk full") as caught:
        UNPACK[kind](source, tmp_path / "out", ["images"])
    assert "elete" not in str(caught.value)
    left = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert left == ["small.jpg"]


@pytest.mark.parametrize("kind", sorted(UNPACK))
def test_unpacking_goes_on_when_there_is_room_again(tmp_path, kind):
    source = archive(tmp_path, kind)
    assert UNPACK[kind](source, tmp_path / "out", ["images"]) == {"images"}
    assert (tmp_path / "out/images/large.jpg").stat().st_size == SIZE


@pytest.mark.parametrize("kind", sorted(UNPACK))
def test_a_broken_archive_is_still_the_archives_fault(tmp_path, kind):
    source = archive(tmp_path, kind)
    data = source.read_bytes()
    middle = len(data) // 2
    flipped = data[: middle - 200] + bytes(400) + data[middle + 200 :]
    source.write_bytes(flipped if kind == "zip" else data[:middle])
    with pytest.raises(DataError, match=r"cannot be unpacked.*Delete it"):
        UNPACK[kind](source, tmp_path / "out", ["images"])
    assert not list((tmp_path / "out").rglob(".*"))


def no_room(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("write", ["mask", "label", "tags", "text", "json"])
def test_other_writers_name_a_full_disk_and_leave_nothing(tmp_path, monkeypatch, write):
    label, path = np.zeros((4, 4), np.uint8), tmp_path / "file"
    writers = {
        "mask": lambda: common.put_mask(path, label),
        "label": lambda: save_label(path, label),
        "tags": lambda: common.put_tags(path, {"a": (0,)}, ("cat",)),
        "text": lambda: write_text_atomically(path, "text"),
        "json": lambda: write_atomically(path, lambda file: no_room()),
    }
    monkeypatch.setattr(os, "replace", no_room)
    with pytest.raises(OutputError, match="disk full: No space left on device"):
        writers[write]()
    assert not list(tmp_path.iterdir())


def test_ctrl_c_while_writing_leaves_no_half_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", interrupted)
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_tags(tmp_path / "tags.csv", {}, ())
    with pytest.raises(KeyboardInterrupt):
        write_mask(tmp_path / "mask.png", np.zeros((4, 4), np.uint8))
    assert not list(tmp_path.iterdir())


def test_a_download_onto_a_full_disk_is_not_tried_again(tmp_path, monkeypatch):
    tried = []

    def transfer(*_):
        tried.append(1)
        no_room()

    monkeypatch.setattr(download, "transfer", transfer)
    wanted = Archive("a.zip", "https://example.org/a.zip", None, None, "", "an archive")
    with pytest.raises(OutputError, match="disk full"):
        download.fetch(wanted, tmp_path, pause=0)
    assert tried == [1]


def test_an_error_of_torch_is_a_full_disk_only_where_the_disk_is_full(tmp_path):
    assert not is_full(RuntimeError("unexpected pos"), tmp_path / "file")
    assert not is_full(OSError(errno.EACCES, "no"), tmp_path / "file")
