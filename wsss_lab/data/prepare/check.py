"""Check of a data set on disk that reports all problems at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from wsss_lab.data import layouts
from wsss_lab.data.errors import DataError, OnProblem, Problem
from wsss_lab.data.files import list_pictures
from wsss_lab.data.images import TURN, read_orientation
from wsss_lab.data.index import Entry, Index, load_entry
from wsss_lab.data.prepare.left_over import left_over
from wsss_lab.data.tags import tags_from_mask

KINDS = ("voc", "coco", "stuff10k", "folder")
"""Layouts that `check` supports. `folder` is a user's own: `images/`, `tags.csv` or one
`tags_*.csv` a list, maybe `masks/`."""

MOST_CLASSES = 254
"""Foreground classes that label images can hold beside background (0) and unlabelled (255)."""

_NO_TRUTH = ("test",)  # VOC's list of this name has neither masks nor tags


def find_kind(root: Path) -> str | None:
    """Detect the layout of a folder; None if there is none."""
    if any((root / p / "JPEGImages").is_dir() for p in ("", "VOC2012", "VOCdevkit/VOC2012")):
        return "voc"
    if (root / "train2014").is_dir() or (root / "val2014").is_dir():
        return "coco"
    if (root / "imageLists").is_dir() or (root / "tags_test.csv").is_file():
        return "stuff10k"
    own = (root / "images").is_dir() or any(root.glob("tags*.csv"))
    return "folder" if own else None


def check(root: str | Path, kind: str | None = None, workers: int = 8) -> list[Problem]:
    """Read every list, image and mask of a data set and return all problems, without raising.

    It finds missing and doubled names, images without tags, tags of unknown classes, rows without a
    class, empty lists, more classes than label images can hold, lists whose classes differ in a
    name or in their order, broken or truncated files, masks
    that are missing, lossy, RGB, renumbered, of another size than their image, or with ids that no
    class has. In an own folder also masks that contradict their image's tags; in the published sets
    some do, and `check_report` counts them.

    Args:
        root: the folder.
        kind: one of `KINDS`; None detects it.
        workers: threads that decode files.

    Raises:
        ValueError: unknown kind.
    """
    return _check(Path(root), kind, workers)[0]


def check_report(
    root: str | Path, kind: str | None = None, workers: int = 8, limit: int = 50
) -> tuple[str, int]:
    """Return `check` as text, and the number of problems (0: the data set can be used).

    At most `limit` problems are written out.
    """
    problems, notes = _check(Path(root), kind, workers)
    lines = [*notes, *(f"- {problem}" for problem in problems[:limit])]
    if len(problems) > limit:
        lines.append(f"- ... and {len(problems) - limit} more")
    lines.append("No problems." if not problems else f"{len(problems)} problem(s).")
    return "\n".join(lines), len(problems)


def _check(root: Path, kind: str | None, workers: int) -> tuple[list[Problem], list[str]]:
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)} or None, got {kind!r}")
    kind = kind or find_kind(root)
    if kind is None:
        what = "is no folder that looks like a data set"
        remedy = (
            "Expected images/ and tags_train.csv (your own), JPEGImages/ (voc), train2014/ (coco) "
            "or imageLists/ (stuff10k)"
        )
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "is not there"
            remedy = "Name the folder that holds the data set"
        return [Problem(str(root), what, remedy, missing=True)], []
    problems: list[Problem] = []
    notes: list[str] = []
    entries: dict[str, tuple[Index, Entry, bool]] = {}
    listed: dict[str, set[str]] = {}
    for split, make, masks in _splits(root, kind, problems, notes):
        try:
            index = make(on_problem=problems.append)
        except DataError as error:
            problems.append(Problem.of(error))
            continue
        notes.append(f"{split}: {len(index.entries)} images, {len(index.classes)} classes")
        file = str(root / f"{split}.csv") if kind == "folder" else split
        problems.extend(_list_problems(file, index))
        listed[split] = {entry.name for entry in index.entries}
        for entry in index.entries:
            there = kind == "folder" and entry.mask is not None  # is read, even if not needed
            # an image may be in several lists; one that needs its mask is enough
            before = entries.get(entry.image, (index, entry, False))[2]
            entries[entry.image] = (index, entry, masks or there or before)
    notes += _skipped(root, kind)
    if kind == "folder" and not problems:  # a row that was refused would count as no row
        notes += left_over(root, listed, [entry for _, entry, _ in entries.values()])
    contradicting: list[Problem] = []
    turned: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(_check_entry, entries.values())
        for some in tqdm(found, total=len(entries), desc="check", unit="image", disable=None):
            problems.extend(some.problems)
            contradicting.extend(some.contradictions)
            turned.extend(some.turned)
    if any(index.own for index, _, _ in entries.values()):
        problems += contradicting
    elif contradicting:
        one = contradicting[0]
        some_masks = f"{len(contradicting)} mask(s) contradict their image's tags"
        notes.append(f"{some_masks}, as some do in this data set; the first: {one.file} {one.what}")
    if turned:
        notes.append(
            f"{len(turned)} photo(s) have an EXIF orientation, which is not applied, the first: "
            f"{turned[0]}. {TURN}."
        )
    return list(dict.fromkeys(problems)), notes


def _list_problems(split: str, index: Index) -> list[Problem]:
    """Problems of a whole list: nothing in it, or more classes than label images can hold."""
    found = []
    if not index.entries:
        remedy = "Name its images, or remove the list"
        found.append(Problem(split, "the list is empty, so nothing can be done with it", remedy))
    if len(index.classes) > MOST_CLASSES:
        what = f"has {len(index.classes)} classes, but label images have room for {MOST_CLASSES}"
        found.append(Problem(split, what, "Join or drop classes"))
    return found


def _skipped(root: Path, kind: str) -> list[str]:
    """One line on the files among the images that no reader opens."""
    places = {"voc": ["JPEGImages"], "coco": ["train2014", "val2014"]}.get(kind, ["images"])
    base = layouts.voc_root(root) if kind == "voc" and find_kind(root) == "voc" else root
    lines = []
    for place in places:
        if (base / place).is_dir():
            note = list_pictures(base / place, on_problem=lambda _: None).skipped_note()
            lines += [f"{place}: {note}"] if note else []
    return lines


@dataclass
class _Found:
    """What one image and its mask have shown."""

    problems: list[Problem] = field(default_factory=list)
    contradictions: list[Problem] = field(default_factory=list)
    turned: list[str] = field(default_factory=list)


def _check_entry(item: tuple[Index, Entry, bool]) -> _Found:
    index, entry, masks = item
    found = _Found()
    try:
        _, mask = load_entry(index, entry, masks)
        if read_orientation(entry.image) > 1:
            found.turned.append(entry.image)
    except DataError as error:
        found.problems.append(Problem.of(error))
        return found
    if mask is not None:
        found.contradictions += _contradictions(index, entry, tags_from_mask(mask))
    return found


def _contradictions(index: Index, entry: Entry, seen: tuple[int, ...]) -> list[Problem]:
    """Return how the classes of a mask differ from the tags of its image."""
    absent = [index.classes[c] for c in entry.tags if c not in seen]
    untagged = [index.classes[c] for c in seen if c not in entry.tags]
    what = [f"has no pixel of {', '.join(absent)}, a tag of its image"] if absent else []
    what += [f"has pixels of {', '.join(untagged)}, no tag of its image"] if untagged else []
    remedy = (
        f"Correct the tags or the mask; mask values are {_values(index.classes)}, 0 is background"
    )
    return [Problem(str(entry.mask), " and ".join(what), remedy)] if what else []


def _values(classes: tuple[str, ...], most: int = 6) -> str:
    shown = [f"{i} {name}" for i, name in enumerate(classes[:most], 1)]
    return ", ".join([*shown, "..."] if len(classes) > most else shown)


def _splits(
    root: Path, kind: str, problems: list[Problem], notes: list[str]
) -> list[tuple[str, Callable[..., Index], bool]]:
    """Return name, index function and need of masks for every split of a data set."""
    if kind == "voc":
        return _voc_splits(root, problems, notes)
    if kind == "folder":
        return _folder_splits(root, problems, notes)
    index = layouts.index_coco if kind == "coco" else layouts.index_stuff10k
    splits = ("train", "val") if kind == "coco" else ("train", "test")
    return [(split, partial(index, root, split), True) for split in splits]


def _folder_splits(
    root: Path, problems: list[Problem], notes: list[str]
) -> list[tuple[str, Callable[..., Index], bool]]:
    """Return a split per `tags*.csv`; only that of "val" needs a mask per image."""
    masks = root / "masks" if (root / "masks").is_dir() else None
    lists = sorted(root.glob("tags*.csv")) or [root / "tags.csv"]
    if masks is None and any(path.stem == "tags_val" for path in lists):
        what = "this folder is not there, so nothing can be scored on tags_val.csv"
        remedy = "Put a mask NAME.png there for each of its images, or do without scores"
        problems.append(Problem(str(root / "masks"), what, remedy, missing=True))
    stems = [path.stem for path in lists]
    if "tags_train" not in stems and "tags" not in stems:
        found = ", ".join(path.name for path in lists)
        if stems == ["tags_val"]:
            notes.append("there is no tags_train.csv: good for evaluation, not for training")
        else:
            what = f"this list is not there, and a training reads it; there is {found}"
            remedy = "Rename one, or name it in --data.train-split, as in tags_NAME.csv"
            problems.append(Problem(str(root / "tags_train.csv"), what, remedy, missing=True))
    classes = None
    try:
        training_first = sorted(lists, key=lambda path: path.stem not in ("tags_train", "tags"))
        classes = layouts.folder_classes(root, training_first, notes)
    except DataError as error:
        problems.append(Problem.of(error))
    return [
        (
            path.stem,
            partial(layouts.index_folder, root / "images", path, masks, classes),
            masks is not None and path.stem == "tags_val",
        )
        for path in lists
    ]


def _voc_splits(
    root: Path, problems: list[Problem], notes: list[str]
) -> list[tuple[str, Callable[..., Index], bool]]:
    try:
        folder = layouts.voc_root(root)
    except DataError as error:
        problems.append(Problem.of(error))
        return []
    found = sorted((folder / "ImageSets" / "Segmentation").glob("*.txt"))
    lists = [path for path in found if not path.name.startswith(".")]
    if not lists:
        what, remedy = "there are no split lists", "Write train.txt and val.txt, one name a line"
        problems.append(Problem(str(folder / "ImageSets/Segmentation"), what, remedy, missing=True))
    source = layouts.tag_source(folder)
    if source is None:
        source = "none"
        notes.append('no tags.csv and no Annotations: reading it needs tags="masks" (pixel truth)')
    masks = (folder / "SegmentationClass").is_dir()
    if not masks:
        notes.append("no SegmentationClass: good for training and prediction, not for evaluation")
    return [
        (
            path.stem,
            partial(_voc_index, folder, path.stem, "none" if path.stem in _NO_TRUTH else source),
            masks and path.stem not in _NO_TRUTH,
        )
        for path in lists
    ]


def _voc_index(folder: Path, split: str, tags: str, on_problem: OnProblem) -> Index:
    return layouts.index_voc(folder, split, tags, on_problem=on_problem)
