"""Errors by kind: bars, tables, and pictures in which the colour of a box tells what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from boxcycle.data.index import Index
from boxcycle.evaluation.errors import ERRORS, ClassErrors, ErrorBreakdown, ImageErrors, Kind
from boxcycle.report.curves import STYLE, to_svg
from boxcycle.report.drawing import PALETTE, Marks
from boxcycle.report.html import Cell, CountChange, Table

COLOURS = {
    "right": "#009E73",
    "localisation": "#E69F00",
    "classification": "#CC79A7",
    "redundancy": "#56B4E9",
    "background": "#D55E00",
    "missed": "#F0E442",
}
IGNORED_COLOUR = "#9AA3AD"
MOST_CLASSES = 12  # bars of a chart
EXPLAINED = (
    "Localisation: on a box of its class, IoU below 0.5. Classification: on a box of another class. Redundancy: on a "
    "box that a better one took. Background: on no box, IoU below 0.1. Missed: no detection is right for the box. "
    "After Hoiem et al. (2012) and TIDE (2020)."
)


def class_bars(breakdown: ErrorBreakdown) -> str:
    """Errors of each class by kind, as bars in an ``<svg>`` element; of many classes, those with the most errors."""
    rows = sorted(breakdown.per_class, key=lambda row: -row.errors)[:MOST_CLASSES]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 1.1 + 0.32 * len(rows)), layout="constrained")
        axes = figure.add_subplot(xlabel="errors")
        axes.grid(False, axis="y")
        start = np.zeros(len(rows))
        for kind in ERRORS:
            counts = np.array([getattr(row, kind) for row in rows])
            axes.barh(range(len(rows)), counts, left=start, color=COLOURS[kind], label=kind, height=0.7)
            start = start + counts
        axes.set_yticks(range(len(rows)), [_short(row.name) for row in rows])
        axes.invert_yaxis()
        axes.set_xlim(0, max(1, *start) if len(start) else 1)
        figure.legend(loc="outside upper center", ncols=3, handlelength=1.0)
        return to_svg(figure)


def kind_bars(breakdowns: Mapping[str, ErrorBreakdown]) -> str:
    """Errors of each kind, runs beside each other, as bars in an ``<svg>`` element."""
    return bars_by_kind(
        {name: {kind: getattr(found.total, kind) for kind in ERRORS} for name, found in breakdowns.items()}
    )


def bars_by_kind(counts: Mapping[str, Mapping[str, float]]) -> str:
    """Numbers of errors by kind, of several runs or groups by name, as bars in an ``<svg>`` element."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.add_subplot(xlabel="errors")
        axes.grid(False, axis="y")
        height = 0.8 / len(counts)
        for number, (name, kinds) in enumerate(counts.items()):
            places = np.arange(len(ERRORS)) + (number - (len(counts) - 1) / 2) * height
            values, colour = [kinds[kind] for kind in ERRORS], PALETTE[number % len(PALETTE)]
            axes.barh(places, values, height=0.9 * height, color=colour, label=_short(name))
        axes.set_yticks(range(len(ERRORS)), ERRORS)
        axes.invert_yaxis()
        figure.legend(
            loc="outside upper center", ncols=min(len(counts), 3 if len(counts) <= 3 else 2), handlelength=1.0
        )
        return to_svg(figure)


def _short(name: str) -> str:
    return name if len(name) <= 18 else name[:17] + "…"


def error_table(breakdown: ErrorBreakdown) -> Table:
    """A row for each class, and one for all."""
    rows: list[Sequence[Cell]] = list(breakdown.per_class)
    if len(rows) > 1:
        rows.append(breakdown.total)
    note = f"Detections with a score of at least {breakdown.min_score:.2f}, that of the best F1. {EXPLAINED}"
    return Table("Errors", ("class", *ClassErrors._fields[1:]), rows, note)


def difference_table(breakdowns: Mapping[str, ErrorBreakdown]) -> Table:
    """Errors of each run by kind; then by how many each other run differs from the first, in all and by class."""
    (first, baseline), *others = breakdowns.items()
    rows: list[Sequence[Cell]] = [
        (name, *_counts(breakdown.total), breakdown.total.errors) for name, breakdown in breakdowns.items()
    ]
    for name, breakdown in others:
        for class_name, changes in breakdown.minus(baseline).items():
            title = f"{name} minus {first}" + ("" if class_name == "all" else f": {class_name}")
            cells = [CountChange(changes[kind]) for kind in ERRORS]
            if class_name == "all" or any(cells):
                rows.append((title, *cells, CountChange(sum(cells))))
    scores = ", ".join(f"{name} {breakdown.min_score:.2f}" for name, breakdown in breakdowns.items())
    note = f"Detections from each run's score of best F1 on ({scores}). Fewer is better. {EXPLAINED}"
    return Table("Errors", ("run", *ERRORS, "all"), rows, note)


def _counts(row: ClassErrors) -> list[Cell]:
    return [getattr(row, kind) for kind in ERRORS]


def error_marks(index: Index, image: ImageErrors) -> Marks:
    """What was found, right and wrong, and what was missed, each box named and coloured by kind; errors on top."""
    names = [Kind(kind).name.lower() for kind in image.kinds]
    texts = [_text(index, kind, int(k)) for kind, k in zip(names, image.found.labels, strict=True)]
    missed = index.labels[image.missed]
    kinds = ["missed"] * len(missed) + names
    boxes = np.concatenate([index.boxes[image.missed], image.found.boxes])
    labels = np.concatenate([missed, image.found.labels])
    texts = [_text(index, "missed", int(k)) for k in missed] + texts
    order = sorted(range(len(kinds)), key=lambda number: kinds[number] in ("right", "ignored"))
    return Marks(
        boxes[order],
        labels[order],
        tuple(texts[number] for number in order),
        dashed=False,
        colours=tuple(COLOURS.get(kinds[number], IGNORED_COLOUR) for number in order),
    )


def _text(index: Index, kind: str, label: int) -> str:
    name = index.class_names[label - 1]
    return name if kind in ("right", "ignored") else f"{kind}: {name}"


def describe_errors(image: ImageErrors) -> str:
    """One line of counts: "3 right, 1 background, 2 missed"; kinds that do not occur are left out."""
    counts = image.counts
    return ", ".join(f"{count} {kind}" for kind, count in counts.items() if count or kind == "right")
