"""One rule for every command: which files are pictures, and how text and names are read."""

import struct
import unicodedata
import zlib

import numpy as np
import pytest
from official_archives import encoded
from PIL import Image, features

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.files import list_pictures, read_text, readable_suffixes
from wsss_lab.data.images import read_image
from wsss_lab.data.masks import write_mask
from wsss_lab.data.name_lists import name_of_line, read_list

NFC = unicodedata.normalize("NFC", "für")
NFD = unicodedata.normalize("NFD", "für")


def test_pictures_by_ending_hidden_files_passed_over_others_named(tmp_path):
    photo = Image.new("RGB", (4, 4), (9, 200, 30))
    for name in ("a.jpg", "b.JFIF", "c.tif", "d.tiff", "e.webp", "f.bmp", "g.png", "h.jpeg"):
        form = {"b.JFIF": "JPEG"}.get(name)
        photo.save(tmp_path / name, form)
    for name in ("._a.jpg", ".DS_Store", "notes.txt", "raw.cr2"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "folder.png").mkdir()
    found = list_pictures(tmp_path)
    assert list(found.files) == list("abcdefgh")
    assert found.skipped == ("notes.txt", "raw.cr2")
    assert "2 files" in found.skipped_note()
    assert all(read_image(path).shape == (4, 4, 3) for path in found.files.values())


def test_formats_count_where_pillow_can_open_them(tmp_path):
    assert (".avif" in readable_suffixes()) == features.check("avif")
    if features.check("avif"):
        Image.new("RGB", (16, 16), (200, 10, 10)).save(tmp_path / "a.avif")
        assert read_image(list_pictures(tmp_path).files["a"])[0, 0, 0] > 150
    (tmp_path / "b.heic").write_bytes(b"x")
    known = ".heic" in readable_suffixes()
    assert ("b.heic" in list_pictures(tmp_path).skipped) != known
    if not known:
        assert (
            ".heic cannot be opened by this installation" in list_pictures(tmp_path).skipped_note()
        )


def deep_png(pixels):
    """A PNG of 16 bits a channel, which Pillow cannot write itself."""
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, kind, 0, 0, 0)
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + name + body
        chunks += struct.pack(">I", zlib.crc32(name + body))
    return chunks


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_a_channel_are_refused_and_not_read_as_nearly_black(tmp_path, channels):
    photo = np.random.default_rng(0).integers(0, 4096, (8, 8, channels))
    (tmp_path / "a.png").write_bytes(deep_png(photo))
    with pytest.raises(DataError, match=r"a\.png: has 16 bits a channel.*Convert it to 8 bits"):
        read_image(tmp_path / "a.png")


def test_deep_tiffs_are_refused_too(tmp_path):
    Image.fromarray(np.full((4, 4), 3000, np.uint16)).save(tmp_path / "a.tif")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "b.tif")
    for name in ("a.tif", "b.tif"):
        with pytest.raises(DataError, match="more than 8 bits"):
            read_image(tmp_path / name)
    Image.new("RGB", (4, 4), (1, 2, 3)).save(tmp_path / "c.tif")
    assert read_image(tmp_path / "c.tif")[0, 0].tolist() == [1, 2, 3]


def broken_files():
    whole = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), "PNG")
    header = bytearray(whole)
    header[8:12] = (5).to_bytes(4, "big")
    yield "empty", b""
    yield "text", b"hello"
    yield "short header", bytes(header)
    yield "cut", whole[:200]
    yield "tiff without end", encoded(Image.new("RGB", (9, 9)), "TIFF")[:20]
    yield "apple double", b"\0\5\26\7\0\2\0\0Mac OS X        "


@pytest.mark.parametrize("data", [pytest.param(d, id=n) for n, d in broken_files()])
def test_whatever_is_wrong_with_a_picture_is_one_line_with_its_name(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=r"a\.png") as caught:
        read_image(tmp_path / "a.png")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("a", "a"),
        ("a.b", "a.b"),
        ("images/a.JPG", "a"),
        (r"images\a.tif", "a"),
        ("/JPEGImages/a.jpg /SegmentationClassAug/a.png", "a"),
        ("my photos/my cat.jpg my masks/my cat.png", "my cat"),
        ("my cat 2", "my cat 2"),
        ("my cat.jpg", "my cat"),
        ("2008_000002 -1", "2008_000002"),
        ("2008_000002  1", "2008_000002"),
    ],
)
def test_a_line_of_a_list_is_a_name_which_may_hold_spaces(line, name):
    assert name_of_line(line) == name


def test_a_name_that_exists_is_never_taken_apart():
    assert name_of_line("cat 1") == "cat"
    assert name_of_line("cat 1", have={"cat 1"}) == "cat 1"


def test_lists_with_byte_order_mark_and_any_line_ends(tmp_path):
    (tmp_path / "l.txt").write_bytes(b"\xef\xbb\xbfa\r\nmy b.jpg \r\n\r\nc")
    assert read_list(tmp_path / "l.txt") == ["a", "my b", "c"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_text_that_is_not_utf_8_is_named(tmp_path, encoding):
    (tmp_path / "l.txt").write_bytes("für\n".encode(encoding))
    with pytest.raises(DataError, match=r"l\.txt: is not UTF-8.*Save it as UTF-8"):
        read_list(tmp_path / "l.txt")
    with pytest.raises(DataError, match=r"l\.txt"):
        read_text(tmp_path / "l.txt")


@pytest.mark.parametrize("listed", [NFC, NFD])
@pytest.mark.parametrize("stored", [NFC, NFD])
def test_names_are_compared_in_one_unicode_form(tmp_path, listed, stored):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{stored}.png")
    write_mask(tmp_path / "masks" / f"{stored}.png", np.full((4, 4), 1))
    (tmp_path / "tags.csv").write_text(f"name,{NFD}\n{listed},1\n", "utf-8")
    data = ImageTagDataset.folder(
        tmp_path / "images", tmp_path / "tags.csv", tmp_path / "masks", classes=[NFC]
    )
    assert data.names == [NFC]
    assert data[0]["mask"].unique().tolist() == [1]
