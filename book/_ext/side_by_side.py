"""Write tables, lists and pictures of the page `side_by_side` from the records of runs.

python book/_ext/side_by_side.py
"""

from collections.abc import Callable
from pathlib import Path

import side_costs
import side_effects
import side_photos
import side_pictures
import side_toy
from marked import with_part

PAGE = Path(__file__).parents[1] / "side_by_side.md"
PARTS: dict[str, Callable[[], str]] = {
    "scores, 60 steps": lambda: side_toy.scores("120"),
    "errors, 60 steps": lambda: side_toy.errors("120"),
    "scores, own studies": lambda: side_toy.scores("200"),
    "errors, own studies": lambda: side_toy.errors("200"),
    "below the box": lambda: f"{side_toy.below_the_box()}\n",
    "studies not run": lambda: f"{side_toy.declared_only()}\n",
    "presets": side_photos.presets,
    "arms on photographs": side_photos.arms,
    "failures": side_effects.lists,
    "number of intervals": lambda: f"{side_effects.corrected()}\n",
    "trades": lambda: f"{side_effects.trades()}\n",
    "refinements": side_toy.refinements,
    "comparisons": side_effects.tables,
    "cost of steps": side_costs.steps,
    "cost on photographs": side_costs.photographs,
    "networks of the gallery": lambda: f"{side_pictures.waiting()}\n",
    "gallery": side_pictures.grid,
    "numbers of the gallery": side_pictures.numbers,
    "tags of the gallery": side_pictures.tags,
}
"""Part of the page -> what writes it."""


def marks(part: str) -> tuple[str, str]:
    """Lines before and after a part."""
    return f"% {part}: written by book/_ext/side_by_side.py", f"% end of {part}"


def with_parts(page: str) -> str:
    """The page with all parts written anew.

    Raises:
        ValueError: the marks of a part are not there once each, or a study with records has no line
            on the page.
    """
    side_toy.require_all_shown()
    for part, write in PARTS.items():
        page = with_part(page, *marks(part), write())
    return page


if __name__ == "__main__":
    PAGE.write_text(with_parts(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    side_pictures.draw()
