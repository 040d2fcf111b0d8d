"""The report that puts groups of runs beside each other: AP against labels, spread over seeds, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from boxcycle.data.index import Index
from boxcycle.evaluation.errors import ERRORS
from boxcycle.evaluation.groups import FIGURES, Group, difference
from boxcycle.evaluation.paired import PairedDifference
from boxcycle.report.error_kinds import EXPLAINED, bars_by_kind
from boxcycle.report.html import Cell, Change, Figure, Interval, Report, Table, WithSpread, write_report
from boxcycle.report.label_curves import label_charts, mean_errors
from boxcycle.report.run import describe

MOST_CLASSES = 80


def write_group_report(path: Path, groups: Sequence[Group], index: Index, settings: Mapping[str, str]) -> None:
    """Write the report ``path`` on groups of runs, all evaluated on ``index``; the others are held against the first.

    ``settings``: what stands under "How it was made", by title.
    """
    tables = [
        group_table(groups),
        difference_table(groups),
        _error_table(groups),
        _class_table(groups),
        _run_table(groups),
    ]
    report = Report(
        title="Comparison of runs",
        lead=describe(index),
        figures=_headline(groups),
        tables=[table for table in tables if table.rows],
        charts={**label_charts(groups), "Errors by kind, mean of the runs": bars_by_kind(mean_errors(groups, ERRORS))},
        details=settings,
    )
    write_report(path, report)


def _headline(groups: Sequence[Group]) -> list[Figure]:
    def note(group: Group) -> str:
        runs = len(group.runs)
        return f"± {group.figure('AP50').std:.1f} over {runs} seeds" if runs > 1 else "one run"

    figures = [Figure(f"AP50, {group.name}", group.figure("AP50").mean, note(group)) for group in groups[:6]]
    for group in groups[1:6]:
        found = difference(group, groups[0], "AP50")
        if found and found.count > 1:
            half = (found.high - found.low) / 2
            name = f"{group.name} minus {groups[0].name}"
            figures.append(Figure(name, Change(found.mean), f"± {half:.1f} (95 %, {found.count} shared seeds)"))
    return figures


def group_table(groups: Sequence[Group]) -> Table:
    """A row for each group: labels spent and figures, mean and standard deviation over its runs."""
    rows: list[Sequence[Cell]] = []
    for group in groups:
        labels = [group.spread(lambda run, i=i: float(run.result.labels[i])) for i in range(3)]  # type: ignore[misc]
        figures = [group.figure(name) for name in FIGURES]
        cells: list[Cell] = [None if math.isnan(s.mean) else round(s.mean) for s in labels]
        rows.append((group.name, len(group.runs), *cells, *(WithSpread(s.mean, s.std) for s in figures)))
    note = (
        "Figures in percent: mean ± standard deviation over the runs, which differ in their seed alone. Labels are "
        "those that a person gave, on the way to the run too; minutes are those of answers, where a run counted them."
    )
    return Table("Runs by group", ("group", "runs", "boxes", "tags", "minutes", *FIGURES), rows, note)


def difference_table(groups: Sequence[Group]) -> Table:
    """A row for each group but the first: its differences to the first, over the seeds that both have."""
    rows: list[Sequence[Cell]] = []
    for group in groups[1:]:
        found = [difference(group, groups[0], name) for name in FIGURES]
        if any(found):
            p_value = 100 * found[1].p_value if found[1] else math.nan
            shared = max(each.count for each in found if each)
            rows.append((group.name, shared, *map(_interval, found), p_value))
    note = (
        "In points, with the 95 % interval of Student's t over pairs of runs with the same seed; one pair has none. p "
        "is that of the exact sign-flip test for AP50, and n pairs cannot bring it below 2^(1-n)."
    )
    return Table(f"Differences to {groups[0].name}", ("group", "shared seeds", *FIGURES, "p of AP50, %"), rows, note)


def _interval(found: PairedDifference | None) -> Cell:
    return Interval(found.mean, (found.high - found.low) / 2) if found else None


def _error_table(groups: Sequence[Group]) -> Table:
    means = mean_errors(groups, ERRORS)
    rows: list[Sequence[Cell]] = [(name, *kinds.values(), sum(kinds.values())) for name, kinds in means.items()]
    note = f"Means over the runs; detections from each run's score of best F1 on. Fewer is better. {EXPLAINED}"
    return Table("Errors", ("group", *ERRORS, "all"), rows, note)


def _class_table(groups: Sequence[Group]) -> Table:
    names = list(dict.fromkeys(name for group in groups for run in group.runs for name in run.per_class))
    rows: list[Sequence[Cell]] = []
    for name in names[:MOST_CLASSES]:
        spreads = [group.spread(lambda run, name=name: run.per_class.get(name, math.nan)) for group in groups]  # type: ignore[misc]
        rows.append((name, *(WithSpread(s.mean, s.std) for s in spreads)))
    note = f"The first {MOST_CLASSES} of {len(names)} classes." if len(names) > MOST_CLASSES else ""
    return Table("AP50 by class", ("class", *(group.name for group in groups)), rows, note)


def _run_table(groups: Sequence[Group]) -> Table:
    rows: list[Sequence[Cell]] = [
        (f"{run.name} ({group.name})", run.seed, *(run.result.figures.get(name, math.nan) for name in FIGURES))
        for group in groups
        for run in group.runs
    ]
    return Table("Every run", ("run", "seed", *FIGURES), rows)
