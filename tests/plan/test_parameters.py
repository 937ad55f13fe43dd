"""A misspelt parameter of papermill ends the notebook; the default is not run in its place."""

import json

import pytest

from wsss_lab.plan.long_run import configure
from wsss_lab.plan.parameters import require_known

CELL = 'preset: str = "toy"\nsteps: int = 20\nmore: dict = {}\n'


def cells(injected):
    return {"In": ["", CELL, f"# Parameters\n{injected}\n", "require_known(globals())"]}


@pytest.mark.parametrize("injected", ["steps = 3", 'steps = 3\nmore = {"a": 1}', ""])
def test_parameters_of_the_notebook_are_welcome(injected):
    require_known(cells(injected))


@pytest.mark.parametrize(
    ("injected", "words"),
    [
        ("stepps = 3", "stepps: the notebook has no such parameter; did you mean steps?"),
        ("steps = 3\nbackbone = 'x'", "backbone: the notebook has no such parameter; it has"),
    ],
)
def test_others_are_refused_with_the_nearest_name(injected, words):
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        require_known(cells(injected))


def test_variables_of_the_reader_are_nobodys_business():
    require_known({"In": ["", CELL, "my_folder = 3", "%matplotlib inline"], "my_folder": 3})
    require_known({"stepps": 3})


def test_every_full_scale_notebook_looks(tmp_path):
    from test_notebooks import NOTEBOOKS

    for path in NOTEBOOKS:
        book = json.loads(path.read_text(encoding="utf-8"))
        (cell,) = [c for c in book["cells"] if c.get("id") == "config"]
        source = "".join(cell["source"])
        assert "LongRun.of(" in source, path.stem


def test_configure_looks_first():
    with pytest.raises(ValueError, match="stepps"):
        configure("cosa", cells("stepps = 3") | {"preset": "toy"})


def test_papermill_with_a_misspelt_parameter_ends_before_anything_is_trained(tmp_path):
    papermill = pytest.importorskip("papermill")
    from test_notebooks import FOLDER

    book, out = FOLDER / "train_cam_baseline.ipynb", tmp_path / "run"
    with pytest.raises(papermill.PapermillExecutionError, match="did you mean steps"):
        papermill.execute_notebook(
            str(book),
            str(tmp_path / "out.ipynb"),
            {"stepps": 3, "out": str(out)},
            progress_bar=False,
        )
    assert not out.exists()
