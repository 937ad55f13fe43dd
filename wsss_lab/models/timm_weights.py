"""Pre-trained networks of timm, from the local cache or the hub."""

import os
import socket
import urllib.parse
import urllib.request
from typing import Any


def _cached(tag: str) -> str | None:
    """Path of a timm weights file in the local cache of the hub, if it is there."""
    import huggingface_hub

    for name in ("model.safetensors", "pytorch_model.bin"):
        path = huggingface_hub.try_to_load_from_cache(f"timm/{tag}", name)
        if isinstance(path, str):
            return path
    return None


def _hub_reachable(timeout: float = 5.0) -> bool:
    """Whether a download can be tried at all; timm alone would retry for most of a minute."""
    if urllib.request.getproxies():
        return True  # only the proxy can tell
    host = urllib.parse.urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        port = host.port or (80 if host.scheme == "http" else 443)
        socket.create_connection((host.hostname or "", port), timeout).close()
    except OSError:
        return False
    return True


def timm_donor(tag: str, **options: Any) -> Any:
    """Build a network of timm with its pre-trained weights, from the local cache or the hub.

    Args:
        tag: timm's name, with or without the tag of the weights.
        **options: arguments of the network, such as ``num_classes=0``.

    Raises:
        ConnectionError: the weights are not in the cache and cannot be fetched.
    """
    import timm

    cached = _cached(tag)
    help_text = (
        f"cannot get the weights {tag}: they are not in the local cache and the hub is out of "
        f"reach. Download model.safetensors from huggingface.co/timm/{tag} on another machine and "
        "pass its path. The toy networks need no download: pretrained_backbone('toy_cnn', 'toy')"
    )
    if cached is None and not _hub_reachable():
        raise ConnectionError(help_text)
    try:
        return timm.create_model(
            tag,
            pretrained=True,
            pretrained_cfg_overlay={"file": cached} if cached else None,
            **options,
        )
    except OSError as error:  # the hub's own errors are OSErrors too
        raise ConnectionError(f"{help_text} ({error})") from error
    except Exception as error:  # a damaged file in the cache raises anything
        reason = " ".join(str(error).partition("\n")[0].split())[:160]
        where = f"the cached file {cached}" if cached else "the downloaded file"
        raise ValueError(
            f"weights {tag}: {where} cannot be loaded ({reason}); delete it and start again"
        ) from error
