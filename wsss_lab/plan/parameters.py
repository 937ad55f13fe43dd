"""Parameters of a notebook: those that papermill gives it must be among those that it has."""

import ast
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

INJECTED = "# Parameters"
"""First line of the cell that papermill adds behind the parameters cell."""


def require_known(namespace: Mapping[str, Any]) -> None:
    """Refuse parameters that papermill has set and the notebook does not have.

    Papermill itself only logs them, and the notebook would run with its defaults.

    Args:
        namespace: `globals()` of the notebook; without IPython's `In`, there is nothing to compare.

    Raises:
        ValueError: names them, and the nearest that there are.
    """
    known: set[str] = set()
    for cell in namespace.get("In", ()):
        names = _assigned(cell)
        if cell.partition("\n")[0].strip() == INJECTED:
            for name in names:
                if name not in known:
                    near = get_close_matches(name, known, 1)
                    hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
                    raise ValueError(
                        f"{name}: the notebook has no such parameter; {hint} Other settings go "
                        "into `more`, by their names on the command line"
                    )
        known.update(names)


def _assigned(cell: str) -> list[str]:
    """Names that a cell assigns at its top level; none if it is not plain Python."""
    try:
        statements = ast.parse(cell).body
    except SyntaxError:
        return []
    names = []
    for statement in statements:
        targets = getattr(statement, "targets", [getattr(statement, "target", None)])
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names
