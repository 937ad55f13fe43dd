"""What a user installs: the wheel must hold the weights and work without the checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    (copy / "wsss_lab").symlink_to(ROOT / "wsss_lab")  # build folders stay out of the checkout
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


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
            "data/open_photos/**/*.*",
            "py.typed",
        )
        for path in (ROOT / "wsss_lab").rglob(pattern)
        if path.relative_to(ROOT).as_posix() not in names
    ]
    assert not missing
    assert any(name.endswith("toy_cnn.safetensors") for name in names)
    assert any(name.endswith("LICENSE") for name in names)


def test_wheel_runs_outside_the_checkout(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    script = (
        "import sys; sys.path.insert(0, 'site')\n"
        "import wsss_lab; assert wsss_lab.__file__.startswith(sys.argv[1]), wsss_lab.__file__\n"
        "from wsss_lab.__main__ import main\n"
        "assert main(['info']) == 0\n"
        "assert main(['data', 'toy', '--out', 'toy', '--count', '2']) == 0\n"
        "assert main(['predict', 'toy/JPEGImages', '--out', 'masks']) == 0\n"
    )
    folder = tmp_path.resolve()
    run = subprocess.run(
        [sys.executable, "-c", script, str(folder)], cwd=folder, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert len(list((folder / "masks").glob("*.png"))) == 2


def test_recorded_numbers_stay_small():
    files = [path for path in (ROOT / "tests/golden/recorded").rglob("*") if path.is_file()]
    assert files
    assert sum(path.stat().st_size for path in files) <= 12e6
