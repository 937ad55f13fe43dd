"""Published numbers: only with a source, and never beside a run of another kind."""

from wsss_lab.data.config import DATA_SETS
from wsss_lab.metrics import Protocol
from wsss_lab.runs.published import beside, protocol_in_words, published_results


def test_every_row_can_be_checked():
    assert len(published_results()) == 19
    for row in published_results():
        assert row.data in DATA_SETS
        assert row.what in ("segmentation", "labels")
        assert 10 < row.miou < 100
        assert row.source
        assert row.protocol


def test_only_rows_of_the_same_kind_are_shown():
    table = beside(0.5, "single scale", "voc", "val", name="mine")
    assert "50.0" in table
    assert "AFA" in table
    assert "45.0" not in table  # COCO
    assert "48.3" not in table  # labels of training images
    assert "48.3" in beside(0.4, "", "voc", "train", "labels")
    assert "no published number" in beside(0.4, "", "toy", "val")


def test_an_oracle_is_called_one():
    plain = {**vars(Protocol(scales=(1.0,), flip=False, crf="none", thresholds="none"))}
    told = protocol_in_words(plain | {"tags_at_test": True, "scales": [1.0, 0.5], "flip": True})
    assert told == "multi-scale, flip, no CRF, TRUE TAGS"
    alone = protocol_in_words(plain | {"tags_at_test": False, "thresholds": "fixed at 0.4"})
    assert alone == "single scale, no CRF, no true tags, threshold fixed at 0.4"
