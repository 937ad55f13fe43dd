"""The packaged photos: every file is credited, small, and fits its tags and mask."""

import pytest
from PIL import Image

from wsss_lab.data.catalog import VOC_CLASSES
from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.open_photos import FOLDER, open_photo, open_photos
from wsss_lab.data.prepare import check
from wsss_lab.data.tags import read_tags


def stems(folder):
    return {path.stem for path in (FOLDER / folder).iterdir()}


def test_every_file_is_credited_and_nothing_else_is_there():
    names = {photo.name for photo in open_photos()}
    assert names == stems("JPEGImages")
    assert names == set(read_tags(FOLDER / "tags.csv", VOC_CLASSES)[1])
    assert stems("SegmentationClass") == {p.name for p in open_photos(masked_only=True)} < names
    for listed, expected in (("all", names), ("masked", stems("SegmentationClass"))):
        text = (FOLDER / f"ImageSets/Segmentation/{listed}.txt").read_text()
        assert text.split() == sorted(expected)


@pytest.mark.parametrize("photo", open_photos(), ids=lambda photo: photo.name)
def test_author_source_licence_and_changes(photo):
    licence = photo.licence.replace("-", " ").lower()
    free = licence in ("public domain", "no known copyright restrictions")
    assert free or licence in ("cc0 1.0", "cc by 2.0", "cc by sa 2.0")
    assert photo.licence_url or licence == "public domain"
    assert photo.author
    assert "resized" in photo.changes
    assert "http" in photo.source or "scikit-image" in photo.source
    for part in (photo.author, photo.licence, photo.source, photo.changes):
        assert part in photo.credit


def test_at_most_24_photos_of_47_kb_and_1_2_mb_in_all():
    sizes = [photo.path.stat().st_size for photo in open_photos()]
    assert len(sizes) <= 24
    assert max(sizes) <= 47 * 1024
    assert sum(path.stat().st_size for path in FOLDER.rglob("*.*")) <= 1.2e6


@pytest.mark.parametrize("photo", open_photos(masked_only=True), ids=lambda photo: photo.name)
def test_masks_have_the_size_of_their_photo_and_the_classes_of_its_tags(photo):
    mask = photo.mask()
    assert mask.shape == photo.image().shape[1:]
    found = {int(v) for v in mask.unique() if v not in (0, 255)}
    assert found <= {tag + 1 for tag in photo.tags}
    assert found


def test_photos_cover_17_classes_and_carry_no_metadata():
    assert len({tag for photo in open_photos() for tag in photo.tags}) == 17
    for photo in open_photos():
        with Image.open(photo.path) as image:
            assert max(image.size) == 320
            assert not image.getexif()


def test_the_folder_is_a_data_set_in_voc_layout():
    unmasked = [problem.file for problem in check(FOLDER)]
    assert len(unmasked) == len(open_photos()) - len(open_photos(masked_only=True))
    assert not set(unmasked) & {str(photo.path) for photo in open_photos(masked_only=True)}
    assert len(ImageTagDataset.voc(FOLDER, "all")) == len(open_photos())
    assert len(ImageTagDataset.voc(FOLDER, "masked")) == len(open_photos(masked_only=True))


def test_errors_name_what_there_is():
    with pytest.raises(ValueError, match="gcompris_animals_cow"):
        open_photo("cow")
    with pytest.raises(FileNotFoundError, match="masked_only"):
        open_photo("gcompris_animals_cow").mask()
