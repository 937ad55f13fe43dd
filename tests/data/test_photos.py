"""Readers against real photos: `pytest --photos DIR`, a folder in VOC layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.masks import read_mask, write_mask
from wsss_lab.data.prepare import check


@pytest.fixture(scope="module")
def photos(request):
    folder = Path(request.config.getoption("--photos") or "no folder given")
    if not (folder / "JPEGImages").is_dir():
        pytest.skip("no folder of real photos: --photos DIR or WSSS_LAB_PHOTOS")
    return folder


def splits(folder):
    return sorted(path.stem for path in (folder / "ImageSets" / "Segmentation").glob("*.txt"))


def test_every_photo_and_mask_is_read(photos):
    assert splits(photos)
    assert check(photos) == []


def test_samples_agree_with_the_files(photos):
    for split in splits(photos):
        data = ImageTagDataset.voc(photos, split, tags="masks", masks=True)
        sample = data[len(data) // 2]
        with Image.open(photos / "JPEGImages" / f"{sample['name']}.jpg") as image:
            assert sample["image"].shape == (3, image.height, image.width)
        with Image.open(photos / "SegmentationClass" / f"{sample['name']}.png") as mask:
            stored = np.array(mask)
        assert (sample["mask"].numpy() == stored).all()
        present = sorted(set(np.unique(stored).tolist()) - {0, 255})
        assert (sample["tags"].nonzero().flatten() + 1).tolist() == present


def test_tags_from_masks_agree_with_the_json(photos):
    if not (photos / "image_labels.json").is_file():
        pytest.skip("this folder has no image_labels.json")
    for split in splits(photos):
        a, b = (ImageTagDataset.voc(photos, split, tags=t).tags for t in ("masks", "json"))
        assert (a == b).all()


def test_masks_survive_writing(photos, tmp_path):
    path = sorted((photos / "SegmentationClass").glob("*.png"))[0]
    label = read_mask(path, 21, check_palette=True)
    write_mask(tmp_path / "a.png", label)
    assert (read_mask(tmp_path / "a.png", 21, check_palette=True) == label).all()
