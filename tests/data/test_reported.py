"""A bad file in a worker process ends in one line, wherever images are read."""

from pathlib import Path

import pytest
from pixels import Pixels
from torch.utils.data import DataLoader

from wsss_lab.data.datasets import ImageTagDataset
from wsss_lab.data.errors import DataError
from wsss_lab.data.reported import Reported, raising
from wsss_lab.data.toy import write_voc
from wsss_lab.evaluate.evaluate import evaluate


@pytest.fixture
def images(tmp_path):
    write_voc(tmp_path, "train", count=4, size=32)
    data = ImageTagDataset.voc(tmp_path, "train", masks=True)
    bad = Path(data._index.entries[2].image)
    bad.write_bytes(bad.read_bytes()[:300])
    return data


@pytest.mark.parametrize("workers", [0, 2])
def test_problems_keep_file_and_remedy_on_the_way_out_of_a_worker(images, workers):
    items = raising(DataLoader(Reported(images), batch_size=None, num_workers=workers))
    assert next(items)["name"] == images.names[0]
    next(items)
    with pytest.raises(DataError) as caught:
        next(items)
    assert images._index.entries[2].image in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.problem is not None


@pytest.mark.parametrize("workers", [0, 2])
def test_scoring_ends_in_one_line_too(images, workers):
    with pytest.raises(DataError) as caught:
        evaluate(Pixels(), images, num_classes=images.num_classes + 1, workers=workers)
    assert len(str(caught.value).splitlines()) == 1
    assert images.names[2] in str(caught.value)


def test_items_can_be_prepared_in_the_worker():
    doubled = Reported([1, 2], lambda item: 2 * item)
    assert list(raising(DataLoader(doubled, batch_size=None))) == [2, 4]
    assert len(doubled) == 2
