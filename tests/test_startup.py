"""What a command does not need is not imported: facts, not times."""

import subprocess
import sys

import pytest

NETWORKS = {"timm", "torchvision", "torch._dynamo", "huggingface_hub"}
TRAINING = {"lightning_fabric", "torchmetrics", "torch.utils.tensorboard"}
FIGURES = {"matplotlib"}
TABLES = {"scipy", "sklearn", "skimage", "pandas", "IPython"}
COMMAND = """
import runpy
sys.argv[1:] = {arguments!r}
try:
    runpy.run_module("wsss_lab", run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert not stop.code, stop.code
"""
CASES = {
    "import wsss_lab.refine": NETWORKS | TRAINING | FIGURES | TABLES,
    "info": NETWORKS | TRAINING | FIGURES | TABLES,
    "train cosa --help": NETWORKS | TRAINING | FIGURES | TABLES,
    "plan acr --help": NETWORKS | TRAINING | FIGURES | TABLES,
    # has a network, made of timm's parts, but draws no figure and trains nothing
    "predict photo.png --out masks": TRAINING | FIGURES | TABLES,
}


def loaded_after(case, folder):
    code = case if case.startswith("import ") else COMMAND.format(arguments=case.split())
    text = f"import sys\n{code}\nprint('LOADED', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize("case", CASES)
def test_only_what_is_needed_is_imported(case, tmp_path):
    if case.startswith("predict"):
        from PIL import Image

        Image.new("RGB", (128, 96), "grey").save(tmp_path / "photo.png")
    loaded = loaded_after(case, tmp_path)
    assert "torch" in loaded
    assert not loaded & CASES[case]


def test_the_test_sees_what_is_imported(tmp_path):
    loaded = loaded_after("import wsss_lab.models.toynets", tmp_path)
    assert loaded & NETWORKS == NETWORKS
