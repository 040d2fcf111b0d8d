"""What every training run does around its model: read the data, keep a folder, fit, evaluate, report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from boxcycle.config import dump_config
from boxcycle.data.check import DataError, Finding
from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import Batch, make_loader
from boxcycle.data.splits import read_budget
from boxcycle.data.transforms import make_transform
from boxcycle.engine.checkpoint import write_text
from boxcycle.engine.config import Clip, FitConfig
from boxcycle.engine.fit import FitResult, fit
from boxcycle.evaluation.best_boxes import best_box_places
from boxcycle.evaluation.coco import CocoMetrics, coco_metrics
from boxcycle.evaluation.corloc import corloc
from boxcycle.evaluation.predictions import Prediction, predict_dataset, write_predictions
from boxcycle.methods.run_folder import CONFIG, check_folder, is_main_process, open_folder, weights_file
from boxcycle.methods.weights import load_state
from boxcycle.models.backbone_calibration import calibrate, uncalibrated
from boxcycle.models.config import DetectorConfig
from boxcycle.report.run import write_run_report

CALIBRATING = 8  # images from which a backbone of random weights takes the statistics of its norms


class RunConfig(BaseModel):
    """What all training runs have in common, whatever the detector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataConfig
    init: Path | None = Field(None, description="a run of `train supervised`, or its weights: start from its detector")
    fit: FitConfig = FitConfig()
    run: Path | None = Field(None, description="folder of the run; empty: runs/<method>/<data>-<number>")
    resume: bool = Field(False, description="go on with the run in that folder")
    overwrite: bool = Field(False, description="throw away the run that the folder holds")

    @model_validator(mode="after")
    def _resume_or_overwrite(self) -> RunConfig:
        if self.resume and self.overwrite:
            raise ValueError("resume=true goes on with the run that overwrite=true throws away; give one of them")
        return self


class TrainConfig(RunConfig):
    """What the methods that train a two-stage detector from boxes have in common."""

    detector: DetectorConfig = DetectorConfig()


class DetrFitConfig(FitConfig):
    """The settings of a fit with the paper's rate and clipping."""

    lr: float = Field(2e-4, gt=0, description="highest learning rate of the schedule")
    clip: Clip = Field("global", description=FitConfig.model_fields["clip"].description)
    clip_norm: float = Field(0.1, gt=0, description="largest gradient norm (L2)")


class Experiment:
    """The data and the folder of one run.

    Of several processes all train, and the main one alone writes, evaluates and reports. ``folder`` is made, or
    emptied, when training begins: a run that cannot begin leaves things as they were.
    """

    def __init__(self, method: str, config: RunConfig) -> None:
        self.method, self.config = method, config
        self.is_main = is_main_process()
        if self.is_main:
            check_folder(config)
        self.findings: list[Finding] = []
        self.train_index = self.training_split()
        self.val_index = self.evaluation_split()
        self.folder = config.run or Path("runs") / method
        self.best: tuple[list[Prediction], CocoMetrics] | None = None
        self._is_open = False
        torch.manual_seed(config.fit.seed)  # the random weights of new layers

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, label k at position k - 1."""
        return self.train_index.class_names

    def open(self) -> None:
        """Make the folder, where that has not been done."""
        if self.is_main and not self._is_open:
            self._open_folder()
        self._is_open = True

    def fit(
        self,
        model: nn.Module,
        *,
        masks: bool = False,
        index: Index | None = None,
        settings: FitConfig | None = None,
        part: str = "",
        best: str | None = "AP50",
    ) -> FitResult:
        """Train ``model``, with segmentation masks in its targets or without; its weights are the last ones afterwards.

        A method that trains in parts says of each what it learns from (otherwise the training split), how (otherwise
        ``config.fit``) and the name of its folder within the run's. ``best`` is the figure that chooses weights. Raises
        ``DataError`` if ``masks`` are wanted and no object of the data has one.
        """
        config, settings = self.config, settings or self.config.fit
        learnt = self.train_index if index is None else index
        train = dataset_for(model, learnt, config.data, train=True, masks=masks)
        if masks and not train.masks:
            data = config.data
            raise DataError(f"split '{data.train}' of {data.path} has no segmentation masks to learn from")
        self.open()
        if config.init is None and uncalibrated(model):
            [first] = make_loader(train, batch_size=CALIBRATING, steps=1, seed=settings.seed)  # for all processes
            calibrate(model, *first)
        return fit(
            model,
            partial(batches_of, train, settings),
            settings,
            self.folder / part,
            evaluate=self.figures,
            best=best,
            resume=config.resume,
            metadata=self.metadata(),
        )

    def evaluate(self, model: nn.Module) -> tuple[list[Prediction], CocoMetrics]:
        """Predictions for the evaluation split, and COCO's figures of them."""
        predictions = self.predict(model, self.val_index)
        return predictions, coco_metrics(self.val_index, predictions)

    def predict(self, model: nn.Module, index: Index) -> list[Prediction]:
        """Predictions for the images of an index, prepared as the run's data are, where the model is."""
        dataset, device = dataset_for(model, index, self.config.data), next(model.parameters()).device
        return predict_dataset(model, dataset, batch_size=self.config.fit.batch_size, device=device)

    def finish(self, model: nn.Module) -> None:
        """Keep predictions, figures and the report of the best weights, which ``model`` has afterwards."""
        if not self.is_main:
            return
        load_state(model, weights_file(self.folder))
        # a resumed run may have found its best weights before it was stopped
        predictions, metrics = self.evaluate(model) if self.best is None or self.config.resume else self.best
        write_predictions(self.folder / "predictions.json", self.val_index, predictions)
        write_record(self.folder, metrics_record(metrics))
        report = write_run_report(self.folder, self.val_index, title=f"{self.method} on {self.config.data.path.name}")
        summary = metrics.summary
        print(f"AP {summary['AP']:.1f}, AP50 {summary['AP50']:.1f} on '{self.config.data.val}'; report: {report}")

    def metadata(self) -> dict[str, str]:
        """What a weights file says of itself: enough to build the detector again."""
        return {
            "method": self.method,
            "config": self._settled_config(),
            "class_names": json.dumps(self.class_names),
            "category_ids": json.dumps(self.train_index.category_ids.tolist()),
        }

    def training_split(self) -> Index:
        """The images to learn from: the annotated ones of the training split, or of its budget."""
        data, index = self.config.data, self.read_training_split()
        if not index.annotated.any():
            raise DataError(f"split '{data.train}' of {data.path} has no annotated image to learn from")
        return index.subset(index.annotated.nonzero()[0])

    def evaluation_split(self) -> Index:
        """The images to evaluate on, with the classes of the training split."""
        data = self.config.data
        return open_split(data, data.val, self.findings, class_names=self.class_names)

    def read_training_split(self) -> Index:
        """The training split, or its images that the budget names."""
        data = self.config.data
        index = open_split(data, data.train, self.findings)
        if data.budget is None:
            return index
        return index.subset(read_budget(data.budget, index))

    def figures(self, model: nn.Module) -> dict[str, float]:
        """COCO's figures for the engine, which keeps the best weights; here their predictions are kept."""
        found = self.evaluate(model)
        value = found[1].summary["AP50"]
        if not math.isnan(value) and (self.best is None or value > self.best[1].summary["AP50"]):
            self.best = found
        return found[1].summary

    def describe(self) -> str:
        """What the run learns from, for a sentence."""
        index = self.train_index
        return f"{len(index)} images with {len(index.boxes)} boxes of {index.num_classes} classes"

    def _settled_config(self) -> str:
        """What `config=` reads to go on with this run, or to run it again."""
        return dump_config(self.config.model_copy(update={"run": self.folder, "resume": False, "overwrite": False}))

    def _open_folder(self) -> None:
        self.folder = open_folder(self.method, self.config)
        write_text(self.folder / CONFIG, self._settled_config())
        print(f"{self.folder}: learns from {self.describe()}")
        for finding in self.findings:
            if finding.severity == "warning":
                print(f"  {finding}")


def dataset_for(
    model: nn.Module, index: Index, data: DataConfig, *, train: bool = False, masks: bool = False
) -> DetectionDataset:
    """The images of an index, prepared as ``data`` says, with proposals if the model takes them from outside.

    Such a model has a method ``proposals_of(index)``, which gives the regions of each image.
    """
    propose: Callable[[Index], Sequence[Any]] | None = getattr(model, "proposals_of", None)
    proposals = propose(index) if propose else None
    transform = make_transform(data.resize, train=train)
    return DetectionDataset(index, transform, masks=masks, cache=train and data.cache, proposals=proposals)


def batches_of(
    dataset: DetectionDataset,
    settings: FitConfig,
    start_step: int,
    rank: int,
    world_size: int,
    *,
    stop: int | None = None,
) -> Iterable[Batch]:
    """A process's batches from a step on, as ``engine.fit`` asks for them; up to the step ``stop``, or all of them."""
    accumulate = settings.accumulate  # batches a step
    return make_loader(
        dataset,
        batch_size=settings.batch_size // accumulate,
        steps=(settings.steps if stop is None else stop) * accumulate,
        seed=settings.seed,
        start_step=start_step * accumulate,
        rank=rank,
        world_size=world_size,
        workers=settings.workers,
    )


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Keep the figures of a run in ``eval.json``, by which others know that it is finished."""
    write_text(folder / "eval.json", json.dumps(record, indent=2) + "\n")


def metrics_record(metrics: CocoMetrics) -> dict[str, object]:
    """The figures as they stand in ``eval.json``; a figure without ground truth is null."""
    per_class = [none_for_nan(row._asdict()) for row in metrics.per_class]
    return {"summary": none_for_nan(metrics.summary), "per_class": per_class, "warnings": list(metrics.warnings)}


def corloc_record(index: Index, predictions: Sequence[Prediction]) -> dict[str, Any]:
    """CorLoc as it stands in ``eval.json``, with both policies of difficult boxes, and where the best boxes lie."""
    found = corloc(index, predictions)
    figures = {"mean": found.mean, "mean_without_difficult": corloc(index, predictions, difficult="skip").mean}
    places = none_for_nan(best_box_places(index, predictions))
    return none_for_nan(figures) | {"per_class": none_for_nan(found.per_class), "best_boxes": places}


def none_for_nan(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same figures, with None in the place of NaN, which JSON does not know."""
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()}
