"""SIGTERM, as a scheduler sends it some seconds before it kills, ends a run at a good place.

Outside the training loop, where finished files are kept anyway, the signal raises `Terminated` at
once. Inside, the step is completed, a checkpoint written, and then it is raised.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor

from wsss_lab.train.fabric import Fabric


class Terminated(KeyboardInterrupt):
    """End of the process by SIGTERM, after all there is to keep has been written."""


class _Asked:
    """Whether SIGTERM has arrived while it is held back."""

    held = 0
    yes = False


@contextlib.contextmanager
def raised_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises `Terminated`, unless `held_back`; before and after it is as it was.

    Only the main thread can receive signals; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _Asked.yes = False
    before = signal.signal(signal.SIGTERM, _receive)
    try:
        yield
    finally:
        _Asked.yes = False  # else the next training of this process would end at once
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Inside, SIGTERM is noted for `must_stop`; one that nothing has answered is raised at the end.

    A second one is raised at once.
    """
    with raised_by_sigterm():
        _Asked.held += 1
        try:
            yield
        finally:
            _Asked.held -= 1
        if _Asked.yes:
            raise Terminated("ended by SIGTERM")


def _receive(*_: Any) -> None:
    if _Asked.held and not _Asked.yes:
        _Asked.yes = True
    else:
        raise Terminated("ended by SIGTERM")


def must_stop(fabric: Fabric, together: bool) -> bool:
    """Whether training is to end after this step.

    Args:
        fabric: with several processes, one that was asked ends all.
        together: all processes are at this place, and waiting for the device costs nothing; with
            several processes only then they ask one another.
    """
    if fabric.world_size == 1:
        return _Asked.yes
    if not together:
        return False
    asked = torch.tensor(float(_Asked.yes), device=fabric.device)
    return bool(cast(Tensor, fabric.all_reduce(asked, reduce_op="sum")))
