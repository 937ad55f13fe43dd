"""Labels of both teachers against loops, and images of a batch against images alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tiny_asdt import K, settings

from wsss_lab import IGNORE
from wsss_lab.methods.asdt.config import PRESETS, ASDTConfig, ASDTQuirks
from wsss_lab.methods.asdt.labels import (
    EXCLUDED,
    TeacherLabel,
    agreement_of_teachers,
    crf_of_present,
    mean_of_teachers,
    present_cams,
    strongest_classes,
    sure_by_cam,
    teacher_a_label,
    teacher_b_label,
)
from wsss_lab.refine import unary_from_probs


def test_sure_by_cam_by_loops():
    """The sorted-list rule, class by class in Python."""
    config = ASDTConfig()
    torch.manual_seed(1)
    scores = torch.rand(3, 5, 12, 13)
    present = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()
    scores = scores * present[:, :, None, None]
    named = present.clone()
    named[0, 3] = False
    found = sure_by_cam(scores, present, named, config)
    for n in range(3):
        winner = scores[n][present[n]].argmax(0)
        wanted = torch.zeros(12, 13, dtype=torch.bool)
        for c in range(int(present[n].sum())):
            if not named[n, c]:
                continue
            if c == 0:
                wanted |= (winner == 0) & (scores[n, 0] > 0.8)
                continue
            values = sorted(scores[n, c][(winner == c) & (scores[n, c] > 0.1)].tolist())
            if values:
                wanted |= (winner == c) & (scores[n, c] > values[int(0.6 * len(values))])
        assert torch.equal(found[n], wanted), n
    assert found[0].any()


def test_present_cams_and_strongest_classes():
    torch.manual_seed(0)
    cam, tags = torch.rand(2, 6, 5, 5), torch.tensor([[1.0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 0]])
    cam[0, 2] += 1
    cam[0, 5] += 2
    index, present = strongest_classes(cam, tags, 2)
    assert index[0].tolist() == [2, 5]
    assert present.tolist() == [[True, True], [True, False]]
    assert index[1, 0] == 4
    cams = present_cams(cam, index, present, (9, 9))
    up = F.interpolate(cam[:, 4:5], (9, 9), mode="bilinear")[1, 0]
    torch.testing.assert_close(cams[1, 0], up / (up.max() + 1e-5))
    assert not cams[1, 1].any()
    assert strongest_classes(cam, tags)[0].shape == (2, 4)


def rectangle():
    """A bright rectangle on dark ground, and a map of its upper half only."""
    images = torch.full((2, 3, 40, 40), 30.0)
    images[:, :, 10:30, 10:30] = 220.0
    cams = torch.zeros(2, 2, 40, 40)
    cams[:, 0, 12:24, 12:28] = 1.0
    index, present = torch.tensor([[2, 0], [1, 3]]), torch.tensor([[True, False], [True, True]])
    return images, cams, index, present


def test_teacher_a_follows_the_picture():
    config = settings(exponents=(4.0, 32.0), top_from=0.0)
    images, cams, index, present = rectangle()
    cams[:, 0, 15, 15] = 0.9  # so that some pixels exceed the lowest value
    found = teacher_a_label(images, cams, index, present, config)
    assert found.classes.tolist() == [[0, 3, 1], [0, 2, 4]]
    assert (found.label[0, :5] == 0).all()
    assert set(found.label[0].unique().tolist()) == {0, 3, IGNORE}
    assert not found.probs[0, 2].any()
    torch.testing.assert_close(found.probs.sum(1), torch.ones(2, 40, 40))


def test_images_without_tags():
    images, cams, index, _ = rectangle()
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    for config, value in ((settings(), 0), (settings("stuff10k"), IGNORE)):
        a = teacher_a_label(images, cams * 0, index, nothing, config)
        assert (a.label == value).all()
        logits = torch.randn(2, 5 if config.background else 4, 5, 5)
        b = teacher_b_label(images, logits, index, nothing, config)
        assert (b.label == value).all()
        assert torch.isfinite(b.probs).all()


def test_teacher_a_without_background_labels_from_zero():
    images, cams, index, present = rectangle()
    cams[:, 1, 24:36, 12:28] = 1.0
    cams = cams * present[:, :, None, None] * torch.rand(40, 40)
    found = teacher_a_label(images, cams, index, present, settings("stuff10k"))
    assert set(found.label[1].unique().tolist()) <= {1, 3, IGNORE}
    assert set(found.label[0].unique().tolist()) == {2, IGNORE}


def test_teacher_b_batch_is_image_by_image():
    images, _, index, present = rectangle()
    torch.manual_seed(0)
    logits = torch.randn(2, K + 1, 5, 5) * 3
    for config in (settings(), settings(quirks=ASDTQuirks(absent_classes=True))):
        both = teacher_b_label(images, logits, index, present, config)
        for n, count in enumerate((1, 2)):
            one = slice(n, n + 1)
            alone = teacher_b_label(
                images[one], logits[one], index[one, :count], present[one, :count], config
            )
            assert torch.equal(alone.label[0], both.label[n])
            m = alone.probs.shape[1]
            torch.testing.assert_close(both.probs[n, :m], alone.probs[0], atol=1e-6, rtol=0)


def test_mean_and_agreement():
    classes = torch.tensor([[0, 2]])
    probs = torch.tensor([[[[1.0, 0, 0.5]], [[0, 1, 0.5]]], [[[0.6, 1, 0]], [[0.4, 0, 1]]]])
    a = TeacherLabel(torch.tensor([[[0, 2, 255]]]), probs[:1], classes)
    b = TeacherLabel(torch.tensor([[[0, 0, 2]]]), probs[1:], classes)
    assert agreement_of_teachers((a, b)).tolist() == [[[0, IGNORE, IGNORE]]]
    mean = mean_of_teachers((a, b), 5)
    torch.testing.assert_close(mean.probs[0, 0], torch.tensor([[0.8, 0.5, 0.25]]))
    full = replace(b, probs=b.spread(5), classes=torch.arange(5)[None])
    torch.testing.assert_close(mean_of_teachers((a, full), 5).probs, mean.spread(5))


def test_scores_that_share_a_lattice():
    """Side by side as alone."""
    images, cams, _, present = rectangle()
    scores = [F.pad(cams * factor, (0, 0, 0, 0, 1, 0), value=0.3) for factor in (0.5, 0.9)]
    there = F.pad(present, (1, 0), value=True)
    crf = PRESETS["toy"].cam_crf
    together = crf_of_present(crf, images, scores, there)
    for one, both in zip(scores, together, strict=True):
        torch.testing.assert_close(
            crf_of_present(crf, images, [one], there)[0], both, atol=1e-6, rtol=0
        )
        count = int(there[0].sum())
        alone = crf(images[:1], one[:1, :count])
        torch.testing.assert_close(alone, both[:1, :count], atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="multiply by 255"):
        crf_of_present(crf, images / 255, scores, there)


def test_absent_classes_cannot_win_the_crf():
    """A padding channel with any score changes nothing, bit for bit."""
    images, cams, index, present = rectangle()
    config = settings(top_from=0.0)
    plain = teacher_a_label(images, cams, index, present, config)
    absurd = cams.clone()
    absurd[0, 1] = 0.0
    index_other = index.clone()
    index_other[0, 1] = 3
    other = teacher_a_label(images, absurd, index_other, present, config)
    assert torch.equal(plain.label, other.label)
    assert unary_from_probs(torch.zeros(1, 1, 1, 1)).item() < EXCLUDED
