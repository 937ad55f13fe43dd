"""Facts about this installation: methods, presets, versions, backbones, packaged weights."""

from importlib import resources
from typing import Any

import torch

from wsss_lab.config import git_revision, versions
from wsss_lab.models.backbones import BACKBONES
from wsss_lab.runs.recipe import RECIPES


def describe() -> dict[str, Any]:
    """Methods with their presets (and why some are missing), versions, backbones, weights."""
    folder = resources.files("wsss_lab") / "weights"
    packed = [f.name for f in folder.iterdir() if f.name.endswith(".safetensors")]
    methods = {}
    for name, recipe in RECIPES.items():
        facts = {"presets": list(recipe.presets), "no such preset": dict(recipe.missing_presets)}
        methods[name] = {"summary": recipe.summary, **facts}
    return {
        "methods": methods,
        "versions": versions(),
        "git": git_revision(),
        "backbones": list(BACKBONES),
        "weights": sorted(packed) if folder.is_dir() else [],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
