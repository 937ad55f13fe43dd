"""The dense CRF against CoSA's calls of pydensecrf."""

import torch

from wsss_lab.methods.cosa.values import CRFS


def test_cosa_evaluation_crf(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("crf.npz").items()}
    image = z["image"].permute(2, 0, 1)[None]
    out = CRFS["eval"](image, z["probs"][None])[0]
    torch.testing.assert_close(out, z["q_eval_crf_it1"], atol=1e-5, rtol=0)
    assert (out.argmax(0) != z["argmax_eval_crf"]).float().mean() < 1e-3


def test_cosa_second_crf(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("cosa")("crf.npz").items()}
    image = z["image"].permute(2, 0, 1)[None]
    out = CRFS["helper"](image, z["probs"][None])[0]
    assert (out.argmax(0) != z["argmax_crf_it10"]).float().mean() < 1e-3
