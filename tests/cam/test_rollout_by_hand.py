"""Attention roll-out of one and of two layers, written out."""

import torch

from wsss_lab.cam.attention_maps import attention_rollout


def test_rollout_by_hand():
    first, second = torch.rand(2, 1, 3, 5, 5).softmax(-1)
    mixed = [(layer.mean(1) + torch.eye(5)) / 2 for layer in (first, second)]
    torch.testing.assert_close(attention_rollout([first]), mixed[0][:, 0, 1:])
    wanted = (mixed[1] @ mixed[0])[:, 0, 1:]
    torch.testing.assert_close(attention_rollout([first, second]), wanted)
