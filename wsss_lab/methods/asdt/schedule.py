"""Teachers of a step of ASDT, from its settings alone; for training and for the plan."""

from wsss_lab.methods.asdt.config import ASDTConfig
from wsss_lab.methods.asdt.signal import image_signal, student_share


def share_of_b(config: ASDTConfig, step: int) -> float:
    """Compute teacher B's share in the student's loss of a step, [0, 1]; see `student_share`."""
    return student_share(
        step, config.selection, **config.pulse, mix=config.mix, seed=config.choice_seed
    )


def images_of_b(config: ASDTConfig, step: int, images: int) -> list[bool]:
    """Choose the images of a batch that learn from teacher B, see `image_signal`."""
    return image_signal(step, images, config.period, config.duty, config.warmup, config.invert)


def makes_b_label(config: ASDTConfig, step: int, images: int, squashed: bool) -> bool:
    """Return whether a step makes teacher B's label, which costs a CRF.

    With the released quirks it does so in every pulse, although no loss uses the label.

    Args:
        config: settings of the method.
        step: 0-based.
        images: in the batch of one process.
        squashed: whether the batch has `squashed`, the images of a CRF as released. A label that
            needs them and that nothing uses is left out if they are missing.
    """
    quirks = config.quirks
    if quirks.squashed_crf_image and quirks.ignore_pulse and not squashed:
        return False
    if config.selection == "images":
        return any(images_of_b(config, step, images))
    return share_of_b(config, step) > 0
