"""What a command does not need is not imported: facts, not times."""

import json
import subprocess
import sys

import pytest

NETWORKS = {"timm", "torchvision", "torch._dynamo", "huggingface_hub"}
TRAINING = {"lightning_fabric", "torchmetrics", "torch.utils.tensorboard"}
FIGURES = {"matplotlib"}
TABLES = {"scipy", "sklearn", "skimage", "pandas", "IPython"}
# One process does all in this order, as imports stay: what may load more comes after what may not.
CASES = {
    "import wsss_lab.refine": NETWORKS | TRAINING | FIGURES | TABLES,
    "info": NETWORKS | TRAINING | FIGURES | TABLES,
    "train cosa --help": NETWORKS | TRAINING | FIGURES | TABLES,
    "plan acr --help": NETWORKS | TRAINING | FIGURES | TABLES,
    # has a network, made of timm's parts, but draws no figure and trains nothing
    "predict photo.png --out masks": TRAINING | FIGURES | TABLES,
    "import wsss_lab.models.toynets": set(),
}
SCRIPT = """
import json, runpy, sys
loaded = {}
for case in json.loads(sys.argv[1]):
    if case.startswith("import "):
        exec(case)
    else:
        sys.argv[1:] = case.split()
        try:
            runpy.run_module("wsss_lab", run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            assert not stop.code, (case, stop.code)
    loaded[case] = sorted(sys.modules)
print("LOADED", json.dumps(loaded))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Names of the modules that are there after each case."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("startup")
    Image.new("RGB", (128, 96), "grey").save(folder / "photo.png")
    command = [sys.executable, "-c", SCRIPT, json.dumps(list(CASES))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.rpartition("LOADED ")[2])
    return {case: set(names) for case, names in found.items()}


@pytest.mark.parametrize("case", [case for case, others in CASES.items() if others])
def test_only_what_is_needed_is_imported(case, loaded):
    assert "torch" in loaded[case]
    assert not loaded[case] & CASES[case]


def test_the_test_sees_what_is_imported(loaded):
    assert loaded["import wsss_lab.models.toynets"] & NETWORKS == NETWORKS
    assert not loaded["plan acr --help"] & NETWORKS
