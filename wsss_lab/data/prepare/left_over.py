"""Notes on an own folder: what is in both lists, and what is in none."""

from pathlib import Path

from wsss_lab.data.files import list_pictures
from wsss_lab.data.index import Entry


def left_over(root: Path, listed: dict[str, set[str]], entries: list[Entry]) -> list[str]:
    """Return lines on images that two lists share, and on files that no list names.

    Args:
        root: own folder, with `images/`.
        listed: list without ending, such as `tags_val` -> names of its images.
        entries: those of all lists.
    """
    notes = []
    training = next((name for name in ("tags_train", "tags") if name in listed), "")
    if shared := sorted(listed.get(training, set()) & listed.get("tags_val", set())):
        notes.append(
            f"{len(shared)} image(s) are both in {training} and in tags_val, the first: "
            f"{shared[0]}; a score on them says nothing about new images"
        )
    named = set().union(*listed.values())
    pictures = list_pictures(root / "images", on_problem=lambda _: None).files if entries else {}
    if more := sorted(set(pictures) - named):
        notes.append(f"{len(more)} image(s) are in no list, the first: {pictures[more[0]].name}")
    if (root / "masks").is_dir():
        used = {entry.mask for entry in entries}
        files = sorted(f for f in (root / "masks").iterdir() if not f.name.startswith("."))
        if idle := [f for f in files if f.is_file() and str(f) not in used]:
            notes.append(
                f"{len(idle)} file(s) in masks/ belong to no image of a list, the first: "
                f"{idle[0].name}; a mask is named as its image, with the ending .png"
            )
    return notes
