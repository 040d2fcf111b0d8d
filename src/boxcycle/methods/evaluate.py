"""`boxcycle eval`: the figures of a trained detector on a split."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.index import Index
from boxcycle.data.one_class import FOREGROUND, one_class
from boxcycle.evaluation.coco import CocoMetrics, coco_metrics
from boxcycle.evaluation.errors import ErrorBreakdown, error_breakdown
from boxcycle.evaluation.predictions import Prediction, predict_dataset, write_predictions
from boxcycle.evaluation.voc import voc_average_precision
from boxcycle.methods.experiment import corloc_record, dataset_for, metrics_record, none_for_nan, write_record
from boxcycle.methods.loading import Trained, load
from boxcycle.report.run import write_run_report


class EvalConfig(BaseModel):
    """Which run, on which data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="folder of a run, or its weights file")
    data: Path | None = Field(None, description="data set; empty: the one the run learnt from")
    split: str = Field("", description="empty: the run's evaluation split")
    out: Path | None = Field(
        None, description="folder for predictions.json, eval.json and report.html; empty: <run>/eval-<split>"
    )
    difficult: Literal["ignore", "use"] = Field("ignore", description="boxes that VOC marks as difficult")
    batch_size: int = Field(4, ge=1, description="images at a time")
    device: str = Field("auto", description="auto: a GPU if there is one")


def evaluate(config: EvalConfig) -> None:
    """Evaluate, print the figures, and keep predictions, figures and a report."""
    trained = load(config.run, device=config.device)
    split = config.split or trained.config.data.val
    index = open_index(trained, config.data, split)
    predictions = predict_index(trained, index, config.batch_size)
    metrics = coco_metrics(index, predictions, difficult=config.difficult)
    folder = config.out or (config.run if config.run.is_dir() else config.run.parent) / f"eval-{split}"
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(folder / "predictions.json", index, predictions)
    voc = voc_figures(index, predictions)
    errors = error_breakdown(index, predictions)
    record = metrics_record(metrics) | {
        "voc": none_for_nan(voc),
        "corloc": corloc_record(index, predictions),
        "errors": errors.record(),
    }
    write_record(folder, record)
    write_run_report(folder, index, title=f"{config.run.name} on '{split}'", difficult=config.difficult)
    print_metrics(metrics, voc)
    print_errors(errors)
    print(f"predictions, figures and report: {folder}")


def open_index(trained: Trained, path: Path | None, split: str) -> Index:
    """A split of the data at ``path``, or of those that the run learnt from, with the classes that the detector knows.

    A detector of foreground is judged by all boxes, whatever their classes. Raises :class:`DataError` if the split has
    other classes, with the difference.
    """
    data = trained.config.data
    if path is not None:
        data = DataConfig(path=path, resize=data.resize, classes=data.classes)
    if trained.class_names == FOREGROUND:
        return one_class(open_split(data, split))
    return open_split(data, split, class_names=trained.class_names)


def predict_index(trained: Trained, index: Index, batch_size: int) -> list[Prediction]:
    """Detections in all images of an index, prepared as in the detector's training."""
    dataset = dataset_for(trained.model, index, trained.config.data)
    device = next(trained.model.parameters()).device
    return predict_dataset(trained.model, dataset, batch_size=batch_size, device=device)


def voc_figures(index: Index, predictions: list[Prediction]) -> dict[str, float]:
    """VOC's mean AP at IoU 0.5, percent, in both definitions."""
    return {
        "AP50 (VOC07, 11 points)": voc_average_precision(index, predictions, method="11point").mean,
        "AP50 (VOC10, area)": voc_average_precision(index, predictions, method="area").mean,
    }


def print_metrics(metrics: CocoMetrics, voc: dict[str, float]) -> None:
    """COCO's and VOC's figures and a line for each class, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    summary = Table(title="percent", show_edge=False)
    for name in metrics.summary:
        summary.add_column(name, justify="right")
    summary.add_row(*(_figure(value) for value in metrics.summary.values()))
    console.print(summary)
    console.print("  ".join(f"{name} {_figure(value)}" for name, value in voc.items()))
    classes = Table("class", show_edge=False)
    for name in ("boxes", "AP", "AP50"):
        classes.add_column(name, justify="right")
    for row in metrics.per_class:
        classes.add_row(row.name, str(row.boxes), _figure(row.ap), _figure(row.ap50))
    console.print(classes)
    for warning in metrics.warnings:
        console.print(f"warning: {warning}")


def print_errors(errors: ErrorBreakdown) -> None:
    """How many errors of each kind each class has, on the terminal."""
    from rich.console import Console
    from rich.table import Table

    title = f"errors among detections with a score of {errors.min_score:.2f} or more"
    table = Table("class", title=title, show_edge=False)
    for name in ("boxes", "right", "localis.", "classif.", "redund.", "backgr.", "missed"):  # 80 columns hold no more
        table.add_column(name, justify="right")
    for row in (*errors.per_class, errors.total):
        table.add_row(row.name, *map(str, row[1:]))
    Console().print(table)


def _figure(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}"
