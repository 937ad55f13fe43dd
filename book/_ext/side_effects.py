"""Which technique removes which failure: lists and tables of the page `side_by_side`."""

from collections.abc import Sequence

from side_rows import NONE, OUTPUTS, Effect
from side_toy import Compared, compared, studies_here, table

from wsss_lab.records import load_record
from wsss_lab.studies.verdicts import holm

ALPHA = 0.05
COLUMNS = ("far", "context", "outline", "excess", "left out", "classes lost", "mIoU")
FAILURES = {
    "far": "Only the most distinctive part",
    "context": "Spill into contexts",
    "outline": "Outlines",
    "excess": "Pixels painted in excess",
    "left out": "Pixels left out",
    "classes lost": "Classes that the network never gets right",
}
"""Column -> the failure that it measures."""
MEASURED = {
    "far": "Recall of object pixels far from the part that gives the class away; more is better.",
    "context": "What boats claim of water and trains of rails, less what they claim of the other "
    "background of the same scenes; less is better.",
    "outline": "Boundary F; more is better.",
    "excess": "Pixels given to a class wrongly, as a share of all object pixels; less is better.",
    "left out": "Object pixels not given to their class; less is better.",
    "classes lost": "Classes with an IoU below 1 %; fewer is better.",
}


def all_compared() -> list[Compared]:
    """Every comparison of the page: all studies, in the order of the alphabet."""
    return compared(studies_here())


def named(one: Compared) -> str:
    """Name of a comparison in a list."""
    return f"`{one.study}`, {OUTPUTS[one.output]}: {one.what}, against: {one.control_what}"


def lists() -> str:
    """For each failure: what reduces it, what adds to it, what shows nothing, what is missing."""
    every, text = all_compared(), ""
    for column, failure in FAILURES.items():
        pairs = [(one, one.effects[column]) for one in every]
        seen = [(one, found) for one, found in pairs if found is not None]
        text += f"### {failure}\n\n{MEASURED[column]}\n\n"
        for word, lead in (("better", "Less of it"), ("worse", "More of it")):
            lines = [f"{named(one)}; {found.interval}" for one, found in seen if found.word == word]
            text += items(lead, lines)
        single = sum(found.word == "one seed" for _, found in seen)
        if single:
            text += f"- *One seed, so without an interval*: {single}, see the folded tables.\n"
        text += f"- *Not shown*: {unshown([found for _, found in seen])}.\n"
        studies = sorted({one.study for one in every} - {one.study for one, _ in seen})
        missing = ", ".join(f"`{study}`" for study in studies)
        text += f"- *Not measured* in: {missing or 'no study'}.\n\n"
    return text


def items(lead: str, lines: Sequence[str]) -> str:
    """A point of a list, with points of its own."""
    if not lines:
        return f"- *{lead}*: nothing.\n"
    return f"- *{lead}*:\n" + "".join(f"  - {line}\n" for line in lines)


def trades() -> str:
    """Sentence on gains in one kind of pixel that were paid for with the other."""
    both = []
    for one in all_compared():
        pair = [one.effects[column] for column in ("excess", "left out")]
        words = [found.word for found in pair if found is not None]
        if "better" in words or "worse" in words:
            both.append(words)
    paid = sum(sorted(words) == ["better", "worse"] for words in both)
    free = sum("better" in words and "worse" not in words for words in both)
    return (
        f"Of {len(both)} comparisons in which one of the two moved, {paid} gained in the one and "
        f"lost in the other, {free} gained without such a loss being shown, and "
        f"{len(both) - paid - free} only lost."
    )


def unshown(found: Sequence[Effect]) -> str:
    """How many effects are not shown, and how large they would have had to be."""
    with_interval = [one for one in found if one.half is not None]
    halves = [one.half or 0.0 for one in with_interval if one.word == "not shown"]
    if not halves:
        return "none has an interval" if not with_interval else "none"
    ends = [f"{end:.1f}" if end >= 0.05 else "0.0" for end in (min(halves), max(halves))]
    return (
        f"{len(halves)} of {len(with_interval)}; the smallest effect that would have been seen "
        f"lies between {ends[0]} and {ends[1]}"
    )


def corrected() -> str:
    """Sentences on the number of intervals, and on what is left after correction."""
    found = [
        (f"{named(one)}, {column}", effect)
        for one in all_compared()
        for column, effect in one.effects.items()
        if effect is not None and effect.half is not None
    ]
    outside = [effect for _, effect in found if effect.word in ("better", "worse")]
    values = holm({str(i): effect.p for i, (_, effect) in enumerate(found)}, len(found))
    left = [name for i, (name, _) in enumerate(found) if values[str(i)] < ALPHA]
    kept = "none is left" if not left else f"these are left: {'; '.join(left)}"
    return (
        f"There are {len(found)} intervals here, and {len(outside)} exclude zero; if no technique "
        f"did anything, {ALPHA * len(found):.0f} would by chance. After Holm's correction over all "
        f"of them, {kept}."
    )


def tables() -> str:
    """All comparisons, one folded table for each study."""
    every, text = all_compared(), ""
    for study in sorted({one.study for one in every}):
        title = load_record(f"studies/{study}/cpu")["title"]
        rows = [
            [
                f"{one.what}, against: {one.control_what}",
                OUTPUTS[one.output],
                *(NONE if one.effects[c] is None else str(one.effects[c]) for c in COLUMNS),
                one.verdict,
            ]
            for one in every
            if one.study == study
        ]
        head = ["technique", "output", *COLUMNS, "the study's verdict"]
        text += f"::::{{dropdown}} {title} (`{study}`)\n{table(head, rows)}::::\n\n"
    return text
