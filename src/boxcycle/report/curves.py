"""Curves of a run as SVG text that takes the colours of the page around it."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from boxcycle.evaluation.coco import CocoMetrics
from boxcycle.report.drawing import PALETTE

Rows = Mapping[int, Mapping[str, float]]  # a run's metrics.csv: numbers by step and name
Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]  # x and y by name

SHOWN = ("AP", "AP50", "AP75")  # the figures whose course is drawn
RATES = ("grad_norm", "lr", "images_per_second", "memory_gb")  # columns of metrics.csv that are no losses
COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MOST_LINES = 7  # as many as there are colours, and as a reader tells apart
DETECTOR = ("rpn_objectness", "rpn_box", "class", "box")  # losses that every two-stage detector has

_INK = "#010203"  # stands for the colour of the page's text, and is replaced by it
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "boxcycle",  # the same curves give the same file
    "text.parse_math": False,  # a class may have a $ in its name
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
} | dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), _INK)


def line_chart(series: Series, *, x_label: str, y_label: str, y_range: tuple[float, float] | None = None) -> str:
    """One line for each of at most seven series, as an ``<svg>`` element. NaN leaves a gap."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
        for colour, (name, (x, y)) in zip(PALETTE, series.items(), strict=False):
            # a mark where a line would hide single points: few evaluations, or gaps between them
            axes.plot(x, y, color=colour, label=name, marker="o" if len(x) <= 12 else None, markersize=3.5)
        if y_range:
            axes.set_ylim(*y_range)
        if len(series) > 1:
            _legend(axes, len(series))
        return to_svg(figure)


def _legend(axes: Axes, lines: int) -> None:
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(lines, 3), borderaxespad=0.2, handlelength=1.4)


def to_svg(figure: Figure) -> str:
    """The drawing without XML head, in the page's ink, on a clear ground."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")


def loss_curves(rows: Rows) -> dict[str, str]:
    """By caption: the total loss, its parts, and the accuracies that were watched, each smoothed."""
    # with fit.clip=group each group has a gradient norm of its own
    names = [name for name in _names(rows) if name not in RATES + COCO and not name.startswith("grad_norm_")]
    parts = [name for name in names if name != "loss" and not name.endswith("accuracy")]
    charts = {
        "Loss": [name for name in names if name == "loss"],
        **_in_charts(parts),
        "Accuracy on sampled regions": [name for name in names if name.endswith("accuracy")],
    }
    return {
        caption: line_chart({name: _smooth(*_column(rows, name)) for name in chosen}, x_label="step", y_label="")
        for caption, chosen in charts.items()
        if chosen
    }


def _in_charts(parts: list[str]) -> dict[str, list[str]]:
    """The parts of the loss in one chart; where there are too many, the detector's in one and the others in more."""
    if len(parts) <= MOST_LINES:
        return {"Parts of the loss": parts}
    others = [name for name in parts if name not in DETECTOR]
    pieces = [others[start : start + MOST_LINES] for start in range(0, len(others), MOST_LINES)]
    numbers = [""] if len(pieces) == 1 else [f", {number} of {len(pieces)}" for number in range(1, len(pieces) + 1)]
    charts = {f"Parts of the loss: beside the detector{n}": piece for n, piece in zip(numbers, pieces, strict=True)}
    return {"Parts of the loss: detector": [name for name in parts if name in DETECTOR], **charts}


def ap_curves(rows: Rows) -> str | None:
    """AP, AP50 and AP75 over the steps of a run; None where it was never evaluated."""
    series = {name: _column(rows, name) for name in SHOWN if any(name in row for row in rows.values())}
    return line_chart(series, x_label="step", y_label="%") if series else None


def compare_curves(runs: Mapping[str, Rows], column: str) -> str | None:
    """One column of the metrics of several runs; None where no run has it."""
    series = {name: _column(rows, column) for name, rows in runs.items()}
    series = {name: _smooth(*xy) if column == "loss" else xy for name, xy in series.items() if len(xy[0])}
    return line_chart(series, x_label="step", y_label=column) if series else None


def precision_recall_curves(runs: Mapping[str, CocoMetrics]) -> str:
    """Precision over recall at IoU 0.5, both in percent: each class of one run, or the mean of each of several runs."""
    if len(runs) == 1:
        (metrics,) = runs.values()
        series = _curves_by_class(metrics)
    else:
        series = {name: _mean_curve(metrics.precision50) for name, metrics in runs.items()}
    points = list(range(101))
    drawn = {name: (points, values.tolist()) for name, values in series.items()}
    return line_chart(drawn, x_label="recall (%)", y_label="precision (%)", y_range=(0, 102))


def _curves_by_class(metrics: CocoMetrics) -> dict[str, NDArray[np.float64]]:
    known = [k for k, row in enumerate(metrics.per_class) if not math.isnan(row.ap50)]
    if len(known) <= MOST_LINES:
        return {metrics.per_class[k].name: metrics.precision50[:, k] for k in known}
    by_ap = sorted(known, key=lambda k: metrics.per_class[k].ap50)
    picked = {"worst": by_ap[0], "median": by_ap[len(by_ap) // 2], "best": by_ap[-1]}
    chosen = {f"{metrics.per_class[k].name} ({which})": metrics.precision50[:, k] for which, k in picked.items()}
    return {"mean": _mean_curve(metrics.precision50), **chosen}


def _mean_curve(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    known = ~np.isnan(precision[0])
    return precision[:, known].mean(1) if known.any() else np.full(len(precision), np.nan)


def _names(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows.values() for name in row))


def _column(rows: Rows, name: str) -> tuple[list[float], list[float]]:
    steps = [step for step, row in rows.items() if name in row]
    return [float(step) for step in steps], [rows[step][name] for step in steps]


def _smooth(x: list[float], y: list[float]) -> tuple[list[float], list[float]]:
    """Moving mean over a fortieth of the points on each side, fewer at the ends."""
    reach = len(y) // 40
    return x, [float(np.mean(y[max(0, i - reach) : i + reach + 1])) for i in range(len(y))]
