"""environment.yml and pyproject.toml ask for the same packages with the same bounds."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"pytorch": "torch", "matplotlib-base": "matplotlib"}
CONDA_ONLY = {"python", "pip", "jupyterlab-myst"}  # directives render in Lab; no code needs it


def split(requirement: str) -> tuple[str, str]:
    """Name and bound, without extras and spaces: `a>=1, <2` -> ("a", ">=1,<2")."""
    name, bound = re.fullmatch(r"([\w.-]+)(?:\[[^\]]*\])?\s*(.*)", requirement).groups()
    return CONDA_NAMES.get(name, name).lower().replace("_", "-"), bound.replace(" ", "")


def test_both_routes_install_the_same():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = [*project["dependencies"], *(item for extra in extras for item in extra)]
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    listed = [item for item in conda if isinstance(item, str)]
    listed += next(item["pip"] for item in conda if isinstance(item, dict))
    offered = dict(split(item) for item in listed)
    assert offered.pop("python") == project["requires-python"]
    assert {name: b for name, b in offered.items() if name not in CONDA_ONLY} == dict(
        split(item) for item in asked
    )
