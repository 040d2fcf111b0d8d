"""AP against labels spent, a line or a point for each group of runs: in a page, and as picture files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from boxcycle.engine.checkpoint import write_atomically, write_text
from boxcycle.evaluation.groups import Group, Labels, Spread, course
from boxcycle.report.curves import STYLE, to_svg
from boxcycle.report.drawing import PALETTE

UNITS = {"boxes": "boxes given by a person", "tags": "tags given by a person", "minutes": "minutes of answering"}
MARKS = ("o", "s", "D", "^", "v", "P", "X")  # with as many colours: 7 groups differ in both, 49 in one of them
INK: dict[Any, Any] = dict.fromkeys(
    ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), "#1B2430"
)
# an SVG file beside a text takes the colours that the reader's page has
ADAPTS = "<style>:root{color:#1b2430}@media(prefers-color-scheme:dark){:root{color:#e7ebf0}}</style>"
FIGURE = "AP50"  # that is drawn


def label_charts(groups: Sequence[Group]) -> dict[str, str]:
    """A chart for each kind of label that any group spent, as ``<svg>`` elements by title."""
    return {
        f"{FIGURE} against {UNITS[unit]}": _svg(groups, unit)
        for unit in UNITS
        if any(_has(labels, unit) for group in groups for labels, _ in course(group, FIGURE))
    }


def write_pictures(folder: Path, groups: Sequence[Group], stem: str = "labels") -> list[Path]:
    """Write ``<stem>.png``, dark on white, and ``<stem>.svg``, in the colours of the page that shows it."""
    unit = next((u for u in UNITS if any(_has(labels, u) for g in groups for labels, _ in course(g, FIGURE))), "boxes")
    with matplotlib.rc_context({**STYLE, **INK, "font.size": 11}):
        drawn, png = _draw(groups, unit, size=(7.2, 4.4)), folder / f"{stem}.png"
        write_atomically(png, lambda file: drawn.savefig(file, format="png", dpi=160, facecolor="white"))
    with matplotlib.rc_context(STYLE):
        text = to_svg(_draw(groups, unit, size=(7.2, 4.4)))
    head, body = text[: text.index(">") + 1], text[text.index(">") + 1 :]
    svg = folder / f"{stem}.svg"
    write_text(svg, head + ADAPTS + body)
    return [png, svg]


def _svg(groups: Sequence[Group], unit: str) -> str:
    with matplotlib.rc_context(STYLE):
        return to_svg(_draw(groups, unit, size=(4.6, 3.4)))


def _has(labels: Labels, unit: str) -> bool:
    value = getattr(labels, unit)
    return not math.isnan(value) and value > 0


def _draw(groups: Sequence[Group], unit: str, size: tuple[float, float]) -> Figure:
    drawing = Figure(figsize=size, layout="constrained")
    axes = drawing.add_subplot(xlabel=UNITS[unit], ylabel=f"{FIGURE} (%)")
    highest = 0.0
    for number, group in enumerate(groups):
        points = [(getattr(labels, unit), s) for labels, s in course(group, FIGURE) if not math.isnan(s.mean)]
        points = [(x, s) for x, s in points if not math.isnan(x)]
        if unit != "boxes" and not any(x for x, _ in points):
            continue  # what spent none of these stands in the chart of boxes
        if points:
            _line(axes, points, group.name, number)
            highest = max(highest, *(s.mean + (0 if math.isnan(s.std) else s.std) for _, s in points))
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.12 * highest or 1)
    axes.margins(x=0.08)
    if highest:
        drawing.legend(loc="outside upper left", ncols=1 if len(groups) > 3 or size[0] < 5 else 3, handlelength=1.6)
    return drawing


def _line(axes: Axes, points: Sequence[tuple[float, Spread]], name: str, number: int) -> None:
    places, means = [x for x, _ in points], [s.mean for _, s in points]
    reach = [0 if math.isnan(s.std) else s.std for _, s in points]
    colour, mark = PALETTE[number % len(PALETTE)], MARKS[(number + number // len(PALETTE)) % len(MARKS)]
    axes.errorbar(
        places, means, yerr=reach, color=colour, marker=mark, markersize=6.5, capsize=3, elinewidth=1.2,
        linestyle="-" if len(places) > 1 else "none", label=name if len(name) <= 44 else f"{name[:43]}…", clip_on=False,
    )  # fmt: skip


def mean_errors(groups: Sequence[Group], kinds: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    """Errors of each kind of each group by name, as means over its runs."""
    return {
        group.name: {kind: group.spread(lambda run, kind=kind: run.errors.get(kind, math.nan)).mean for kind in kinds}  # type: ignore[misc]
        for group in groups
    }
