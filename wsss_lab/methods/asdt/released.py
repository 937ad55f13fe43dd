"""Behaviour that only the released code has, and its checkpoints.

The switches are the fields of `ASDTQuirks` in ``config``; the presets `-released` set them.

Not imitated: a batch of one image fails there, because an axis is squeezed away, and inference
records gradients.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wsss_lab.methods.asdt.keymap import KEYMAP
from wsss_lab.methods.common.base import Batch
from wsss_lab.methods.common.checkpoints import (
    CheckpointKind,
    Contents,
    State,
    fit_parts,
    rows_of,
)
from wsss_lab.models.backbones import build_backbone
from wsss_lab.models.heads import DilatedHead, TagHead
from wsss_lab.models.keymaps import split_checkpoint
from wsss_lab.models.weights import load_strictly


def released_wave(T: int, N: int) -> tuple[int, float]:
    """Convert the released code's two numbers to the period and duty of `pulse_signal`.

    There a pulse takes w = floor(T / N) steps and the signal is on where floor(t / w) is a multiple
    of N. That is a wave of N w steps, shorter than T if N does not divide it (T=150, N=7: 147),
    with duty 1/N.

    Args:
        T: nominal period, steps.
        N: pulses' length as a fraction 1/N of the period.

    Returns:
        Period in steps, and duty in (0, 1].

    Raises:
        ValueError: not 1 <= N <= T.
    """
    if not 1 <= N <= T:
        raise ValueError(f"T, N: expected 1 <= N <= T, got T={T} and N={N}; T counts steps")
    return N * (T // N), 1 / N


def squashed_images(batch: Batch) -> Float[Tensor, "b 3 h w"]:
    """Find the pictures on which the released code refines teacher B's probabilities.

    Args:
        batch: with `squashed`, whole images at the crop's size, RGB in [0, 1].

    Raises:
        ValueError: they are missing.
    """
    if "squashed" in batch:
        return batch["squashed"]
    raise ValueError(
        "squashed: expected the whole images at the crop's size, on which the released code "
        "refines teacher B's label, got none; add them to the batch or switch off "
        "quirks.squashed_crf_image"
    )


def load_checkpoint(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a checkpoint of the released code into an `ASDTNetwork`, strictly.

    Args:
        network: with the backbone `wrn38` and a student.
        state: the released tensors by name. Counters of batch normalisation may be missing, because
            PyTorch 0.4.1 did not keep them.

    Raises:
        ValueError: an unknown name, or a part of the network that does not fit.
    """
    for name, part in split_checkpoint(state, KEYMAP).items():
        load_strictly(getattr(network, name), part, what=f"the ASDT checkpoint, part {name},")


def _examine(state: State) -> Contents:
    parts = split_checkpoint(state, KEYMAP)
    classes = rows_of(parts, "tag_head", "linear.weight")
    with torch.device("meta"):
        backbone = build_backbone("wrn38")
        width = backbone.width
        modules = {
            "backbone": backbone,
            "tag_head": TagHead(width, classes),
            "seg_head": DilatedHead(width, rows_of(parts, "seg_head", "conv2.bias")),
            "student_head": DilatedHead(width, rows_of(parts, "student_head", "conv2.bias")),
        }
    fit_parts(modules, parts, "ASDT")
    return Contents("ASDT", "wrn38", classes)


CHECKPOINT = CheckpointKind(("conv1a.", "fc8_seg_conv"), _examine)
"""Checkpoints of ASDT."""
