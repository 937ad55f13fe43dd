"""Runs that go on from the end of a warm-up, heads included.

On photos a method starts from ImageNet weights and learns the tags in its first steps. Where many
short runs are compared, they would all spend most of their time on the same first steps; such runs
start from one network that has learned the tags already.
"""

from importlib import resources
from pathlib import Path

from torch import Tensor

from wsss_lab.methods.common.base import Method
from wsss_lab.models.state import WIDENED
from wsss_lab.runs.folder import read_facts, require_sound
from wsss_lab.runs.safe_read import read_checkpoint


def start_method(method: Method, source: str, name: str, backbone: str) -> None:
    """Load the weights of a run's warm-up into a method, in place.

    Args:
        method: of the kind the run had.
        source: "" for none; "toy" for those of this package; else a run's folder or its
            `model.safetensors`.
        name: key of the method in `wsss_lab.runs.recipe.RECIPES`.
        backbone: name of its backbone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another method or does not fit.
    """
    if source:
        method.start_from(read_start(source, name, backbone))


def read_start(source: str, name: str, backbone: str) -> dict[str, Tensor]:
    """The tensors of a start, half precision widened; arguments, errors: see `start_method`."""
    if source == "toy":
        packed = resources.files("wsss_lab") / "weights" / f"{backbone}_{name}.safetensors"
        if not packed.is_file():
            raise FileNotFoundError(
                f"start: this installation has no weights of {name} on {backbone}; leave start "
                "empty, or give the folder of a run"
            )
        with resources.as_file(packed) as file:
            return _widened(read_checkpoint(file)[0])
    path = Path(source)
    file = path / "model.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"start: expected 'toy' or the folder of a run, got {source!r}")
    facts = read_facts(file)
    if facts is not None and facts.get("method") != name:
        raise ValueError(f"start: {file} is of {facts.get('method')}, not of {name}")
    state = read_checkpoint(file)[0]
    require_sound(file, facts, state)
    return _widened(state)


def _widened(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Half-precision numbers as float32, which loses nothing; all others stay as they are."""
    return {k: v.to(WIDENED.get(v.dtype, v.dtype)) for k, v in state.items()}
