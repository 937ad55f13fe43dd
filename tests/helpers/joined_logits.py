"""Logits of several scales and of mirrored images, joined: the long way, one pass per scale."""

from wsss_lab.cam import fuse_cams
from wsss_lab.evaluate.inference import scaled


def multi_scale_logits(logits_of, images, fusion, size=None):
    """Joined logits, at the size (h, w) of the images or at another one.

    Images and their mirrored copies share the batch that `logits_of` gets.
    """
    views = [logits_of(scaled(images, scale, fusion.flip)) for scale in fusion.scales]
    return fuse_cams(views, size or tuple(images.shape[-2:]), fusion)
