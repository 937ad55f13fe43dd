"""Settings shared by the presets `tiny`: `toy` within two minutes on one thread, all of it ours.

A run of `toy` learns the tags first and then what is to be shown. These begin where the package's
networks have learned the tags (`--start toy`), on few scenes and for few steps. Their number was
chosen by processor seconds alone (`benchmarks/tiny.py`); no score had a part in it.
"""

import dataclasses
from typing import Any

COUNT, VAL_COUNT = 160, 40
"""Toy scenes to train on and to evaluate on."""


def tiny(toy: Any, steps: int, batch: int = 8, **changes: Any) -> Any:
    """Return the settings of the preset `toy` with few scenes and steps.

    Args:
        toy: settings of the preset `toy`.
        steps: of the first training.
        batch: images per step.
        **changes: other fields.
    """
    data = dataclasses.replace(toy.data, count=COUNT, val_count=VAL_COUNT)
    run = dataclasses.replace(toy.run, steps=steps, batch=batch, log_every=10, save_every=20)
    return dataclasses.replace(toy, data=data, run=run, **changes)
