"""What a user installs: the wheel must hold the weights and work without the checkout."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_wheel_holds_code_weights_and_licence(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    missing = [
        path.relative_to(ROOT).as_posix()
        for pattern in (
            "*.py",
            "weights/*.safetensors",
            "weights/*.json",
            "studies/declared/*.yaml",
            "records/**/*.*",
            "data/open_photos/**/*.*",
            "py.typed",
        )
        for path in (ROOT / "wsss_lab").rglob(pattern)
        if path.relative_to(ROOT).as_posix() not in names and path.suffix != ".pyc"
    ]
    assert not missing
    assert any(name.endswith("toy_cnn.safetensors") for name in names)
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("book", "tests"))]
    assert not [name for name in names if name.endswith(".pyc")]


def test_wheel_is_as_large_as_the_readme_says(wheel):
    (size,) = map(int, re.findall(r"one wheel \((\d+) MB", (ROOT / "README.md").read_text()))
    assert abs(wheel.stat().st_size / 1e6 - size) < 1


def test_wheel_installs_the_command(wheel):
    with zipfile.ZipFile(wheel) as file:
        (entries,) = [name for name in file.namelist() if name.endswith("entry_points.txt")]
        assert "wsss-lab = wsss_lab.__main__:main" in file.read(entries).decode()


def test_wheel_runs_outside_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    script = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import wsss_lab; assert wsss_lab.__file__.startswith(sys.argv[1]), wsss_lab.__file__\n"
        "from wsss_lab.__main__ import main\n"
        "assert main(['--version']) == 0\n"
        "assert main(['info']) == 0\n"
        "assert main(['data', 'toy', '--out', 'toy', '--count', '2']) == 0\n"
        "assert main(['predict', 'toy/JPEGImages', '--out', 'masks']) == 0\n"
        "photo = 'site/wsss_lab/data/open_photos/JPEGImages/gcompris_animals_cat.jpg'\n"
        "assert main(['predict', photo, '--out', 'seen']) == 0\n"
        "assert main(['explain', photo]) == 0\n"
    )
    folder = tmp_path.resolve()
    run = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert len(list((folder / "masks").glob("*.png"))) == 2
    assert "gcompris_animals_cat.jpg: cat" in run.stdout
    assert (folder / "gcompris_animals_cat_explained.png").stat().st_size > 10_000


def test_recorded_numbers_stay_small():
    files = [path for path in (ROOT / "tests/golden/recorded").rglob("*") if path.is_file()]
    assert files
    assert sum(path.stat().st_size for path in files) <= 12e6
