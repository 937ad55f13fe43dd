"""Runs that go on from the end of a warm-up, heads included.

On photos a method starts from ImageNet weights and learns the tags in its first steps. Where many
short runs are compared, they would all spend most of their time on the same first steps; such runs
start from one network that has learned the tags already.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from torch import Tensor

from wsss_lab.data.catalog import TOY_CLASSES
from wsss_lab.data.class_names import require_same_classes
from wsss_lab.methods.common.base import Method
from wsss_lab.models.state import widened
from wsss_lab.runs.safe_read import read_checkpoint
from wsss_lab.runs.weights_file import read_facts, require_sound

CLASSIFIER = "TagClassifier"
"""Part of a run of the baseline whose network any method on its backbone can begin with."""
CLASSIFIER_HEAD = "head.linear.weight"
"""Name of its linear layer."""


def start_method(
    method: Method, source: str, name: str, backbone: str, classes: Sequence[str] | None = None
) -> None:
    """Load the weights of a run's warm-up into a method, in place.

    Args:
        method: of the kind the run had.
        source: "" for none; "toy" for those of this package; else a run's folder or its
            `model.safetensors`; also the tag classifier of a run of the baseline on the same
            backbone, whose heads serve as far as they fit.
        name: key of the method in `wsss_lab.runs.recipe.RECIPES`.
        backbone: name of its backbone.
        classes: foreground classes of the method; the start holds a classifier, so its classes are
            compared by name. None compares nothing.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of another method, of other classes, or does not fit.
    """
    if not source:
        return
    state = read_start(source, name, backbone, classes)
    if is_classifier(source, name):
        method.start_from_classifier(state)
    else:
        method.start_from(state)


def is_classifier(source: str, name: str) -> bool:
    """Whether a start is the tag classifier of a run of another method, the baseline."""
    file = _file(source)
    facts = read_facts(file) if source != "toy" and file.is_file() else None
    return facts is not None and facts.get("part") == CLASSIFIER and facts.get("method") != name


def _file(source: str) -> Path:
    path = Path(source)
    return path / "model.safetensors" if path.is_dir() else path


def read_start(
    source: str, name: str, backbone: str, classes: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """The tensors of a start, half precision widened; arguments, errors: see `start_method`."""
    if source == "toy":
        packed = resources.files("wsss_lab") / "weights" / f"{backbone}_{name}.safetensors"
        if not packed.is_file():
            raise FileNotFoundError(
                f"start: this installation has no weights of {name} on {backbone}; leave start "
                "empty, or give the folder of a run"
            )
        _require_classes(TOY_CLASSES, classes, "those of the packaged weights")
        with resources.as_file(packed) as file:
            return widened(read_checkpoint(file)[0])
    file = _file(source)
    if not file.is_file():
        raise FileNotFoundError(f"start: expected 'toy' or the folder of a run, got {source!r}")
    facts = read_facts(file)
    if facts is not None and facts.get("method") != name and not is_classifier(source, name):
        raise ValueError(f"start: {file} is of {facts.get('method')}, not of {name}")
    state = read_checkpoint(file)[0]
    require_sound(file, facts, state)
    stored = (facts or {}).get("classes")
    if isinstance(stored, list):  # background first
        _require_classes(stored[1:], classes, f"those of {file}")
    return widened(state)


def _require_classes(
    stored: Sequence[str] | None, classes: Sequence[str] | None, owner: str
) -> None:
    """Refuse a classifier of other classes, whose rows would stand for wrong names."""
    if stored is not None and classes is not None:
        remedy = "Leave start empty, or start from a run on these classes in this order"
        require_same_classes(stored, classes, owner, "start: the training list", remedy)
