"""The report that puts runs on the same split beside each other; differences are against the first."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from boxcycle.data.dataset import read_image
from boxcycle.data.index import Index
from boxcycle.report.curves import compare_curves, precision_recall_curves
from boxcycle.report.drawing import draw_marks
from boxcycle.report.error_kinds import (
    COLOURS,
    IGNORED_COLOUR,
    describe_errors,
    difference_table,
    error_marks,
    kind_bars,
)
from boxcycle.report.html import Cell, Change, Figure, Report, Row, Table, write_report
from boxcycle.report.pictures import truth_marks
from boxcycle.report.run import PICTURE, Run, describe, read_run, unknown_note

SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
SHARE = 360  # pixels of width for each of three pictures beside each other on a screen of 1280
CHANGED = 2  # pictures of the images where the errors of the last run are fewest beside the first's, and most
TRUTH_COLOUR = "#FFFFFF"  # which no kind of error has


def write_comparison(
    path: Path, folders: Mapping[str, Path], index: Index, *, title: str = "Comparison", pictures: int = 3
) -> None:
    """Write the report ``path`` on runs by name, all evaluated on ``index``; the others are held against the first.

    ``pictures``: how many images drawn at random; up to four more show where the errors of the last run are fewest and
    most beside the first's.
    Raises ``ValueError`` if there are fewer than two runs.
    """
    if len(folders) < 2:
        raise ValueError(f"a comparison needs two runs or more; got {len(folders)}")
    runs = [read_run(folder, index, name) for name, folder in folders.items()]
    by_name = {run.name: run for run in runs}
    curves = {
        "AP50 during training (%)": compare_curves({name: run.rows for name, run in by_name.items()}, "AP50"),
        "Precision and recall at IoU 0.5, mean of classes": precision_recall_curves(
            {name: run.metrics for name, run in by_name.items()}
        ),
        "Loss (each run its own)": compare_curves({name: run.rows for name, run in by_name.items()}, "loss"),
    }
    errors = {run.name: run.errors for run in runs}
    report = Report(
        title=title,
        lead=describe(index),
        figures=_headline(runs),
        warnings=[f"{run.name}: {warning}" for run in runs for warning in run.metrics.warnings],
        tables=[_run_table(runs), _class_table(runs), difference_table(errors)],
        charts={"Errors by kind": kind_bars(errors), **{name: svg for name, svg in curves.items() if svg}},
        pictures_note="Colours tell what is right and what is wrong, with the kind of the error; right detections and "
        "ground truth have the name of their class alone.",
        legend={**COLOURS, "ignored": IGNORED_COLOUR},
        pictures=_pictures(runs, index, pictures),
        details={f"{text}: {run.name}": run.texts[text] for run in runs for text in run.texts},
    )
    write_report(path, report)


def _headline(runs: Sequence[Run]) -> list[Figure]:
    first, last = runs[0].metrics.summary, runs[-1].metrics.summary
    figures = [Figure(f"{name}, {run.name}", run.metrics.summary[name]) for name in ("AP50", "AP") for run in runs]
    changes = [Figure(f"{name}, difference", Change(last[name] - first[name])) for name in ("AP50", "AP")]
    return figures[: len(runs)] + changes[:1] + figures[len(runs) :] + changes[1:]


def _run_table(runs: Sequence[Run]) -> Table:
    first = runs[0].metrics.summary
    rows: list[Sequence[Cell]] = [
        (run.name, *map(run.metrics.summary.get, SHOWN), run.images_per_second) for run in runs
    ]
    for run in runs[1:]:
        changes = [Change(run.metrics.summary[name] - first[name]) for name in SHOWN]
        rows.append((f"{run.name} minus {runs[0].name}", *changes, None))
    note = "In percent. One run each: a difference of a few points can be chance, which only several seeds tell."
    return Table("Runs", ("run", *SHOWN, "images/s in training"), rows, note)


def _class_table(runs: Sequence[Run]) -> Table:
    columns = ["class", "boxes", *(f"AP50, {run.name}" for run in runs)]
    columns += [f"{run.name} minus {runs[0].name}" for run in runs[1:]]
    rows: list[Sequence[Cell]] = []
    for first, *others in zip(*(run.metrics.per_class for run in runs), strict=True):
        changes = [Change(other.ap50 - first.ap50) for other in others]
        rows.append((first.name, first.boxes, first.ap50, *(other.ap50 for other in others), *changes))
    return Table("Classes", columns, rows, unknown_note(runs[0].metrics))


def _pictures(runs: Sequence[Run], index: Index, count: int) -> list[Row]:
    """Images drawn at random before anything is known of them, after those that changed most, which say so."""
    images = range(len(runs[0].errors.images))
    fewer = [runs[0].errors.images[i].errors - runs[-1].errors.images[i].errors for i in images]
    ranked = sorted(images, key=fewer.__getitem__)
    drawn = random.Random(0).sample(ranked, min(count, len(ranked)))
    extremes = [i for i in ranked[: -CHANGED - 1 : -1] if fewer[i] > 0] + [i for i in ranked[:CHANGED] if fewer[i] < 0]
    chosen = {i: _change(fewer[i], runs[0].name, runs[-1].name) for i in extremes}
    titles = chosen | {i: "At random" for i in drawn if i not in chosen}
    return [_row(title, runs, number, index) for number, title in titles.items()]


def _change(fewer: int, first: str, last: str) -> str:
    """What changed: "ours has 3 errors fewer than plain"."""
    count = "1 error" if abs(fewer) == 1 else f"{abs(fewer)} errors"
    return f"{last} has {count} {'fewer' if fewer > 0 else 'more'} than {first}"


def _row(title: str, runs: Sequence[Run], number: int, index: Index) -> Row:
    position = runs[0].errors.images[number].position
    pixels = read_image(index.image_path(position))
    truth = truth_marks(index, position)
    plain = replace(truth, colours=(TRUTH_COLOUR,) * len(truth.texts))
    panels = [("ground truth", draw_marks(pixels, plain, longest=PICTURE, shown=SHARE))]
    for run in runs:
        image = run.errors.images[number]
        picture = draw_marks(pixels, error_marks(index, image), longest=PICTURE, shown=SHARE)
        panels.append((f"{run.name}: {describe_errors(image)}", picture))
    return Row(f"{title}: {index.file_names[position]}", panels)
