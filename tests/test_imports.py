"""The import direction of the package: a layer imports what lies below it, never back."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "wsss_lab"

# layer -> layers it may import from (itself is always allowed, except between methods)
ALLOWED = {
    "__main__": {"*"},
    "engine": {"methods", "cam", "refine", "losses", "ema", "models", "data", "metrics", "config"},
    "methods": {"cam", "refine", "losses", "ema", "models", "config"},
    "cam": {"models"},
    "losses": {"refine"},
    "refine": set(),
    "ema": set(),
    "models": {"config"},
    "data": {"config"},
    "metrics": set(),
    "studies": {"*"},
    "exercises": {"*"},
    "viz": {"data"},  # palettes and class names: wsss_lab.data.catalog only
    "weights": set(),
    "config": set(),
    "__init__": set(),
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).with_suffix("")
        yield path, relative.parts[0]


def own_imports(path: Path, layer: str):
    """Names of the layers of wsss_lab that a file imports, absolute or relative."""
    depth = len(path.relative_to(PACKAGE).parts)  # 1 for a top-level module
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [n if node.module == "wsss_lab" else node.module for n in names]
            elif node.level >= depth:
                base = f"wsss_lab.{node.module}" if node.module else "wsss_lab"
                names = [base if node.module else f"wsss_lab.{a.name}" for a in node.names]
            else:
                names = [f"wsss_lab.{layer}"]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "wsss_lab" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize(
    ("path", "layer"), list(modules()), ids=lambda value: getattr(value, "name", value)
)
def test_import_direction(path, layer):
    allowed = ALLOWED[layer]
    for target in own_imports(path, layer):
        if target in {"IGNORE", "__version__"} or target == layer or "*" in allowed:
            continue
        assert target in allowed, f"{path.name} ({layer}) may not import wsss_lab.{target}"
