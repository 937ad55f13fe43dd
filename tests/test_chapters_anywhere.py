"""Chapters read nothing by a path: they run from any working directory, with the package alone."""

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAPTERS = sorted((ROOT / "book").glob("*.ipynb"))
NOTEBOOKS = [*CHAPTERS, *sorted((ROOT / "notebooks").glob("*.ipynb"))]
READERS = {"Path", "open", "load", "load_file", "loadtxt", "genfromtxt", "imread", "read_csv"}
READERS |= {"read_image", "glob", "iglob", "listdir", "scandir", "run", "use_file", "fromfile"}
LOADERS = ("viz.plot_style()", "load_record", "load_study", "load_localisation")


def code(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def opening(node: ast.expr) -> str | None:
    """The text that an argument begins with, if it begins with text."""
    if isinstance(node, ast.BinOp):
        return opening(node.left)
    if isinstance(node, ast.JoinedStr):
        return opening(node.values[0]) if node.values else None
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def is_there(text: str, folder: Path) -> bool:
    """Whether a text begins with the path of something beside the notebook or in the root."""
    first, slash, _ = text.partition("/")
    if text.startswith("/") or len(text) > 200 or "\n" in text or "\0" in text:
        return False
    if slash and first:
        return any((place / first).exists() for place in (folder, ROOT))
    return "." in text.strip(".") and any((place / text).is_file() for place in (folder, ROOT))


def relative_reads(source: str, folder: Path) -> list[str]:
    """Paths in a cell that hold only in one working directory."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and node.args:
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            text = opening(node.args[0])
            # `path.glob("*.png")` and `path.open("a")` are about what they are called on
            owner = getattr(getattr(node.func, "value", None), "id", "")
            method = isinstance(node.func, ast.Attribute)
            below = method and name in ("glob", "open") and owner not in ("Image", "glob", "io")
            if name in READERS and text is not None and not below:
                found += [text] if not text.startswith("/") else []
        if isinstance(node, ast.Constant | ast.JoinedStr):
            text = opening(node)
            if text and is_there(text, folder):
                found.append(text)
    return sorted(set(found))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_cell_reads_by_a_relative_path(path):
    assert [read for cell in code(path) for read in relative_reads(cell, path.parent)] == []


@pytest.mark.parametrize(
    "source",
    [
        'json.loads(Path("records/calibration.json").read_text())',
        'files = [f"records/{seed}.json" for seed in range(3)]\nopen(files[0])',
        'np.load("numbers.npz")',
        'Image.open(f"{name}.png") and open("x.txt")',
        'text = "../README.md"',
        'style = "_static/wsss.css"',
    ],
)
def test_the_walk_sees_a_relative_read(source, tmp_path):
    (tmp_path / "records").mkdir()
    (tmp_path / "_static").mkdir()
    assert relative_reads(source, tmp_path)


@pytest.mark.parametrize(
    "source",
    [
        'root = Path(tempfile.mkdtemp()) / "toyvoc"\n(root / "tags.csv").read_text()',
        'load_record("calibration")["runs"]',
        'load_record(f"studies/asdt/cpu/r8-seed{seed}")',
        'print("mIoU / seed", "IoU/2")\nsorted(folder.glob("*.png"))',
        'with (lists / "train.txt").open("a") as file:\n    file.write("x")',
    ],
)
def test_the_walk_leaves_other_text_alone(source, tmp_path):
    assert relative_reads(source, tmp_path) == []


def run_elsewhere(folder: Path, cells: list[str]) -> subprocess.CompletedProcess:
    """Run cells in `folder`, with the package that lies unpacked in `folder/site`."""
    script = (
        "import json, sys; sys.path.insert(0, 'site')\n"
        "import matplotlib; matplotlib.use('Agg')\n"
        "import wsss_lab; assert wsss_lab.__file__.startswith(sys.argv[1]), wsss_lab.__file__\n"
        "space = {'__name__': '__main__'}\n"
        "for cell in json.loads(sys.stdin.read()): exec(cell, space)\n"
    )
    command = [sys.executable, "-c", script, str(folder)]
    text = json.dumps(cells)
    return subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("elsewhere").resolve()
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder


def test_the_first_cells_of_a_chapter_run_elsewhere(elsewhere):
    run = run_elsewhere(elsewhere, code(ROOT / "book" / "start.ipynb")[:4])
    assert run.returncode == 0, run.stderr
    assert "tagged:" in run.stdout


def test_every_record_of_every_chapter_is_in_the_wheel(elsewhere):
    """One process for all: imports are what takes time."""
    cells = []
    for path in CHAPTERS:
        lines = [line for cell in code(path) for line in cell.splitlines()]
        calls = [line.strip() for line in lines if any(name in line for name in LOADERS)]
        cells += [line for line in calls if not line.startswith("return ")]
        for line in set(calls) - set(cells):  # in a function: its arguments have no values here
            (name,) = re.findall(r'load_record\(f?"([^"]+)"\)', line)
            pattern = re.sub(r"\{[^}]*\}", "*", name) + ".json"
            assert list((elsewhere / "site" / "wsss_lab" / "records").glob(pattern)), name
    reads = [line for line in cells if "import" not in line and "plot_style" not in line]
    assert len(reads) >= len(CHAPTERS)
    run = run_elsewhere(elsewhere, ["from wsss_lab import viz", *cells])
    assert run.returncode == 0, run.stderr
