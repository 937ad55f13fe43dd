"""A small study on a method that costs nothing."""

import contextlib
import sys
from pathlib import Path

import pytest
import yaml

from wsss_lab.runs.recipe import RECIPES
from wsss_lab.studies.declare import read_declaration

HERE = Path(__file__).parent
CONTENT = {
    "title": "A fake study",
    "question": "Does gain help?",
    "hypothesis": "It does.",
    "decision": "By the interval.",
    "budget": "Three steps.",
    "baseline": "low",
    "primary": "score",
    "margin": 0.01,
    "confidence": 0.95,
    "seeds": [0, 1],
    "metrics": {
        "score": {"path": "val.score", "what": "score", "percent": False},
        "odd": {"path": "val.odd", "what": "odd score"},
    },
    "common": {"method": "fake", "preset": "toy", "settings": {"run.steps": 2}},
    "arms": {
        "low": {"what": "gain of one"},
        "high": {"what": "gain of two", "settings": {"gain": 2}},
    },
    "profiles": {
        "full": {"what": "all of it", "run_minutes": 1},
        "cpu": {"what": "less of it", "run_minutes": 1},
    },
}


class Place:
    """Folders of a test, and the declaration in them."""

    def __init__(self, root: Path):
        self.declared, self.work = root / "declared", root / "work"
        self.records = root / "records"
        self.declared.mkdir()

    def declare(self, name="fake", **changes):
        text = yaml.safe_dump(CONTENT | changes, sort_keys=False)
        (self.declared / f"{name}.yaml").write_text(text)
        return read_declaration(name, self.declared)

    @property
    def folders(self):
        return {"work": self.work, "records": self.records}


@contextlib.contextmanager
def fake_place(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        patch.setitem(RECIPES._found, "fake", "fake_recipe:RECIPE")
        yield Place(root)
    sys.modules.pop("fake_recipe", None)


@pytest.fixture
def place(tmp_path):
    with fake_place(tmp_path) as found:
        yield found


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory):
    """For runs that several tests of a file look at."""
    with fake_place(tmp_path_factory.mktemp("shared")) as found:
        yield found
