import pickle

import numpy as np
import pytest
import torch
from official_archives import encoded, jpeg, palette_png
from PIL import Image
from torch.utils.data import DataLoader

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError, MissingFileError
from wsss_lab.data.masks import write_mask


@pytest.fixture
def voc(tmp_path):
    """A data set in VOC layout with three classes of its own."""
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    for i, name in enumerate(("a", "b")):
        (tmp_path / "JPEGImages" / f"{name}.jpg").write_bytes(jpeg(6, 8, seed=i))
        label = np.zeros((6, 8), np.uint8)
        label[i, :3], label[5, 5:] = i + 2, 255
        write_mask(tmp_path / "SegmentationClass" / f"{name}.png", label)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\nb\n")
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    (tmp_path / "tags.csv").write_text("name,tags\na,dog\nb,bird;cat\n")
    return tmp_path


def test_sample_of_a_voc_layout(voc):
    data = ImageTagDataset.voc(voc, "train", masks=True)
    assert len(data) == 2
    assert data.classes == ("cat", "dog", "bird")
    sample = data[1]
    assert set(sample) == {"image", "tags", "name", "mask"}
    assert (sample["image"].dtype, sample["image"].shape) == (torch.uint8, (3, 6, 8))
    assert sample["image"].permute(1, 2, 0).is_contiguous()  # channels last, without a copy
    assert (sample["tags"].dtype, sample["tags"].tolist()) == (torch.float32, [1, 0, 1])
    assert sample["name"] == "b"
    assert (sample["mask"].dtype, sample["mask"].shape) == (torch.int64, (6, 8))
    assert sample["mask"].unique().tolist() == [0, 3, 255]
    with Image.open(voc / "JPEGImages" / "b.jpg") as image:
        assert (sample["image"].permute(1, 2, 0).numpy() == np.array(image)).all()


def test_no_masks_unless_asked(voc):
    for file in (voc / "SegmentationClass").iterdir():
        file.unlink()
    assert set(ImageTagDataset.voc(voc, "train")[0]) == {"image", "tags", "name"}
    with pytest.raises(MissingFileError, match=r"a\.png: no mask for 2 of 2 images"):
        ImageTagDataset.voc(voc, "train", masks=True)


def test_samples_do_not_share_memory_with_the_data_set(voc):
    data = ImageTagDataset.voc(voc, "train")
    data[0]["tags"].zero_()
    assert data[0]["tags"].tolist() == [0, 1, 0]


def test_loader_workers(voc):
    data = ImageTagDataset.voc(voc, "train", masks=True)
    names = [name for batch in DataLoader(data, num_workers=1) for name in batch["name"]]
    assert names == ["a", "b"]


def test_errors_survive_the_way_out_of_a_worker(voc):
    (voc / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(MissingFileError) as caught:
        ImageTagDataset.voc(voc, "train")
    for copy in (pickle.loads(pickle.dumps(caught.value)), caught.type(str(caught.value))):
        assert isinstance(copy, MissingFileError)
        assert str(copy) == str(caught.value)


def test_tags_from_masks_only_when_asked(voc):
    (voc / "tags.csv").unlink()
    with pytest.raises(DataError, match='tags="masks"'):
        ImageTagDataset.voc(voc, "train")
    data = ImageTagDataset.voc(voc, "train", tags="masks")
    assert data.tags.tolist() == [[0, 1, 0], [0, 0, 1]]
    assert ImageTagDataset.voc(voc, "train", tags="none").tags.sum() == 0
    (voc / "image_labels.json").write_text('{"a": [1], "b": [2, 3]}')
    assert ImageTagDataset.voc(voc, "train", tags="json").tags.tolist() == [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("text", ["[1]", '{"a": [4], "b": [1]}', '{"a": 1}', "{"])
def test_bad_tag_json(voc, text):
    (voc / "image_labels.json").write_text(text)
    with pytest.raises(DataError, match=r"image_labels\.json"):
        ImageTagDataset.voc(voc, "train", tags="json")


def test_unknown_tag_source(voc):
    with pytest.raises(ValueError, match="'xml'"):
        ImageTagDataset.voc(voc, "train", tags="xml")


def test_lists_with_paths_as_deeplab_writes_them(voc):
    lines = "/JPEGImages/b.jpg /SegmentationClassAug/b.png\n"
    (voc / "ImageSets" / "Segmentation" / "aug.txt").write_text(lines)
    assert ImageTagDataset.voc(voc, "aug").names == ["b"]


def test_aug_masks_only_where_voc_has_none(voc):
    own, aug = voc / "SegmentationClass", voc / "SegmentationClassAug"
    write_mask(aug / "a.png", np.full((6, 8), 1))
    write_mask(aug / "b.png", np.full((6, 8), 1))
    (own / "b.png").unlink()
    data = ImageTagDataset.voc(voc, "train", masks=True)
    assert data[0]["mask"].unique().tolist() == [0, 2, 255]
    assert data[1]["mask"].unique().tolist() == [1]


def damage_list(text):
    return lambda root: (root / "ImageSets" / "Segmentation" / "train.txt").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_list("a\nb\na\n"), r"train\.txt, line 3: the name 'a' comes twice"),
        (damage_list("a\nb\nc\n"), r"train\.txt: lists 'c', but there is no such image"),
        (damage_list("\n"), r"train\.txt: is empty"),
        (lambda r: (r / "tags.csv").write_text("name,tags\na,dog\n"), "lists 'b', but the tags do"),
        (lambda r: (r / "tags.csv").write_text("name,tags\na,dog\nb,cow\n"), "unknown class 'cow'"),
        (lambda r: (r / "JPEGImages" / "a.png").write_bytes(b""), "same name as a.jpg"),
    ],
)
def test_bad_lists_fail_when_the_data_set_is_made(voc, damage, message):
    damage(voc)
    with pytest.raises(DataError, match=message):
        ImageTagDataset.voc(voc, "train")


def test_unknown_split_names_the_lists_there_are(voc):
    with pytest.raises(MissingFileError, match=r"val\.txt.*Lists in its folder: train"):
        ImageTagDataset.voc(voc, "val")


def test_wrong_root(tmp_path):
    with pytest.raises(MissingFileError, match=r"JPEGImages.*data voc --root"):
        ImageTagDataset.voc(tmp_path)


def rgb(label):
    return encoded(Image.fromarray(np.asarray(label, np.uint8)).convert("RGB"), "PNG")


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("SegmentationClass/a.png", palette_png(np.zeros((6, 9))), "is 9 x 6 px.*image is 8 x 6"),
        ("SegmentationClass/a.png", palette_png(np.full((6, 8), 4)), r"class ids \[4\]"),
        ("SegmentationClass/a.png", rgb(np.zeros((6, 8))), "mode RGB"),
        ("JPEGImages/a.jpg", jpeg(64, 64)[:900], "truncated"),
    ],
)
def test_bad_pixels_fail_when_the_item_is_taken(voc, file, data, message):
    (voc / file).write_bytes(data)
    data_set = ImageTagDataset.voc(voc, "train", masks=True)
    with pytest.raises(DataError, match=message) as caught:
        data_set[0]
    assert file.rsplit("/", 1)[1] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.fixture
def own(tmp_path):
    """Somebody's photos: mixed formats, upper case endings, one taken on its side."""
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), (9, 9, 9)).save(tmp_path / "photos" / "Side.JPG", exif=exif)
    Image.new("L", (5, 5), 100).save(tmp_path / "photos" / "grey.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "mytags.csv").write_text("name,cat,dog\nSide.JPG,1,0\ngrey,1,1\n")
    return tmp_path


def test_own_folder(own):
    data = ImageTagDataset.folder(own / "photos", own / "mytags.csv")
    assert data.classes == ("cat", "dog")
    assert data.names == ["Side", "grey"]
    assert data[0]["image"].shape == (3, 4, 8)  # as stored
    assert data[1]["image"].unique().tolist() == [100]
    assert data.tags.tolist() == [[1, 0], [1, 1]]
    assert "mask" not in data[0]


def test_own_folder_with_masks(own):
    write_mask(own / "masks" / "Side.png", np.full((4, 8), 1))
    write_mask(own / "masks" / "grey.png", np.full((5, 5), 2))
    data = ImageTagDataset.folder(own / "photos", own / "mytags.csv", own / "masks")
    assert data[0]["mask"].unique().tolist() == [1]
    write_mask(own / "masks" / "Side.png", np.full((8, 4), 1))
    with pytest.raises(DataError, match=r"4 x 8 px.*EXIF orientation 6.*auto-orient"):
        data[0]


def test_a_photo_and_a_mask_that_may_be_turned_against_each_other_are_refused(own):
    """Half a turn keeps the size, so nothing else would show it."""
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.new("RGB", (8, 4)).save(own / "photos" / "Side.JPG", exif=exif)
    write_mask(own / "masks" / "Side.png", np.full((4, 8), 1))
    write_mask(own / "masks" / "grey.png", np.full((5, 5), 2))
    data = ImageTagDataset.folder(own / "photos", own / "mytags.csv", own / "masks")
    with pytest.raises(DataError, match=r"Side\.JPG: has the EXIF orientation 3.*auto-orient"):
        data[0]
    assert ImageTagDataset.folder(own / "photos", own / "mytags.csv")[0]["image"].shape[1] == 4


def test_own_folder_classes_reorder_tags(own):
    data = ImageTagDataset.folder(
        own / "photos", own / "mytags.csv", classes=("bird", "dog", "cat")
    )
    assert data.tags.tolist() == [[0, 0, 1], [0, 1, 1]]


def test_own_folder_missing_image(own):
    (own / "photos" / "grey.png").unlink()
    with pytest.raises(MissingFileError, match=r"mytags\.csv: lists 'grey'"):
        ImageTagDataset.folder(own / "photos", own / "mytags.csv")
    with pytest.raises(MissingFileError, match="this folder is not there"):
        ImageTagDataset.folder(own / "fotos", own / "mytags.csv")


@pytest.mark.parametrize("name", ["coco", "stuff10k"])
def test_unprepared_sets_name_the_command(tmp_path, name):
    with pytest.raises(MissingFileError, match=f"data {name} --root"):
        getattr(ImageTagDataset, name)(tmp_path)
    with pytest.raises(ValueError, match="split must be one of"):
        getattr(ImageTagDataset, name)(tmp_path, "trainval")
