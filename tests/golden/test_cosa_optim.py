"""Learning rates of CoSA's released code."""

import numpy as np
import pytest

from wsss_lab.methods.cosa.config import OPTIM
from wsss_lab.train.optim import lr_factor


@pytest.mark.parametrize("name", ["voc", "vocdefault", "coco"])
def test_cosa_learning_rates(golden, name):
    z = golden("cosa")("lr_schedule.npz")
    optim, steps = OPTIM, z[f"{name}_steps"]
    total = int(steps[-1]) + 1
    factors = np.array([lr_factor(int(step), total, optim) for step in steps])
    peaks = np.array([optim.lr, optim.lr * optim.head_lr_factor])
    np.testing.assert_allclose(
        factors[:, None] * peaks, z[f"f64_{name}_lr_backbone_head"], rtol=1e-9
    )
    after = lr_factor(total + 7, total, optim) * optim.lr
    np.testing.assert_allclose(after, z[f"f64_{name}_lr_after_max"], rtol=1e-9)
