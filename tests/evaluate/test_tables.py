"""Text of evaluations: every word explained, every protocol stated, and each of it once."""

import torch

from wsss_lab.evaluate.scores import Evaluation
from wsss_lab.evaluate.tables import tables
from wsss_lab.metrics import Protocol, Report

CONFUSION = torch.tensor([[8, 2, 0], [1, 5, 0]])
NAMES = ["background", "cat"]


def evaluation(**protocols):
    reports = {
        kind.replace("_true", "+true tags"): Report.from_confusion(CONFUSION, protocol, NAMES)
        for kind, protocol in protocols.items()
    }
    return Evaluation(reports)


PLAIN = Protocol("toy val", 4, tags_at_test=False, thresholds="none", scales=(1.0,))
TOLD = Protocol("toy val", 4, tags_at_test=True, thresholds="none", scales=(1.0,))
CAM = Protocol("toy val", 4, tags_at_test=False, thresholds="fixed at 0.4", scales=(1.0, 0.5))


def test_a_protocol_is_printed_once_and_differences_by_table():
    text = evaluation(seg=PLAIN, seg_true=TOLD).table()
    assert text.count("protocol") == 1
    assert text.count("absent classes") == 1
    assert text.count("split: toy val") == 1
    assert "  seg: tags at test: no\n  seg+true tags: tags at test: yes" in text
    assert text.count("an oracle") == 1


def test_several_evaluations_share_columns_and_protocol():
    text = tables([("network, val", evaluation(seg=PLAIN)), ("maps, val", evaluation(cam=CAM))])
    assert text.count("protocol") == 1
    assert text.count("under: missed area / true area") == 1
    assert text.count("class  ") == 2
    joined = " ".join(text.split())
    assert "network, val, seg: scales: (1.0,); thresholds: none" in joined
    assert "maps, val, cam: scales: (1.0, 0.5); thresholds: fixed at 0.4" in joined


def test_every_column_is_explained_and_lines_fit_a_terminal():
    text = evaluation(seg=PLAIN, cam=CAM).table()
    for column in ("IoU", "prec.", "recall", "over", "under"):
        assert f"{column}: " in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_is_not_stated_takes_one_line():
    text = evaluation(seg=Protocol("val", 4)).table()
    assert "not stated: label source, scales, flip, crf" in text
    assert text.count("not stated") == 1


def test_the_numbers_are_those_of_the_report():
    text = evaluation(seg=PLAIN).table()
    assert "cat          62.50  71.43  83.33   33.33   16.67" in text  # 5/8, 5/7, 5/6, 2/6, 1/6
