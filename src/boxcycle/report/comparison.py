"""The report that puts runs on the same split beside each other; differences are against the first."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from boxcycle.data.index import Index
from boxcycle.evaluation.images import ImageScore, score_images
from boxcycle.report.curves import compare_curves, precision_recall_curves
from boxcycle.report.html import Cell, Change, Figure, Report, Row, Table, write_report
from boxcycle.report.run import Run, describe, draw_found, draw_truth, legend, read_run, unknown_note

SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
SHARE = 360  # pixels of width for each of three pictures beside each other on a screen of 1280


def write_comparison(
    path: Path, folders: Mapping[str, Path], index: Index, *, title: str = "Comparison", pictures: int = 3
) -> None:
    """Write the report ``path`` on runs by name, all evaluated on ``index``; the others are held against the first.

    ``pictures``: how many images drawn at random; two more show the last run's largest gain and its largest loss.
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
    scores = ", ".join(f"{run.name} {run.min_score:.2f}" for run in runs)
    report = Report(
        title=title,
        lead=describe(index),
        figures=_headline(runs),
        warnings=[f"{run.name}: {warning}" for run in runs for warning in run.metrics.warnings],
        tables=[_run_table(runs), _class_table(runs)],
        charts={name: svg for name, svg in curves.items() if svg},
        pictures_note="Ground truth in solid lines, detections in dashed ones, from each run's score of best F1 on "
        f"({scores}). Counts are at IoU 0.5.",
        legend=legend(index),
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
    """Images drawn at random before anything is known of them, after the two that changed most, which say so."""
    scores = [score_images(index, run.predictions, min_score=run.min_score) for run in runs]
    gains = [last.f1 - first.f1 for first, last in zip(scores[0], scores[-1], strict=True)]
    ranked = sorted(range(len(gains)), key=gains.__getitem__)
    drawn = dict.fromkeys(random.Random(0).sample(ranked, min(count, len(ranked))), "At random")
    chosen: dict[int, str] = {}
    if ranked and gains[ranked[-1]] > 0:
        chosen[ranked[-1]] = f"Largest gain of {runs[-1].name}"
    if ranked and gains[ranked[0]] < 0:
        chosen[ranked[0]] = f"Largest loss of {runs[-1].name}"
    titles = chosen | {image: title for image, title in drawn.items() if image not in chosen}
    return [_row(title, runs, [each[image] for each in scores], index) for image, title in titles.items()]


def _row(title: str, runs: Sequence[Run], scores: Sequence[ImageScore], index: Index) -> Row:
    position = scores[0].position
    found = [draw_found(run, index, score, shown=SHARE) for run, score in zip(runs, scores, strict=True)]
    return Row(f"{title}: {index.file_names[position]}", [draw_truth(index, position, shown=SHARE), *found])
