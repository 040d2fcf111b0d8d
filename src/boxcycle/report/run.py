"""The report of one run: how good it is, how it got there, and where it is right and wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from boxcycle.data.dataset import read_image
from boxcycle.data.index import Index
from boxcycle.engine.metrics import read_metrics
from boxcycle.evaluation.coco import CocoMetrics, Difficult, coco_metrics
from boxcycle.evaluation.errors import ErrorBreakdown, error_breakdown
from boxcycle.evaluation.images import ImageScore, best_min_score, score_images
from boxcycle.evaluation.predictions import Prediction, read_predictions
from boxcycle.report.curves import ap_curves, loss_curves, precision_recall_curves
from boxcycle.report.drawing import PALETTE, class_colour, draw_marks
from boxcycle.report.error_kinds import class_bars, error_table
from boxcycle.report.html import Figure, Report, Row, Table, write_report
from boxcycle.report.pictures import detection_marks, truth_marks

PICTURE = 720  # pixels of the longer side of a picture inside a report
SHARE = 540  # pixels of width for each of two pictures beside each other on a screen of 1280


@dataclass(frozen=True)
class Run:
    """What a run folder says about a split: predictions and their figures, the rows of metrics.csv, the texts it keeps.

    ``min_score``: pictures show the detections from this score on, the one with the best F1; ``errors`` are those among
    them.
    """

    name: str
    predictions: list[Prediction]
    metrics: CocoMetrics
    rows: Mapping[int, Mapping[str, float]]
    min_score: float
    errors: ErrorBreakdown
    texts: Mapping[str, str]

    @property
    def images_per_second(self) -> float:
        """Median speed of training; NaN where it was not recorded."""
        speeds = [row["images_per_second"] for row in self.rows.values() if "images_per_second" in row]
        return float(np.median(speeds)) if speeds else math.nan


def read_run(folder: Path, index: Index, name: str | None = None, *, difficult: Difficult = "ignore") -> Run:
    """Read ``predictions.json``, ``metrics.csv``, ``config.yaml`` and ``env.json`` of a run evaluated on ``index``."""
    predictions = read_predictions(folder / "predictions.json", index)
    metrics_file = folder / "metrics.csv"
    min_score = best_min_score(index, predictions)
    files = {"Configuration": folder / "config.yaml", "Environment": folder / "env.json"}
    return Run(
        name=name or folder.name,
        predictions=predictions,
        metrics=coco_metrics(index, predictions, difficult=difficult),
        rows=read_metrics(metrics_file) if metrics_file.exists() else {},
        min_score=min_score,
        errors=error_breakdown(index, predictions, min_score=min_score),
        texts={title: file.read_text(encoding="utf-8") for title, file in files.items() if file.exists()},
    )


def write_run_report(
    folder: Path,
    index: Index,
    *,
    title: str | None = None,
    pictures: int = 4,
    more: Sequence[Row] = (),
    difficult: Difficult = "ignore",
) -> Path:
    """Write ``report.html`` into a run folder; returns the file.

    ``index`` is the split that the run's ``predictions.json`` was made on. ``pictures``: how many of the worst images,
    and how many of the best; ``more``: rows of the method's own after them. ``difficult`` is that of
    :func:`coco_metrics`.
    """
    run = read_run(folder, index, title, difficult=difficult)
    curve = ap_curves(run.rows)
    report = Report(
        title=run.name,
        lead=describe(index),
        figures=_headline(run),
        warnings=run.metrics.warnings,
        tables=[_class_table(run.metrics), error_table(run.errors)],
        charts={
            "Errors by class": class_bars(run.errors),
            **({"Average precision": curve} if curve else {}),
            "Precision and recall at IoU 0.5": precision_recall_curves({run.name: run.metrics}),
            **loss_curves(run.rows),
        },
        pictures_note=f"Ground truth in solid lines, detections with a score of at least {run.min_score:.2f} in dashed "
        "ones. Counts are at IoU 0.5.",
        legend=legend(index),
        pictures=[*_best_and_worst(run, index, pictures), *more],
        details=run.texts,
    )
    write_report(folder / "report.html", report)
    return folder / "report.html"


def describe(index: Index) -> str:
    """One sentence on the split that was evaluated."""
    boxes = int((~index.iscrowd).sum())
    return f"Evaluated on {len(index):,} images with {boxes:,} boxes of {index.num_classes:,} classes."


def legend(index: Index) -> dict[str, str]:
    """The colour of each class; empty where there are more classes than colours, and a colour tells little."""
    if index.num_classes > len(PALETTE):
        return {}
    return {name: class_colour(label) for label, name in enumerate(index.class_names, start=1)}


def draw_truth(index: Index, position: int, *, shown: int) -> tuple[str, Image.Image]:
    """Caption and picture of what image number ``position`` holds, for a place of ``shown`` pixels."""
    pixels = read_image(index.image_path(position))
    return "ground truth", draw_marks(pixels, truth_marks(index, position), longest=PICTURE, shown=shown)


def draw_found(run: Run, index: Index, score: ImageScore, *, shown: int) -> tuple[str, Image.Image]:
    """Caption with counts, and picture of what ``run`` found in an image, for a place of ``shown`` pixels."""
    found = next(each for each in run.predictions if each.image_id == index.image_ids[score.position])
    marks = detection_marks(found, index.class_names, min_score=run.min_score)
    pixels = read_image(index.image_path(score.position))
    caption = f"{run.name}: {score.right} right, {score.wrong} wrong, {score.missed} missed"
    return caption, draw_marks(pixels, marks, longest=PICTURE, shown=shown)


def _headline(run: Run) -> list[Figure]:
    overlaps = {"AP": "IoU 0.50 to 0.95", "AP50": "IoU 0.50", "AP75": "IoU 0.75"}
    sizes = {"APs": "small objects", "APm": "medium objects", "APl": "large objects"}
    return [Figure(name, run.metrics.summary[name], note) for name, note in (overlaps | sizes).items()]


def _class_table(metrics: CocoMetrics) -> Table:
    rows = [(row.name, row.boxes, row.ap, row.ap50) for row in metrics.per_class]
    return Table("Classes", ("class", "boxes", "AP", "AP50"), rows, note=unknown_note(metrics))


def unknown_note(metrics: CocoMetrics) -> str:
    """A sentence on dashes in the table of classes, if there are any."""
    without = sum(math.isnan(row.ap) for row in metrics.per_class)
    return f"– no ground truth ({without} classes)." if without else ""


def _best_and_worst(run: Run, index: Index, count: int) -> Sequence[Row]:
    """The worst images, then the best; with few images none is shown twice. Of equal ones, those with more objects."""
    scores = score_images(index, run.predictions, min_score=run.min_score)
    worst = sorted(scores, key=lambda score: (score.f1, -score.wrong - score.missed))[:count]
    others = [score for score in scores if score not in worst]
    best = sorted(others, key=lambda score: (-score.f1, -score.right))[:count]
    return [_row(kind, run, index, score) for kind, chosen in (("Worst", worst), ("Best", best)) for score in chosen]


def _row(kind: str, run: Run, index: Index, score: ImageScore) -> Row:
    title = f"{kind}: {index.file_names[score.position]}, F1 {100 * score.f1:.0f} %"
    return Row(title, [draw_truth(index, score.position, shown=SHARE), draw_found(run, index, score, shown=SHARE)])
