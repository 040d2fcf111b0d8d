"""`boxcycle compare`: AP against labels spent, over seeds and groups of runs, as table, CSV, picture and page."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.index import Index
from boxcycle.engine.checkpoint import write_atomically
from boxcycle.evaluation.errors import ERRORS
from boxcycle.evaluation.groups import FIGURES, Group, Measured, Point
from boxcycle.methods.finished import FinishedRun, count_labels, read_finished
from boxcycle.report.groups import difference_table, group_table, write_group_report
from boxcycle.report.html import Table, format_cell
from boxcycle.report.label_curves import write_pictures

MOST_SETTINGS = 3  # that a group's name lists


class CompareConfig(BaseModel):
    """Which runs, and where the comparison goes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    runs: tuple[Path, ...] = Field(description="folders of finished runs; the first one's group is held against")
    out: Path = Field(
        Path("runs/comparison"), description="folder for runs.csv, labels.png, labels.svg and report.html"
    )


def compare(config: CompareConfig) -> list[Group]:
    """Group the runs, print their table and differences, and write CSV, pictures and report.

    Raises ``ValueError`` if there is no run, one is not finished, or two were evaluated on different images.
    """
    runs = [read_finished(folder) for folder in dict.fromkeys(config.runs)]
    if not runs:
        raise ValueError("no run to compare; expected folders of finished runs: boxcycle compare runs/one runs/two")
    index, indices = _same_images(runs)
    read = {
        source: count_labels(source)
        for source in dict.fromkeys(s for run in runs for s in sorted(run.sources(), key=str))
    }
    named = _grouped(runs)
    groups = [
        Group(name, [run.measured(indices[runs.index(run)], read) for run in members])
        for name, members in named.items()
    ]
    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "runs.csv", lambda file: _write_csv(file, groups))
    pictures = write_pictures(config.out, groups)
    settings = {f"Settings of {name}": _listed(members[0].settings()) for name, members in named.items()}
    write_group_report(config.out / "report.html", groups, index, settings)
    _print(group_table(groups))
    if len(groups) > 1:
        _print(difference_table(groups))
    print(f"{config.out / 'report.html'}, runs.csv, {', '.join(file.name for file in pictures)}")
    return groups


def _same_images(runs: Sequence[FinishedRun]) -> tuple[Index, list[Index]]:
    """The split that all runs were evaluated on, and the same as each run numbers its classes."""
    opened: dict[str, Index] = {}
    indices = []
    for run in runs:
        key = json.dumps(run.data.model_dump(mode="json", include={"path", "val", "format", "classes"}))
        indices.append(opened.setdefault(key, run.evaluated_on()) if key not in opened else opened[key])
    first = indices[0]
    for run, index in zip(runs, indices, strict=True):
        if not _equal(first, index):
            raise ValueError(
                f"{runs[0].folder} and {run.folder} were evaluated on different data, so their figures cannot be "
                f"compared: {_described(runs[0], first)}, and {_described(run, index)}"
            )
    return first, indices


def _equal(one: Index, other: Index) -> bool:
    return (
        sorted(one.class_names) == sorted(other.class_names)
        and list(one.file_names) == list(other.file_names)
        and one.boxes.shape == other.boxes.shape
        and np.allclose(one.boxes, other.boxes, atol=0.01)
    )


def _described(run: FinishedRun, index: Index) -> str:
    return f"'{run.data.val}' of {run.data.path} has {len(index):,} images with {len(index.boxes):,} boxes"


def _grouped(runs: Sequence[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """The runs by the name of their group. Raises ``ValueError`` if two runs are the same but for their folder."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings(), default=str, sort_keys=True), []).append(run)
    for members in groups.values():
        seeds = [run.seed for run in members]
        twice = next((run for run in members if seeds.count(run.seed) > 1), None)
        if twice:
            other = next(run for run in members if run.seed == twice.seed and run is not twice)
            raise ValueError(
                f"{twice.folder} and {other.folder} have the same settings and seed {twice.seed}; give one"
            )
    names = _names([members[0].settings() for members in groups.values()])
    return dict(zip(names, groups.values(), strict=True))


def _names(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each group: its method, and the settings in which it differs from others of the method."""
    names = []
    for mine in settings:
        peers = [other for other in settings if other["method"] == mine["method"]]
        keys = [key for key in mine if any(other.get(key) != mine[key] for other in peers)]
        shown = [_shown(key, mine[key]) for key in keys[:MOST_SETTINGS]]
        more = [f"{len(keys) - MOST_SETTINGS} more settings"] if len(keys) > MOST_SETTINGS else []
        names.append(", ".join([mine["method"], *shown, *more]))
    return [name if names.count(name) == 1 else f"{name} ({n})" for n, name in enumerate(names, start=1)]


def _shown(key: str, value: Any) -> str:
    if key == "data.budget":
        return "all labels" if value is None else str(value)
    return f"from {value}" if key == "init" and value else f"{key.rpartition('.')[2]} {value}"


def _listed(settings: Mapping[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in settings.items())


def _write_csv(file: Path, groups: Sequence[Group]) -> None:
    """A row for each run, or for each round of a run that asks; blank: not known."""
    with file.open("w", newline="", encoding="utf-8") as lines:
        table = csv.writer(lines)
        table.writerow(["group", "run", "seed", "round", "boxes", "tags", "minutes", *FIGURES, *ERRORS])
        for group in groups:
            for run in group.runs:
                table.writerows(_rows(group.name, run))


def _rows(name: str, run: Measured) -> list[list[Any]]:
    def row(number: int | str, point: Point, errors: Mapping[str, float]) -> list[Any]:
        figures = [point.figures.get(figure, math.nan) for figure in FIGURES]
        cells = [*point.labels, *figures, *(errors.get(kind, math.nan) for kind in ERRORS)]
        return [name, run.name, run.seed, number, *("" if math.isnan(cell) else f"{cell:g}" for cell in cells)]

    rounds = [row(number, point, {}) for number, point in enumerate(run.course)]
    return [*rounds, row("", run.result, run.errors)]


def _print(table: Table) -> None:
    from rich.console import Console
    from rich.table import Table as Lines

    lines = Lines(title=table.title, show_edge=False)
    for number, name in enumerate(table.columns):
        lines.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        lines.add_row(*map(format_cell, row))
    Console().print(lines)
