"""Whose checkpoint is this file? Judged by its keys, loaded strictly, never run.

How files are read is told in `wsss_lab.runs.safe_read`; its functions can be imported from here
too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsss_lab.methods.common.checkpoints import CheckpointKind, Contents
from wsss_lab.runs.backbone_files import BACKBONES, backbone_inside
from wsss_lab.runs.recipe import RECIPES
from wsss_lab.runs.safe_read import Record, State, read_checkpoint
from wsss_lab.runs.weights_file import read_facts

__all__ = ["Identity", "Record", "identify", "read_checkpoint", "released_by"]


@dataclass(frozen=True)
class Identity:
    """Kind, network and size of a weights file."""

    kind: str
    """Whose naming it follows."""
    network: str
    """Backbone or method that it was loaded into, strictly."""
    tensors: int
    parameters: int
    classes: int | None = None
    """Foreground classes, where there is a classifier."""
    details: dict[str, Any] = field(default_factory=dict)


def identify(path: Path) -> Identity:
    """Find out whose checkpoint a file is, and load it strictly to prove it.

    Args:
        path: a weights file, or the folder of a run that is done.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is not safe to load, is of no known kind, or does not fit its kind.
    """
    path = path / "model.safetensors" if path.is_dir() else path
    facts = read_facts(path)
    state, rest = read_checkpoint(path)
    # shapes decide; only our own networks are also filled
    shapes = state if facts else {key: value.to("meta") for key, value in state.items()}
    try:
        found = _examine(path, shapes, facts, rest)
    except ValueError as error:
        raise ValueError(_about(path, error)) from error
    except Exception as error:  # tensors of wrong dimensions, edited descriptions: anything
        raise ValueError(misunderstood(path, error)) from error
    parameters = sum(value.numel() for value in state.values())
    settings = {k: _shown(v) for k, v in rest.items() if k not in ("optimizer", "optim", "rng")}
    details = found.details | ({"beside": settings} if settings else {})
    return Identity(found.kind, found.network, len(state), parameters, found.classes, details)


def misunderstood(path: Path, error: Exception) -> str:
    """A message on a file whose content led to an error that nobody foresaw."""
    reason = " ".join(str(error).partition("\n")[0].split())[:160]
    return (
        f"{path}: its tensors or its description cannot be understood ({type(error).__name__}: "
        f"{reason}); get or write the file again"
    )


def _about(path: Path, error: ValueError) -> str:
    """A message that names the file."""
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _examine(path: Path, state: State, facts: Any, rest: dict[str, Any]) -> Contents:
    if facts is not None:
        return _examine_ours(state, facts)
    if _in_progress(rest):
        return _examine_checkpoint(state, rest)
    return _kind_of(path, state)[1].examine(state)


def _in_progress(rest: Mapping[str, Any]) -> bool:
    """Whether a file is a checkpoint of our own training."""
    return {"format", "method", "step"} <= rest.keys()


def _kind_of(path: Path, state: State) -> tuple[str | None, CheckpointKind]:
    """Find the kind of a checkpoint by its keys, and the method whose released code writes it."""
    for name, recipe in RECIPES.items():
        if recipe.checkpoint is not None and recipe.checkpoint.matches(state):
            return name, recipe.checkpoint
    for kind in BACKBONES:
        if kind.matches(state):
            return None, kind
    shown = ", ".join(list(state)[:3])
    raise ValueError(f"{path}: not a checkpoint that is known here; its keys begin {shown}")


def released_by(path: Path, state: State, rest: Mapping[str, Any]) -> str:
    """Which method's released code wrote a checkpoint, judged by its keys alone.

    Args:
        path: for messages.
        state: its tensors, see `read_checkpoint`.
        rest: what stands beside them.

    Returns:
        A key of `wsss_lab.runs.recipe.RECIPES`.

    Raises:
        ValueError: it is of none; says what it is.
    """
    method = None if _in_progress(rest) else _kind_of(path, state)[0]
    if method is None:
        what = identify(path)
        raise ValueError(
            f"{path} is of {what.kind} ({what.network}); expected the weights of a trained method, "
            "ours or released"
        )
    return method


def _shown(value: Any) -> Any:
    """A short, plain picture of what stands beside the tensors."""
    if isinstance(value, Record):
        inner = {k: _shown(v) for k, v in vars(value).items() if k != "values"}
        return inner or [_shown(v) for v in value.values]
    if isinstance(value, str | int | float | bool | None):
        return value
    return f"{type(value).__name__} of {len(value)}" if hasattr(value, "__len__") else str(value)


def _examine_ours(state: State, facts: Mapping[str, Any]) -> Contents:
    recipe = RECIPES.get(str(facts.get("method")))
    if recipe is None:
        raise ValueError(
            f"the file is of method {facts.get('method')!r}, which this version does not have"
        )
    try:
        recipe.load_method(facts, state)
        network = f"{facts['part']} on {_backbone_of(facts)}"
    except (KeyError, TypeError) as error:
        raise ValueError(f"the file's description is incomplete ({error!r})") from error
    return Contents(
        f"wsss_lab, {facts['method']}",
        network,
        len(facts["classes"]) - 1,
        {"started from": facts.get("weights")},
    )


def _backbone_of(facts: Mapping[str, Any]) -> str:
    """Where a network has settings of its own, the part's; else the method's."""
    config = facts["config"]
    if facts["part"] == "SegNetwork" and "mask_backbone" in config:
        return config["mask_backbone"]
    return config["backbone"] if "backbone" in config else config["method"]["backbone"]


def _examine_checkpoint(state: State, rest: dict[str, Any]) -> Contents:
    details = {"method": rest.get("method"), "step": rest.get("step")}
    for key in ("optimizer", "scaler", "rng", "config", "history"):
        rest.pop(key, None)
    return Contents(
        "wsss_lab, checkpoint of a run in progress", backbone_inside(state), None, details
    )
