"""What every training run does around its model: read the data, keep a folder, fit, evaluate, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from boxcycle.config import dump_config
from boxcycle.data.check import DataError, Finding
from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.transforms import make_transform
from boxcycle.engine.checkpoint import load_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import FitResult, fit
from boxcycle.evaluation.coco import CocoMetrics, coco_metrics
from boxcycle.evaluation.predictions import Prediction, predict_dataset, write_predictions
from boxcycle.models.faster_rcnn import FasterRCNNConfig
from boxcycle.report.run import write_run_report


class TrainConfig(BaseModel):
    """What the methods that train a detector from boxes have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    detector: FasterRCNNConfig = FasterRCNNConfig()
    init: Path | None = Field(None, description="a run of `train supervised`, or its weights: start from its detector")
    fit: FitConfig = FitConfig()
    run: Path | None = Field(None, description="folder of the run; empty: runs/<method>/<data>-<number>")
    resume: bool = Field(False, description="go on with the run in that folder")
    overwrite: bool = Field(False, description="throw away what the folder holds")


class Experiment:
    """The data and the folder of one run."""

    def __init__(self, method: str, config: TrainConfig) -> None:
        self.method, self.config = method, config
        self.findings: list[Finding] = []
        self.train_index = self._training_split()
        self.val_index = open_split(config.data, config.data.val, self.findings)
        check_same_classes(self.train_index, self.val_index, config.data)
        self.folder = open_folder(method, config)
        torch.manual_seed(config.fit.seed)  # the random weights of new layers

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, label k at position k - 1."""
        return self.train_index.class_names

    def fit(self, model: nn.Module) -> FitResult:
        """Train ``model``; its weights are the last ones afterwards."""
        config = self.config
        (self.folder / "config.yaml").write_text(dump_config(config))
        self._say_findings()
        train = DetectionDataset(
            self.train_index, make_transform(config.data.resize, train=True), cache=config.data.cache
        )
        accumulate = config.fit.accumulate

        def batches(start_step: int, rank: int, world_size: int):  # type: ignore[no-untyped-def]
            return make_loader(
                train,
                batch_size=config.fit.batch_size // accumulate,
                steps=config.fit.steps * accumulate,
                seed=config.fit.seed,
                start_step=start_step * accumulate,
                rank=rank,
                world_size=world_size,
                workers=config.fit.workers,
            )

        return fit(
            model,
            batches,
            config.fit,
            self.folder,
            evaluate=lambda trained: self.evaluate(trained)[1].summary,
            resume=config.resume,
            metadata=self.metadata(),
        )

    def evaluate(self, model: nn.Module) -> tuple[list[Prediction], CocoMetrics]:
        """Predictions for the evaluation split, and COCO's figures of them."""
        resize = self.config.data.resize
        val = DetectionDataset(self.val_index, make_transform(resize, train=False), cache=False)
        device = next(model.parameters()).device
        predictions = predict_dataset(model, val, batch_size=self.config.fit.batch_size, device=device)
        return predictions, coco_metrics(self.val_index, predictions)

    def finish(self, model: nn.Module) -> CocoMetrics:
        """Evaluate the best weights, and keep predictions, figures and the report."""
        model.load_state_dict(load_weights(self.folder / "checkpoints" / "best.safetensors").tensors)
        predictions, metrics = self.evaluate(model)
        write_predictions(self.folder / "predictions.json", self.val_index, predictions)
        (self.folder / "eval.json").write_text(json.dumps(metrics_record(metrics), indent=2) + "\n", encoding="utf-8")
        report = write_run_report(self.folder, self.val_index, title=f"{self.method} on {self.config.data.path.name}")
        summary = metrics.summary
        print(f"AP {summary['AP']:.1f}, AP50 {summary['AP50']:.1f} on '{self.config.data.val}'; report: {report}")
        return metrics

    def metadata(self) -> dict[str, str]:
        """What a weights file says of itself: enough to build the detector again."""
        return {
            "method": self.method,
            "config": dump_config(self.config),
            "class_names": json.dumps(self.class_names),
            "category_ids": json.dumps(self.train_index.category_ids.tolist()),
        }

    def _training_split(self) -> Index:
        data = self.config.data
        index = open_split(data, data.train, self.findings)
        if data.budget is not None:
            from boxcycle.data.splits import read_budget

            index = index.subset(read_budget(data.budget, index))
        if not index.annotated.any():
            raise DataError(f"split '{data.train}' of {data.path} has no annotated image to learn from")
        return index.subset(index.annotated.nonzero()[0])

    def _say_findings(self) -> None:
        index = self.train_index
        print(
            f"{self.folder}: learns from {len(index)} images with {len(index.boxes)} boxes of {index.num_classes} classes"
        )
        for finding in self.findings:
            if finding.severity == "warning":
                print(f"  {finding.file} {finding.object}: {finding.message}")


def metrics_record(metrics: CocoMetrics) -> dict[str, object]:
    """The figures as they stand in ``eval.json``; a figure without ground truth is null."""
    known = {name: value if value == value else None for name, value in metrics.summary.items()}
    per_class = [row._asdict() | {"ap": _or_none(row.ap), "ap50": _or_none(row.ap50)} for row in metrics.per_class]
    return {"summary": known, "per_class": per_class, "warnings": list(metrics.warnings)}


def load_detector_weights(detector: nn.Module, path: Path, class_names: Sequence[str]) -> None:
    """Start ``detector`` from the detector of a trained run (its folder or its weights file).

    Raises ``ValueError`` if the classes differ, naming the difference.
    """
    file = path / "checkpoints" / "best.safetensors" if path.is_dir() else path
    weights = load_weights(file)
    found = json.loads(weights.metadata.get("class_names", "[]"))
    if list(found) != list(class_names):
        raise ValueError(f"{file} knows other classes: {class_difference(found, class_names)}")
    prefix = "detector." if any(name.startswith("detector.") for name in weights.tensors) else ""
    state = {name.removeprefix(prefix): tensor for name, tensor in weights.tensors.items() if name.startswith(prefix)}
    detector.load_state_dict(state)


def class_difference(found: Sequence[str], expected: Sequence[str]) -> str:
    """One clause that says how two lists of class names differ."""
    missing, extra = [n for n in expected if n not in found], [n for n in found if n not in expected]
    if not missing and not extra:
        return f"the same names in another order ({', '.join(found)}; expected {', '.join(expected)})"
    return f"it lacks {missing or 'none'} and has {extra or 'none'} beside"


def check_same_classes(train: Index, val: Index, data: DataConfig) -> None:
    """Raise :class:`DataError` if two splits of a data set name different classes."""
    if train.class_names != val.class_names:
        difference = class_difference(val.class_names, train.class_names)
        raise DataError(f"split '{data.val}' of {data.path} has other classes than '{data.train}': {difference}")


def open_folder(method: str, config: TrainConfig) -> Path:
    """The folder of a run, made if need be; one that holds something is refused unless the run is resumed or overwritten."""
    import shutil

    folder = config.run or _next_folder(Path("runs") / method, config.data.path.resolve().stem)
    if folder.is_dir() and any(folder.iterdir()) and not config.resume:
        if not config.overwrite:
            raise ValueError(f"{folder} is not empty; resume=true goes on with its run, overwrite=true throws it away")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _next_folder(parent: Path, name: str) -> Path:
    number = 1
    while (parent / f"{name}-{number}").exists():
        number += 1
    return parent / f"{name}-{number}"


def _or_none(value: float) -> float | None:
    return value if value == value else None
