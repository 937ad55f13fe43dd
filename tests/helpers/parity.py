"""The README's table: methods by data sets, and how closely each meets its released code.

    PYTHONPATH=. python tests/helpers/parity.py

prints it. Presets are asked of the recipes, tolerances are read in the source of the tests.
"""

import ast
from functools import cache
from pathlib import Path

from wsss_lab.runs.recipe import find_recipe

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
DATA = {"PASCAL VOC": "voc", "COCO 2014": "coco", "COCO-Stuff 10K": "stuff10k"}
NAMES = {
    "cam_baseline": "CAM baseline",
    "tscd": "TSCD",
    "asdt": "ASDT",
    "acr": "ACR",
    "cosa": "CoSA",
    "mix": "mix of all four",
}
COLUMNS = {
    "network": {
        "tscd": "test_tscd_network.py::test_tscd_tiny",
        "asdt": "test_asdt_network.py::test_asdt_network",
        "acr": "test_acr_network.py::test_acr_other_size",
        "cosa": "test_cosa_network.py::test_cosa_forward",
    },
    "losses": {
        "tscd": "test_tscd_step.py::test_tscd_step_losses",
        "asdt": "test_asdt_losses.py::test_asdt_two_part_ce",
        "acr": "test_acr_training.py::test_acr_trajectory",
        "cosa": "test_cosa_step.py::test_cosa_step_losses",
    },
    "gradients": {
        "tscd": "test_tscd_step.py::test_tscd_step_gradients",
        "asdt": "test_asdt_losses.py::test_asdt_two_part_ce",
        "acr": "test_acr_forward.py::test_acr_step",
        "cosa": "test_cosa_step.py::test_cosa_step_gradients",
    },
    "at test": {
        "tscd": "test_tscd_evaluation.py::test_tscd_validation",
        "asdt": "test_asdt_teacher.py::test_asdt_fused_inference",
        "acr": "test_acr_localisation.py::test_acr_inference_from_the_picture",
        "cosa": "test_cosa_evaluation.py::test_cosa_evaluation_of_a_data_set",
    },
}
"""What is compared -> method -> the golden test that holds it."""


@cache
def functions(file: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((GOLDEN / file).read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def calls(test: str) -> list[ast.Call]:
    """Calls in a test, and in the functions of its own file that it calls."""
    file, name = test.split("::")
    found = [node for node in ast.walk(functions(file)[name]) if isinstance(node, ast.Call)]
    own = {getattr(call.func, "id", "") for call in found} & set(functions(file))
    for helper in sorted(own - {name}):
        found += [n for n in ast.walk(functions(file)[helper]) if isinstance(n, ast.Call)]
    return found


def tolerance(test: str, about: str = "") -> str:
    """The loosest tolerance of a test: relative, else absolute, else that labels are equal.

    Where arrays are held to a share of their largest value, that share stands in `atol` and counts
    only where no relative tolerance is asked for. `about` picks the comparisons that name it.
    """
    found: dict[str, list[float]] = {"rtol": [], "rel": [], "atol": []}
    exact = False
    for call in (call for call in calls(test) if about in ast.unparse(call)):
        name = getattr(call.func, "attr", "")
        exact |= name in ("assert_array_equal", "equal")
        for word in call.keywords:
            value = word.value.left if isinstance(word.value, ast.BinOp) else word.value
            if word.arg in found and isinstance(value, ast.Constant):
                found[word.arg].append(value.value)
    relative = max(found["rtol"] + found["rel"], default=0)
    if exact and relative == 0:
        return "labels equal"
    if relative:
        return f"{relative:.0e}".replace("e-0", "e-")
    return f"{max(found['atol']):.0e} abs.".replace("e-0", "e-")


def presets(method: str, start: str) -> str:
    names = [name for name in find_recipe(method).presets if name.startswith(start)]
    return ", ".join(f"`{name}`" for name in sorted(names, key=lambda n: (len(n), n))) or "–"


def table() -> str:
    """The table in Markdown."""
    rows = [["method", *DATA, *COLUMNS], ["---"] * (1 + len(DATA) + len(COLUMNS))]
    for method, title in NAMES.items():
        row = [title, *(presets(method, start) for start in DATA.values())]
        for what, tests in COLUMNS.items():
            if method in tests:
                file = tests[method].split("::")[0]
                how = tolerance(tests[method], "grad" if what == "gradients" else "")
                row.append(f"[{how}](tests/golden/{file})")
            else:
                row.append("–")
        rows.append(row)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    print(table())
