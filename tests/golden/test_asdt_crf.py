"""The dense CRF against ASDT's teachers and inference (pydensecrf)."""

import torch

from wsss_lab.runs.recipe import find_crf, find_preset


def check(out, wanted):
    difference = (out - wanted).abs()
    assert (difference > 1e-5).float().mean() < 1e-3
    assert difference.max() < 1e-3


def cases(z):
    """Letters of the recorded cases."""
    letters = sorted({name.split("_")[0] for name in z})
    assert letters
    return letters


def test_asdt_teacher_a(golden):
    """Posteriors of [(1 - max CAM)^alpha; present CAMs] for alpha 4 and 32."""
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("teacher1_cam_refine.npz").items()}
    for case in cases(z):
        cams = z[f"{case}_norm_cam"][z[f"{case}_label"] > 0]
        image = z[f"{case}_image"].permute(2, 0, 1)[None]
        config = find_preset("asdt", "voc-released").method
        for alpha in config.exponents:
            scores = torch.cat([(1 - cams.amax(0, keepdim=True)) ** alpha, cams])
            check(config.cam_crf(image, scores[None])[0], z[f"{case}_crf_a{alpha:.0f}"])


def test_asdt_teacher_b(golden):
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("teacher2_and_inference.npz").items()}
    for case in cases(z):
        image = z[f"{case}_image"].permute(2, 0, 1)[None]
        crf = find_preset("asdt", "voc-released").method.seg_crf
        out = crf(image, z[f"{case}_prob"][None])[0]
        check(out, z[f"{case}_crf"])
        assert (out.argmax(0) != z[f"{case}_label"]).float().mean() < 1e-3


def test_asdt_inference(golden):
    """Element-wise maximum of both heads, which does not sum to 1."""
    z = {k: torch.from_numpy(v) for k, v in golden("asdt")("teacher2_and_inference.npz").items()}
    for case in cases(z):
        image = z[f"{case}_image"].permute(2, 0, 1)[None]
        crf = find_crf(find_preset("asdt", "voc-released").test.crf)
        out = crf(image, z[f"{case}_fused"][None])[0]
        assert (out.argmax(0) != z[f"{case}_fused_crf_label"]).float().mean() < 1e-3
