"""Deformable DETR learnt from boxes, from ImageNet weights or from a pretrained DETR."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from boxcycle.engine.config import FitConfig
from boxcycle.methods.experiment import Experiment, RunConfig, load_detector_weights, take_weights
from boxcycle.models.deformable_detr import DeformableDETR, DetrConfig
from boxcycle.models.detr_exchange import CONFIG, read_transformers

CLASS_HEADS = "transformer.class_heads"


class DetrFitConfig(FitConfig):
    """The settings of a fit with the paper's rate and clipping."""

    lr: float = Field(2e-4, gt=0, description="highest learning rate of the schedule")
    clip: Literal["none", "global", "group", "parameter"] = Field(
        "global",
        description="whose gradient norm is clipped: nobody's, all together, each parameter group, each tensor",
    )
    clip_norm: float = Field(0.1, gt=0, description="largest gradient norm (L2)")


class Config(RunConfig):
    """`boxcycle train detr`."""

    detector: DetrConfig = DetrConfig()
    init: Path | None = Field(
        None,
        description="start from a run of `train detr`, its weights, or a Deformable DETR that transformers saved; with "
        "other classes its class heads start anew",
    )
    fit: DetrFitConfig = DetrFitConfig()


def build(config: Config, class_names: Sequence[str]) -> DeformableDETR:
    """The detector before its first step."""
    detector = DeformableDETR(len(class_names), config.detector)
    if config.init is None:
        return detector
    if (config.init / CONFIG).is_file():
        theirs, names = read_transformers(config.init)
        take_weights(detector, theirs.state_dict(), config.init, names, class_names, CLASS_HEADS)
    else:
        load_detector_weights(detector, config.init, class_names, renewed=CLASS_HEADS)
    return detector


def train(config: Config) -> Path:
    """Train and evaluate; returns the run's folder."""
    experiment = Experiment("detr", config)
    model = build(config, experiment.class_names)
    experiment.fit(model)
    experiment.finish(model)
    return experiment.folder
