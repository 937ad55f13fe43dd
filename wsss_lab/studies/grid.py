"""A study of techniques and their pairs as one table for chapters.

Its baseline has every technique off. Arms compared with it have one technique, and an arm named
``one_other`` has both, compared with ``one``.
"""

from collections.abc import Mapping

from wsss_lab.printable import row
from wsss_lab.studies.declare import read_declaration
from wsss_lab.studies.results import StudyResult, load_study
from wsss_lab.viz.page import Table


def interaction(
    base: Mapping[int, float],
    one: Mapping[int, float],
    other: Mapping[int, float],
    both: Mapping[int, float],
) -> float | None:
    """Compute what a pair has beyond the sum of both effects: both - one - other + base.

    Args:
        base: value of every seed.
        one: with one technique.
        other: with the other.
        both: with both.

    Returns:
        Mean over the seeds that all four have; None without one.
    """
    seeds = sorted(set(base) & set(one) & set(other) & set(both))
    if not seeds:
        return None
    return sum(both[s] - one[s] - other[s] + base[s] for s in seeds) / len(seeds)


def grid_table(study: StudyResult) -> str:
    """Make a Markdown table: rows and columns are techniques, numbers are of the primary metric.

    Args:
        study: with an arm for every pair, the technique first that is declared first.

    Raises:
        ValueError: a pair has no arm.
    """
    alone = [name for name, arm in study.arms.items() if arm.baseline == study.baseline]
    lines = [row(["", *alone]), "|---" * (len(alone) + 1) + "|"]
    for place, one in enumerate(alone):
        cells = [f"**{one}**"]
        for column, other in enumerate(alone):
            if column == place:
                cells.append(f"**{_difference(study, one)}**")
            elif column > place:
                cells.append(_difference(study, _pair(study, one, other)))
            else:
                cells.append(_interaction(study, one, other))
        lines.append(row(cells))
    legend = (
        "Bold: a technique alone, less the base. Above: the pair of row and column, less the arm "
        "of the row. Below: what the pair has beyond the sum of both effects. An asterisk: the "
        "difference is shown; what stands below the diagonal is not tested."
    )
    return "\n".join([*lines, "", legend, "", *study.remarks()])


def _pair(study: StudyResult, one: str, other: str) -> str:
    name = f"{one}_{other}"
    if name not in study.arms or study.arms[name].baseline != one:
        raise ValueError(
            f"arms: expected {name!r}, compared with {one!r}, among {list(study.arms)}"
        )
    return name


def _difference(study: StudyResult, name: str) -> str:
    arm = study.arms[name]
    found = arm.differences[study.primary].mean
    shown = "*" if arm.verdict in ("better", "worse") else ""
    return _points(study, found) + shown.replace("*", "\\*")


def _interaction(study: StudyResult, one: str, other: str) -> str:
    names = (study.baseline, one, other, _pair(study, other, one))
    seeds = [study.arms[name].metrics[study.primary].per_seed for name in names]
    return _points(study, interaction(*seeds))


def _points(study: StudyResult, value: float | None) -> str:
    if value is None:
        return "–"
    percent = study.metrics[study.primary].percent
    return f"{100 * value:+.1f}" if percent else f"{value:+.3f}"


def grid_of(name: str) -> Table:
    """Show the grid of a study, or the sentence that it has not been run.

    Args:
        name: of the study.

    Raises:
        ValueError: no such study, or its record is of another declaration.
    """
    declared = read_declaration(name)
    try:
        return Table(grid_table(load_study(name)))
    except FileNotFoundError:
        compared = sum(bool(arm.baseline) for arm in declared.arms.values())
        return Table(
            f"**Not run yet.** Declared: {len(declared.arms)} arms, {compared} comparisons, seeds "
            f"{', '.join(map(str, declared.profiles['full'].seeds))}; profile `cpu`: "
            f"{declared.profiles['cpu'].what}. Command: `python -m wsss_lab.studies run {name}`"
        )
