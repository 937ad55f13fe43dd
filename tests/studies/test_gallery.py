"""What networks make of the open photos: looked at, kept, loaded."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from wsss_lab.data.open_photos import open_photo, open_photos
from wsss_lab.methods.common.base import SegOutput
from wsss_lab.records import RECORDS
from wsss_lab.runs.packaged import load_packaged
from wsss_lab.studies.photos.gallery import (
    FOLDER,
    Gallery,
    agreement,
    keep,
    load_card,
    load_gallery,
    look,
    maps_file,
    packed,
    scores_of,
    settings_of,
    unpacked,
)

CAT = "gcompris_erase_kitten"
TWO = "coco_000000565778"


@pytest.fixture(scope="module")
def trained():
    return load_packaged("voc-mini")


def test_a_record_comes_back_at_the_size_of_the_photo(trained):
    threshold, refinement = settings_of(trained)
    seen = {name: look(trained, open_photo(name), threshold, refinement) for name in (CAT, TWO)}
    back = unpacked(packed(seen))
    assert list(back) == [CAT, TWO]
    for name, one in seen.items():
        again, photo = back[name], open_photo(name)
        assert set(again.maps) == set(photo.tags)
        for tag, full in one.maps.items():
            assert again.maps[tag].shape == photo.image().shape[-2:]
            assert (again.maps[tag] - full).abs().mean() < 0.02
        assert torch.equal(again.labels, one.labels)
        assert again.mask is None
        torch.testing.assert_close(again.probs, one.probs, atol=1e-3, rtol=0)


def test_labels_hold_true_tags_alone_and_follow_the_threshold(trained):
    low, high = (look(trained, open_photo(TWO), at).labels for at in (0.2, 0.7))
    allowed = {0, *(tag + 1 for tag in open_photo(TWO).tags)}
    assert set(low.unique().tolist()) <= allowed
    assert (high > 0).sum() < (low > 0).sum()


def test_a_mask_is_predicted_without_tags(trained):
    class Told(torch.nn.Module):
        """Says in its segmentation whether it was told the tags."""

        uses_tags = True

        def predict(self, images, tags=None):
            told = 3 if tags is not None else 5
            logits = torch.zeros(len(images), 21, 4, 4)
            logits[:, told] = 1
            return SegOutput(logits=logits, cam=torch.rand(len(images), 20, 4, 4))

    seen = look(dataclasses.replace(trained, method=Told()), open_photo(CAT), 0.4)
    assert seen.mask.unique().tolist() == [5]


def test_agreement_is_one_for_the_truth_and_zero_for_background():
    photo = open_photos(masked_only=True)[0]
    truth = photo.mask()
    assert agreement(truth, photo) == {tag: 1.0 for tag in photo.tags}
    assert agreement(torch.zeros_like(truth), photo) == {tag: 0.0 for tag in photo.tags}


def test_a_network_of_other_classes_is_refused(tmp_path):
    from wsss_lab.runs.packaged import WEIGHTS

    with pytest.raises((ValueError, FileNotFoundError)):
        keep(Gallery("toy", WEIGHTS / "toy_cnn_cosa.safetensors", out=tmp_path))
    assert not list(tmp_path.iterdir())


def test_the_packaged_network_still_makes_its_record(trained):
    record, (threshold, refinement) = load_gallery("tags"), settings_of(trained)
    assert load_card("tags")["labels"]["threshold"] == threshold
    now = look(trained, open_photo(CAT), threshold, refinement)
    assert (now.labels != record[CAT].labels).float().mean() < 0.01


def test_scores_are_those_of_a_run_or_of_eval(tmp_path):
    assert scores_of(tmp_path) == {}
    scores = {"seg": {"miou": 0.3}, "tags": {"map": 0.8}}
    for results in ({"val": scores, "stages": {}}, scores):
        (tmp_path / "metrics.json").write_text(json.dumps({"results": results}))
        assert scores_of(tmp_path) == {"seg": 0.3}


def test_maps_are_those_of_the_stage_that_makes_them(tmp_path):
    for name in ("model.safetensors", "fit/model.safetensors"):
        assert maps_file(tmp_path / "model.safetensors") is None
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert maps_file(tmp_path) == tmp_path / "fit" / "model.safetensors"
    (tmp_path / "affinity").mkdir()
    (tmp_path / "affinity" / "model.safetensors").touch()
    with pytest.raises(ValueError, match="expected one stage"):
        maps_file(tmp_path)


def test_a_run_in_stages_has_the_maps_of_one_network_and_the_masks_of_the_other():
    seen = load_gallery("acr")
    assert all(one.maps and one.labels is not None for one in seen.values())
    assert all(one.mask is not None and one.probs is not None for one in seen.values())


@pytest.mark.parametrize("file", sorted((RECORDS / FOLDER).glob("*.npz")), ids=lambda f: f.stem)
def test_every_record_shows_every_open_photo_and_has_a_card(file):
    assert list(load_gallery(file.stem)) == [photo.name for photo in open_photos()]
    card = load_card(file.stem)
    assert {"method", "config", "git", "versions", "views", "labels", "note"} <= set(card)
    with np.load(file) as arrays:
        assert sum(array.nbytes for array in arrays.values()) < 8e6
    assert file.stat().st_size < 600_000
