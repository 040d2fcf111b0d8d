"""`boxcycle train ws_jds`: a detector and a segmenter from image tags alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import nn

from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.proposals import ProposalConfig
from boxcycle.data.tags import without_boxes
from boxcycle.evaluation.corloc import corloc
from boxcycle.evaluation.predictions import write_predictions
from boxcycle.evaluation.segmentation import has_masks, segmentation_metrics
from boxcycle.methods.experiment import (
    Experiment,
    RunConfig,
    corloc_record,
    dataset_for,
    metrics_record,
    none_for_nan,
    write_record,
)
from boxcycle.methods.weights import load_detector_weights
from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.network import GuidanceConfig, WeakDetectorConfig
from boxcycle.methods.ws_jds.pictures import guidance_rows
from boxcycle.report.html import Row
from boxcycle.report.run import write_run_report


class Config(RunConfig):
    """`boxcycle train ws_jds`."""

    detector: WeakDetectorConfig = WeakDetectorConfig()
    init: Path | None = Field(None, description="a run of `train ws_jds`, or its weights: start from its detector")
    guidance: GuidanceConfig = GuidanceConfig()
    proposals: ProposalConfig = ProposalConfig()


class TagExperiment(Experiment):
    """A run that may see tags: boxes of the training split, where there are any, are taken away before training, and
    boxes of the evaluation split choose no weights. The last weights are the result.
    """

    def training_split(self) -> Index:
        """The images whose tags are known, without their boxes."""
        data = self.config.data
        index = without_boxes(self.read_training_split())
        if not len(index.tags):
            raise DataError(f"split '{data.train}' of {data.path} has no image with a tag to learn from")
        return index

    def describe(self) -> str:
        index = self.train_index
        return f"{len(index)} images with {len(index.tags)} tags of {index.num_classes} classes, and no box"

    def figures(self, model: nn.Module) -> dict[str, float]:
        """COCO's figures and CorLoc of the evaluation split, to be looked at."""
        predictions, metrics = self.evaluate(model)
        return metrics.summary | {"CorLoc": corloc(self.val_index, predictions).mean}

    def finish(self, model: nn.Module) -> None:
        """Keep predictions, figures and the report of the last weights, and CorLoc of the training split."""
        if not self.is_main:
            return
        predictions, metrics = self.evaluate(model)
        record = metrics_record(metrics) | {"corloc": corloc_record(self.val_index, predictions)}
        if isinstance(model, WeakDetector) and model.segmenter is not None and has_masks(self.val_index):
            record["segmentation"] = self._segmentation(model)
        judged = self.read_training_split()
        if judged.annotated.any():
            record["corloc_train"] = corloc_record(judged, self.predict(model, judged))
        write_predictions(self.folder / "predictions.json", self.val_index, predictions)
        write_record(self.folder, record)
        more = self._guidance(model) if isinstance(model, WeakDetector) else ()
        report = write_run_report(
            self.folder, self.val_index, title=f"ws_jds on {self.config.data.path.name}", more=more
        )
        print(f"{_summary(record, self.config.data.val)}; report: {report}")

    def _guidance(self, model: WeakDetector) -> list[Row]:
        return guidance_rows(model, dataset_for(model, self.train_index, self.config.data))

    def _segmentation(self, model: nn.Module) -> dict[str, Any]:
        device = next(model.parameters()).device
        dataset = dataset_for(model, self.val_index, self.config.data)
        found = segmentation_metrics(model, dataset, batch_size=self.config.fit.batch_size, device=device)
        figures = none_for_nan({"mIoU": found.mean, **found.per_class})
        return {"images": found.images, **figures}


def build(config: Config, class_names: Sequence[str]) -> WeakDetector:
    """The detector before its first step; guidance begins after a part of the training."""
    model = WeakDetector(
        len(class_names),
        config.detector,
        config.guidance,
        config.proposals,
        guided_after=round(config.guidance.start * config.fit.steps) * config.fit.accumulate,
    )
    if config.init is not None:
        load_detector_weights(model, config.init, class_names)
        torch.nn.init.zeros_(model.passes)
    return model


def train(config: Config) -> Path:
    """Train both branches from the tags, guiding each other, and evaluate; returns the run's folder.
    [WS-JDS section 4.2]
    """
    experiment = TagExperiment("ws_jds", config)
    model = build(config, experiment.class_names)
    experiment.fit(model, best=None)
    experiment.finish(model)
    return experiment.folder


def _summary(record: dict[str, Any], split: str) -> str:
    """One line of figures; a dash for what no box or mask of the split can tell."""
    figures = {
        f"AP50 on '{split}'": record["summary"]["AP50"],
        f"CorLoc on '{split}'": record["corloc"]["mean"],
        "CorLoc on the training images": record.get("corloc_train", {}).get("mean"),
        f"mIoU on '{split}'": record.get("segmentation", {}).get("mIoU"),
    }
    return ", ".join(f"{name} {'–' if value is None else format(value, '.1f')}" for name, value in figures.items())
