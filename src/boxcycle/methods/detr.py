"""Deformable DETR learnt from boxes, from ImageNet weights or from a pretrained DETR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from boxcycle.methods.experiment import DetrFitConfig, Experiment, RunConfig
from boxcycle.methods.weights import load_detector_weights, take_weights
from boxcycle.models.deformable_detr import DeformableDETR, DetrConfig
from boxcycle.models.detr_exchange import CONFIG, read_transformers

CLASS_HEADS = "transformer.class_heads"


class Config(RunConfig):
    """`boxcycle train detr`."""

    detector: DetrConfig = DetrConfig()
    init: Path | None = Field(
        None,
        description="start from a run of `train detr` or `pretrain joindet`, its weights, or a Deformable DETR that "
        "transformers saved; with other classes its class heads start anew",
    )
    fit: DetrFitConfig = DetrFitConfig()


def build(config: Config, class_names: Sequence[str]) -> DeformableDETR:
    """The detector before its first step; a run as ``detector.weights`` is as good as one as ``init``."""
    init, settings = config.init, config.detector
    if init is None and Path(settings.weights).is_dir():
        init, settings = Path(settings.weights), settings.model_copy(update={"weights": "none"})
    detector = DeformableDETR(len(class_names), settings)
    if init is None:
        return detector
    if (init / CONFIG).is_file():
        theirs, names = read_transformers(init)
        take_weights(detector, theirs.state_dict(), init, names, class_names, CLASS_HEADS)
    else:
        load_detector_weights(detector, init, class_names, renewed=CLASS_HEADS)
    return detector


def train(config: Config) -> Path:
    """Train and evaluate; returns the run's folder."""
    experiment = Experiment("detr", config)
    model = build(config, experiment.class_names)
    experiment.fit(model)
    experiment.finish(model)
    return experiment.folder
