import torch
import torch.nn.functional as F

from wsss_lab.losses import pixel_loss, tag_loss


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
