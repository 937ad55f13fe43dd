"""Environment variables that decide where a run happens and how it computes.

| variables | what becomes of them |
|---|---|
| `RANK`, `LOCAL_RANK`, `NODE_RANK`, `GROUP_RANK`, `WORLD_SIZE` | must fit the run's processes |
| `LT_...` of Lightning Fabric | refused: they replace settings behind their back |
| those of `ARITHMETIC` | recorded with the run, and the same in a resumed run |

Nothing here needs torch or Lightning, which cannot even be imported with some of these values.
"""

import os

from wsss_lab.config import RunConfig

RANKS = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK")
"""Set by `torchrun` and by Lightning for each process of a run."""
REPLACE_SETTINGS = {
    "LT_ACCELERATOR": "--run.accelerator",
    "LT_STRATEGY": "--run.devices",
    "LT_DEVICES": "--run.devices",
    "LT_NUM_NODES": "--run.nodes",
    "LT_PRECISION": "--run.precision",
    "LT_CLI_USED": "the options of `train`",
}
"""Variable of Lightning Fabric -> the option that is to be used instead."""
ARITHMETIC = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Variables that change the arithmetic of torch and of the libraries below it."""


def require_readable_environment() -> None:
    """Refuse variables that no run can have.

    Raises:
        ValueError: a rank that is no number, or a variable that replaces settings.
    """
    for name in RANKS:
        if name in os.environ:
            _number(name)
    for name, option in REPLACE_SETTINGS.items():
        if name in os.environ:
            raise ValueError(
                f"{name} is set to {os.environ[name]!r}: it would replace settings of the run, and "
                f"its results would state others; unset {name} and use {option}"
            )


def require_fitting_environment(run: RunConfig) -> None:
    """Refuse ranks that do not fit the processes of a run: leftovers of another one.

    A process with a rank above 0 writes nothing; a single one would train to the end for nothing.

    Args:
        run: uses `devices` and `nodes`.

    Raises:
        ValueError: names variable, value, and what the run needs; or see
            `require_readable_environment`.
    """
    require_readable_environment()
    world = run.devices * run.nodes
    if "WORLD_SIZE" in os.environ and (started := _number("WORLD_SIZE")) != world:
        raise ValueError(
            f"devices: {started} processes were started, expected {run.devices} devices x "
            f"{run.nodes} nodes; state both as they were started, or, if WORLD_SIZE is left over "
            "from another run, unset it"
        )
    bounds = {"RANK": world, "LOCAL_RANK": run.devices}
    bounds |= dict.fromkeys(("NODE_RANK", "GROUP_RANK"), run.nodes)
    for name, bound in bounds.items():
        if name in os.environ and not 0 <= _number(name) < bound:
            raise ValueError(
                f"{name} is {os.environ[name]} in the environment, but this run has "
                f"{run.devices} devices x {run.nodes} nodes; unset {name}, or state --run.devices "
                "and --run.nodes as the processes were started"
            )
    for name in ("RANK", "LOCAL_RANK"):
        if world > 1 and name in os.environ and "WORLD_SIZE" not in os.environ:
            raise ValueError(
                f"{name} is set without WORLD_SIZE, so the run would wait for processes that "
                f"nobody starts; unset {name}, or start all of them with torchrun"
            )


def arithmetic() -> dict[str, str]:
    """Return the variables of `ARITHMETIC` that are set, to be recorded."""
    return {name: os.environ[name] for name in ARITHMETIC if name in os.environ}


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except ValueError as error:
        raise ValueError(
            f"{name} is set to {os.environ[name]!r}, expected a whole number; unset {name}"
        ) from error
