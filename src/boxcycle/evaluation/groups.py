"""Runs that differ in their seed alone, as one group: mean, spread, and paired differences to another group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import NamedTuple

from boxcycle.evaluation.paired import PairedDifference, paired_difference

FIGURES = ("AP", "AP50", "AP75")


class Labels(NamedTuple):
    """What a person gave: boxes, tags of images, and minutes where they were counted (NaN: they were not)."""

    boxes: float
    tags: float = 0
    minutes: float = math.nan


class Point(NamedTuple):
    """The labels that a detector had learnt from, and its figures in percent by name (NaN: not known)."""

    labels: Labels
    figures: Mapping[str, float]


class Spread(NamedTuple):
    """Mean of ``known`` figures, and their standard deviation (NaN for fewer than two)."""

    mean: float
    std: float
    known: int


@dataclass(frozen=True)
class Measured:
    """One trained run: its result, how it got there (a point a round), its errors by kind and AP50 by class."""

    name: str
    seed: int
    result: Point
    course: Sequence[Point] = ()
    errors: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Runs that differ in the seed alone."""

    name: str
    runs: Sequence[Measured]

    def spread(self, value: Callable[[Measured], float]) -> Spread:
        """Mean and spread over the runs of what ``value`` says of each; NaN where it is known of none."""
        return spread([value(run) for run in self.runs])

    def figure(self, name: str) -> Spread:
        """Mean and spread of a figure of the results."""
        return self.spread(lambda run: run.result.figures.get(name, math.nan))


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of the values that are known (not NaN)."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Spread(math.nan, math.nan, 0)
    return Spread(fmean(known), stdev(known) if len(known) > 1 else math.nan, len(known))


def difference(new: Group, old: Group, figure: str) -> PairedDifference | None:
    """``new`` minus ``old`` over the seeds that both have; None where they share no seed whose figure is known."""
    values = [
        {run.seed: value for run in group.runs if not math.isnan(value := run.result.figures.get(figure, math.nan))}
        for group in (new, old)
    ]
    shared = sorted(values[0].keys() & values[1].keys())
    return paired_difference([values[0][s] for s in shared], [values[1][s] for s in shared]) if shared else None


def course(group: Group, figure: str) -> list[tuple[Labels, Spread]]:
    """The mean labels and the figure after each round, over the runs that have that round; else the results alone."""
    rounds = max((len(run.course) for run in group.runs), default=0)
    columns = [[run.course[i] for run in group.runs if i < len(run.course)] for i in range(rounds)]
    columns = columns or [[run.result for run in group.runs]]
    return [
        (
            Labels(*(spread([float(point.labels[i]) for point in points]).mean for i in range(3))),
            spread([point.figures.get(figure, math.nan) for point in points]),
        )
        for points in columns
    ]
