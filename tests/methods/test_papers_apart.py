"""No paper's folder imports another paper's, and what they share imports none of them."""

import ast
from pathlib import Path

import pytest

METHODS = Path(__file__).parents[2] / "wsss_lab" / "methods"
FOLDERS = sorted(folder.name for folder in METHODS.iterdir() if (folder / "__init__.py").is_file())


def imported(file):
    """Absolute names of modules that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_other_paper(folder):
    allowed = {folder, "common"}
    for file in (METHODS / folder).rglob("*.py"):
        parts = [name.split(".") for name in imported(file)]
        used = {p[2] for p in parts if p[:2] == ["wsss_lab", "methods"] and len(p) > 2}
        assert used & set(FOLDERS) <= allowed, file.name


def test_the_folders_are_found():
    assert {"acr", "asdt", "common", "cosa", "tscd"} <= set(FOLDERS)
