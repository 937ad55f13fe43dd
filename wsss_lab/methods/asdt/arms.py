"""Arms of the ablation of ASDT as changes of its settings, also with an oracle teacher."""

from dataclasses import replace
from typing import Any

from wsss_lab.methods.asdt.config import ASDTConfig

ARMS: dict[str, dict[str, Any]] = {
    "R0": {"selection": "none"},
    "R1": {"selection": "a"},
    "R2": {"selection": "b"},
    "R2-full": {"selection": "b", "kd_weight": 1.0},
    "R3": {"selection": "mix"},
    "R3-half": {"selection": "mix", "mix": 0.5},
    "R4": {"selection": "soft_mean"},
    "R4-agree": {"selection": "agreement"},
    "R5": {"selection": "bernoulli"},
    "R6": {"selection": "blocks"},
    "R7": {"selection": "images"},
    "R8": {"selection": "pulse"},
    "R9": {"selection": "pulse", "invert": True},
    "R10": {"selection": "pulse", "kd_weight": 0.0, "pulse_dense": False},
    "R10-dense": {"selection": "pulse", "kd_weight": 0.0},
    "R11": {"selection": "pulse", "kd_weight": 1.0},
}
"""Arms of the ablation "does alternating beat any static use of the same two teachers?", as changes
of the settings.

R0 no student; R1 teacher A only, which is what the released code trains; R2 teacher B only; R3 both
losses in every step with the pulse's expected weights; R4 both teachers' mean, or agreement; R5 a
coin per step; R6 a coin per block; R7 by image; **R8 ASDT**; R9 teachers exchanged; R10 nothing
instead of teacher B (is less supervision enough?); R11 teacher B with full weight.
"""


ORACLES: dict[str, dict[str, Any]] = {
    "R1-oracle": ARMS["R1"] | {"oracle": "a"},
    "R2-oracle": ARMS["R2-full"] | {"oracle": "b"},
    "R3-oracle": ARMS["R3"] | {"oracle": "b"},
    "R5-oracle": ARMS["R5"] | {"oracle": "b"},
    "R8-oracle": ARMS["R8"] | {"oracle": "b"},
    "R8-silence": ARMS["R8"] | {"oracle": "silence"},
    "R11-oracle": ARMS["R11"] | {"oracle": "b"},
}
"""Arms with a teacher that is never wrong, as changes of the settings: what the mechanism would
carry. They train on masks, so they are bounds and no results of weak supervision."""


def arm(name: str, base: ASDTConfig) -> ASDTConfig:
    """Apply the changes of one arm of the ablation, or of one with an oracle, to settings.

    Raises:
        ValueError: no arm has this name.
    """
    known = ARMS | ORACLES
    if name not in known:
        raise ValueError(f"name: expected one of {', '.join(known)}, got {name!r}")
    return replace(base, **known[name])
