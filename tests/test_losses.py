import pytest
import torch
import torch.nn.functional as F

from wsss_lab.losses import balanced_pixel_loss, enlarge, pixel_loss, tag_loss


@pytest.mark.parametrize("align_corners", [False, True])
def test_enlarge_by_hand(align_corners):
    row = torch.tensor([0.0, 4.0]).bfloat16()
    found = enlarge(row.view(1, 1, 1, 2).expand(1, 3, 2, 2), (2, 4), align_corners=align_corners)
    expected = [0.0, 4 / 3, 8 / 3, 4.0] if align_corners else [0.0, 1.0, 3.0, 4.0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(expected).expand(1, 3, 2, 4))


@pytest.mark.parametrize("align_corners", [False, True])
def test_enlarge_leaves_the_right_size_alone(align_corners):
    logits = torch.randn(1, 3, 37, 53)
    same = enlarge(logits, (37, 53), align_corners=align_corners)
    assert same is logits
    resized = F.interpolate(logits, (37, 53), mode="bilinear", align_corners=align_corners)
    assert torch.equal(same, resized)


def test_tag_loss_is_the_soft_margin_loss():
    logits, tags = torch.randn(5, 7), torch.randint(0, 2, (5, 7)).float()
    expected = F.multilabel_soft_margin_loss(logits, tags)
    torch.testing.assert_close(tag_loss(logits, tags), expected)


def test_pixel_loss_ignores_255_and_averages_the_rest():
    logits, labels = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    labels[0, :3] = 255
    total = sum(
        -logits[i].log_softmax(0)[labels[i, y, x], y, x]
        for i in range(2)
        for y in range(6)
        for x in range(6)
        if labels[i, y, x] != 255
    )
    torch.testing.assert_close(pixel_loss(logits, labels), total / (labels != 255).sum())


def test_pixel_loss_without_any_label_is_zero_with_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(logits, torch.full((1, 8, 8), 255))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def mean_at(logits, labels, chosen):
    """The mean cross-entropy of the chosen pixels, pixel by pixel."""
    places = chosen.nonzero().tolist()
    return sum(-logits[i, :, y, x].log_softmax(0)[labels[i, y, x]] for i, y, x in places) / len(
        places
    )


def test_balanced_pixel_loss_weighs_background_and_foreground():
    logits, labels = torch.randn(2, 4, 6, 6), torch.randint(0, 4, (2, 6, 6))
    labels[0, :3] = 255
    background = mean_at(logits, labels, labels == 0)
    foreground = mean_at(logits, labels, (labels > 0) & (labels < 255))
    found = balanced_pixel_loss(logits, labels, 0.3)
    torch.testing.assert_close(found, 0.7 * background + 0.3 * foreground)


@pytest.mark.parametrize("value", [0, 2, 255])
def test_balanced_pixel_loss_is_finite_on_one_sided_crops(value):
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = balanced_pixel_loss(logits, torch.full((2, 8, 8), value))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert (loss == 0) == (value == 255)
    assert bool(logits.grad.any()) == (value != 255)


def test_balanced_pixel_loss_is_computed_in_float32_under_autocast():
    logits, labels = torch.randn(1, 3, 4, 4).bfloat16(), torch.randint(0, 3, (1, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        found = balanced_pixel_loss(logits, labels)
    torch.testing.assert_close(found, balanced_pixel_loss(logits.float(), labels))


def test_balanced_pixel_loss_refuses_a_weight_that_is_no_share():
    with pytest.raises(ValueError, match=r"weight_fg: expected a share in \[0, 1\], got 1.5"):
        balanced_pixel_loss(torch.randn(1, 2, 3, 3), torch.zeros(1, 3, 3, dtype=torch.long), 1.5)
