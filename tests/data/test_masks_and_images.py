import numpy as np
import pytest
from official_archives import encoded, jpeg, palette_png
from PIL import Image

from wsss_lab.data.catalog import voc_palette
from wsss_lab.data.errors import DataError, MissingFileError
from wsss_lab.data.images import read_image, read_orientation
from wsss_lab.data.masks import read_mask, write_mask

LABEL = np.array([[0, 1, 20], [255, 7, 7]], dtype=np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_masks_come_back_as_written(tmp_path, dtype):
    write_mask(tmp_path / "deep" / "a.png", LABEL.astype(dtype))
    assert (read_mask(tmp_path / "deep" / "a.png", 21, check_palette=True) == LABEL).all()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["a.png"]
    with Image.open(tmp_path / "deep" / "a.png") as image:
        assert image.mode == "P"
        assert (np.array(image.convert("RGB")) == voc_palette()[LABEL]).all()


@pytest.mark.parametrize(
    "label",
    [LABEL.astype(np.float32), LABEL[None], np.array([[-1, 0]]), np.array([[256]]), LABEL[:0]],
    ids=["float", "3-d", "negative", "256", "empty"],
)
def test_unwritable_labels(tmp_path, label):
    with pytest.raises(ValueError, match="label must be"):
        write_mask(tmp_path / "a.png", label)


def test_grey_masks_are_read(tmp_path):
    Image.fromarray(LABEL).save(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png", 21, check_palette=True) == LABEL).all()


def bad_masks():
    grey = Image.fromarray(LABEL)
    yield "RGB", encoded(grey.convert("RGB"), "PNG"), "image mode RGB"
    yield "16 bit", encoded(Image.fromarray(LABEL.astype(np.uint16)), "PNG"), "image mode I;16"
    yield "JPEG", encoded(Image.fromarray(np.zeros((8, 8), np.uint8)), "JPEG"), "lossy"
    yield "truncated", palette_png(np.tile(LABEL, (40, 40)))[:-40], "cannot be read"
    yield "no image", b"hello", "cannot be read"
    other = Image.fromarray(LABEL)
    other.putpalette(np.roll(voc_palette(), 1, axis=0).tobytes())
    yield "palette", encoded(other, "PNG"), "palette is not VOC's"


@pytest.mark.parametrize(("data", "text"), [pytest.param(*b[1:], id=b[0]) for b in bad_masks()])
def test_bad_masks_name_file_and_remedy(tmp_path, data, text):
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with pytest.raises(DataError, match=text) as caught:
        read_mask(path, 21, check_palette=True)
    assert str(path) in str(caught.value)


def test_unknown_ids_are_listed(tmp_path):
    write_mask(tmp_path / "a.png", LABEL)
    with pytest.raises(DataError, match=r"class ids \[7, 20\], expected 0..6 or 255"):
        read_mask(tmp_path / "a.png", 7)


def test_missing_files_are_also_file_not_found(tmp_path):
    for read in (read_image, lambda path: read_mask(path, 2)):
        with pytest.raises(MissingFileError, match="not there") as caught:
            read(tmp_path / "a.png")
        assert isinstance(caught.value, FileNotFoundError)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "LA", "YCbCr"])
def test_every_kind_of_photo_becomes_rgb(tmp_path, mode):
    form = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    photo = Image.new("RGB", (5, 4), (204, 51, 0)).convert(mode)
    (tmp_path / "a").write_bytes(encoded(photo, form))
    image = read_image(tmp_path / "a")
    luma = round(0.299 * 204 + 0.587 * 51)
    expected = (luma, luma, luma) if mode in ("L", "LA") else (204, 51, 0)
    assert image.shape == (4, 5, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - expected).max() <= 3  # JPEG rounds


def test_photos_with_more_than_8_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 4000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="more than 8 bits"):
        read_image(tmp_path / "a.png")


def test_truncated_photos_are_refused(tmp_path):
    data = jpeg(64, 64)
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.jpg.*truncated"):
        read_image(tmp_path / "a.jpg")


def turned(path, orientation, size=(8, 4), color=0):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, color).save(path, exif=exif)


def test_pixels_are_taken_as_stored_whatever_exif_says(tmp_path):
    turned(tmp_path / "a.jpg", 6)  # the camera was held on its side
    assert read_image(tmp_path / "a.jpg").shape == (4, 8, 3)
    assert read_orientation(tmp_path / "a.jpg") == 6
    Image.new("RGB", (8, 4)).save(tmp_path / "b.png")
    assert read_orientation(tmp_path / "b.png") == 1
