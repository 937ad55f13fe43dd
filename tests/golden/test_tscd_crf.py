"""The dense CRF against TSCD's (AFA's) calls of pydensecrf."""

import pytest
import torch

from wsss_lab.methods.tscd.values import CRFS
from wsss_lab.refine import unary_from_labels


@pytest.mark.parametrize(("preset", "recorded"), [("eval", "q_eval"), ("cam", "q_crf_inference")])
def test_tscd_crf(golden, preset, recorded):
    arrays = golden("tscd")("dense_crf.npz")
    image = torch.from_numpy(arrays["image_u8"]).permute(2, 0, 1)[None]
    out = CRFS[preset](image, torch.from_numpy(arrays["prob"])[None])[0]
    wanted = torch.from_numpy(arrays[recorded])
    difference = (out - wanted).abs()
    assert (difference > 1e-5).float().mean() < 1e-3
    assert difference.max() < 1e-3
    assert (out.argmax(0) != wanted.argmax(0)).float().mean() < 1e-3


def test_tscd_crf_from_hard_labels(golden):
    """The labels that went in are the most likely classes of `prob`."""
    arrays = golden("tscd")("dense_crf.npz")
    image = torch.from_numpy(arrays["image_u8"]).permute(2, 0, 1)[None]
    probs = torch.from_numpy(arrays["prob"])
    unary = unary_from_labels(probs.argmax(0)[None], len(probs), 0.7)
    out = CRFS["label"].from_unary(image, unary).argmax(1)[0]
    wanted = torch.from_numpy(arrays["label_crf_inference_label"])
    assert (out != wanted).float().mean() < 1e-3
