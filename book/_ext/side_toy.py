"""The toy world on the page `side_by_side`: whole methods, rows that never look, effects."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from side_rows import (
    NONE,
    OUTPUTS,
    SCORES,
    SPACE,
    Effect,
    Measure,
    at,
    contexts,
    effect,
    elsewhere,
    errors_of,
    find,
    runs_of,
    shown,
    signed,
    values,
)

from wsss_lab.printable import row
from wsss_lab.records import RECORDS, load_record
from wsss_lab.studies.declare import DECLARED, read_declaration
from wsss_lab.studies.results import SIGNS

NOT_RUN = "not run"


@dataclass(frozen=True)
class Line:
    """A line of a table: an arm of a study, or what was not run."""

    name: str
    study: str = ""
    arm: str = ""

    def runs(self) -> dict[int, Any]:
        """Finished runs by seed; none where it was not run."""
        return runs_of(self.study).get(self.arm, {}) if self.study else {}


ALIKE = (
    Line("CAM baseline"),
    Line("TSCD", "acr", "tscd"),
    Line("TSCD with ACR's consistency", "acr", "tscd_acr"),
    Line("ASDT"),
    Line("ACR without its losses", "acr", "base"),
    Line("ACR", "acr", "both"),
    Line("CoSA", "precision", "cosa"),
    Line("CoSA", "acr", "cosa"),
    Line("CoSA with ACR's losses", "acr", "cosa_acr"),
)
"""The same 120 scenes, the same 60 steps of 8 images."""
OWN = (
    Line("CAM baseline, one scale", "cam_baseline", "gap_single"),
    Line("CAM baseline", "cam_baseline", "gap_multi"),
    Line("TSCD without its parts", "tscd", "base"),
    Line("TSCD", "tscd", "both"),
    Line("ASDT, teacher A alone", "asdt", "r1"),
    Line("ASDT", "asdt", "r8"),
    Line("ACR without its losses", "acr2", "base"),
    Line("ACR", "acr2", "both"),
    Line("ACR, with a segmentation"),
    Line("CoSA without its parts", "cosa", "base"),
    Line("CoSA", "cosa", "all"),
)
"""Each method's own study, on 200 scenes."""
LISTS = {"120": ALIKE, "200": OWN}
SANITY = {
    "all background": ("all background", "seg"),
    "noise for maps, true tags": ("noise", "cam+true tags"),
    "true tags in a box, half the image": ("box", "seg+true tags"),
}
"""Name on the page -> row and kind in the record `sanity`."""
ELSEWHERE = ("photos",)
"""Studies with records that another part of the page shows."""
NO_TECHNIQUE = ("precision",)
"""Studies whose arms differ in no technique."""


def network(config: Mapping[str, Any]) -> str:
    """Backbone of a run, and what it had learned before."""
    backbone = find(config, "method.backbone") or config["backbone"]
    before = "tags" if config.get("start") else "one-object scenes"
    return f"`{backbone}`, {before}"


def steps(config: Mapping[str, Any]) -> str:
    """Steps and images a step; the baseline's two networks one after the other."""
    run = config["run"]
    # ACR's study ends with the maps: its settings name further steps that were not taken
    masks = config.get("mask_steps", 0) if config.get("until", "masks") == "masks" else 0
    return times(f"{run['steps']}{f' + {masks}' if masks else ''}", run["batch"])


def times(steps: object, batch: int) -> str:
    """Steps and images a step."""
    return f"{steps} × {batch}"


def any_of(runs: Mapping[int, Any]) -> Mapping[str, Any]:
    """Settings of a run; arms do not change with the seed."""
    return runs[min(runs)]["config"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; no line is broken at ± and ×."""
    lines = (row(head), "|---" * len(head) + "|", *map(row, rows))
    return re.sub(" ([±×]) ", rf"{SPACE}\1{SPACE}", "".join(f"{line}\n" for line in lines))


def scores(scenes: str) -> str:
    """Table of the scores of whole methods on a list of scenes."""
    head = ["method", "network, learned before", "steps", *(m.head for m in SCORES)]
    rows = []
    for line in LISTS[scenes]:
        runs = line.runs()
        if runs:
            config = any_of(runs)
            cells = [shown(values(runs, measure.read), measure) for measure in SCORES]
            rows.append([line.name, network(config), steps(config), *cells])
        else:
            rows.append([line.name, NOT_RUN, *[NONE] * (len(head) - 2)])
    for name, (key, kind) in SANITY.items():
        miou = f"{100 * load_record('sanity')['val'][scenes][key][kind]['miou']:.1f}"
        place = "maps" if kind.startswith("cam") else "segmentation"
        cells = [miou if measure.head == place else NONE for measure in SCORES]
        rows.append([f"*{name}*", NONE, NONE, *cells])
    return table(head, rows)


def errors(scenes: str) -> str:
    """Table of the errors of whole methods on a list of scenes, one row per kind of output."""
    head = ["method", "output", *(measure.head for measure in errors_of("seg"))]
    rows = []
    for line in LISTS[scenes]:
        runs = line.runs()
        for output in OUTPUTS:
            cells = [shown(values(runs, m.read), m) for m in errors_of(output)]
            if any(cell != NONE for cell in cells):
                rows.append([line.name, described(output, runs), *cells])
    for name, (key, kind) in SANITY.items():
        results = {"val": {"seg": load_record("sanity")["val"][scenes][key][kind]}}
        found = {m.head: m.read(results) for m in errors_of("seg")}
        cells = [
            NONE if found[m.head] is None else f"{m.scale * found[m.head]:.1f}"  # type: ignore[operator]
            for m in errors_of("seg")
        ]
        rows.append([f"*{name}*", OUTPUTS[kind.partition("+")[0]], *cells])
    return table(head, rows)


def below_the_box() -> str:
    """Sentence on the segmentations of the shared budget that score less than the box."""
    box = load_record("sanity")["val"]["120"]["box"]["seg+true tags"]["miou"]
    read, found = at("val.seg.miou"), []
    for line in ALIKE:
        runs = line.runs()
        seeds = values(runs, read)
        if seeds and max(seeds.values()) < box:
            found.append(f"{line.name} ({network(any_of(runs))})")
    if not found:
        return "Every segmentation is above the box, in some seed at least."
    return (
        f"Below the box ({100 * box:.1f}) in every seed are the segmentations of "
        f"{', '.join(found)}. The box is told the true tags, which they are not; it knows nothing "
        "else."
    )


def refinements() -> str:
    """Table of refinements of fixed maps, from their record: one network, 300 training scenes."""
    scores = load_record("refine")["scores"]
    rows = []
    for name, found in scores["methods"].items():
        if not name.endswith(", shrunk"):
            mean, low, high = (signed(100 * value) for value in found["gain"])
            gain = NONE if name == "none" else f"{mean} [{low}, {high}]"
            rows.append([name, *_refined(found), gain])
    rows.sort(key=lambda cells: (cells[0] != "none", cells[0].startswith("CRF"), cells[0]))
    for name, found in scores["sanity"].items():
        if not name.endswith(", shrunk"):
            rows.append([f"*{name}*", *_refined(found), NONE])
    return table(["refinement", "mIoU", "outline F", "gain in mIoU"], rows)


def _refined(found: Mapping[str, Any]) -> list[str]:
    return [f"{100 * found[key]:.1f}" for key in ("miou", "boundary_f")]


def described(output: str, runs: Mapping[int, Any]) -> str:
    """Kind of output, and the threshold of maps as the runs' protocol has it."""
    if output == "seg":
        return OUTPUTS[output]
    protocol = find(runs[min(runs)]["results"], f"val.{output}.protocol.thresholds")
    return f"{OUTPUTS[output]}, {protocol}".replace("fixed at", "cut at")


def surplus(output: str) -> Any:
    """Read what is claimed of contexts beyond what is claimed of other background."""

    def read(results: Mapping[str, Any]) -> float | None:
        on, off = contexts(output)(results), elsewhere(output)(results)
        return None if on is None or off is None else on - off

    return read


def failures_of(output: str) -> list[Measure]:
    """One measure for each failure, and the mIoU."""
    errors = {measure.head: measure for measure in errors_of(output)}
    return [
        errors["far"],
        Measure("context", surplus(output), up=False),
        Measure("outline", at(f"val.{output}.outline")),
        errors["excess"],
        errors["left out"],
        errors["classes lost"],
        Measure("mIoU", at(f"val.{output}.miou")),
    ]


@dataclass(frozen=True)
class Compared:
    """A technique against its control, in one kind of output."""

    study: str
    arm: str
    what: str
    control: str
    control_what: str
    output: str
    effects: Mapping[str, Effect | None]
    """Head of a column -> effect; None where it was not measured."""
    verdict: str
    """The study's own, on its primary measure."""


def compared(studies: Sequence[str]) -> list[Compared]:
    """Every arm with a control of the same method, of some studies."""
    found = []
    for study in (name for name in studies if name not in NO_TECHNIQUE):
        summary, runs = load_record(f"studies/{study}/cpu"), runs_of(study)
        arms = summary["arms"]
        for arm in summary["order"]["arms"]:
            control = arms[arm]["baseline"]
            same = control and arms[control]["method"] == arms[arm]["method"]
            if not same or arm not in runs or control not in runs:
                continue
            for output in OUTPUTS:
                effects = {
                    measure.head: effect(runs[arm], runs[control], measure)
                    for measure in failures_of(output)
                }
                if any(effects.values()):
                    verdict = SIGNS[arms[arm]["verdict"]]
                    named = [arms[name]["what"] for name in (arm, control)]
                    found.append(
                        Compared(study, arm, named[0], control, named[1], output, effects, verdict)
                    )
    return found


def studies_here() -> list[str]:
    """Studies with records, in the order of the alphabet."""
    folder = RECORDS / "studies"
    return sorted(path.name for path in folder.iterdir() if runs_of(path.name))


def declared_only() -> str:
    """A sentence on the studies that are declared and have no run yet."""
    here = studies_here()
    names = sorted(path.stem for path in DECLARED.glob("*.yaml") if path.stem not in here)
    if not names:
        return "Every declared study has runs."
    titles = [f"`{name}` ({read_declaration(name).title})" for name in names]
    return f"Declared, not run yet: {'; '.join(titles)}."


def require_all_shown() -> None:
    """Check that no study with records is forgotten.

    Raises:
        ValueError: there is one; the message names it.
    """
    known = {line.study for lines in LISTS.values() for line in lines} | set(ELSEWHERE)
    if unknown := [name for name in studies_here() if name not in known]:
        raise ValueError(
            f"studies {', '.join(unknown)}: there are records, and no line of the page shows one; "
            "add lines for the whole methods among their arms to ALIKE or OWN"
        )
