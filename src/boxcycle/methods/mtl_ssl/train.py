"""`boxcycle train mtl_ssl`: a detector that learns three more tasks from the boxes it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxcycle.methods.experiment import Experiment, TrainConfig
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.methods.weights import load_detector_weights
from boxcycle.models.detectors import build_detector


class Config(TrainConfig):
    """`boxcycle train mtl_ssl`."""

    tasks: TaskConfig = TaskConfig()


def build(config: Config, class_names: Sequence[str]) -> MultiTaskDetector:
    """The detector and its tasks before the first step. [MTL-SSL section 3.2, replicate initialisation]

    The tasks' heads copy the detector's as it is here: from ImageNet, or with ``init`` as a supervised run left it.
    """
    detector = build_detector(len(class_names), config.detector)
    if config.init is not None:
        load_detector_weights(detector, config.init, class_names)
    return MultiTaskDetector(detector, config.tasks)


def train(config: Config) -> Path:
    """Train main and auxiliary tasks together and evaluate; returns the run's folder. [MTL-SSL section 3.4]"""
    experiment = Experiment("mtl_ssl", config)
    model = build(config, experiment.class_names)
    experiment.fit(model, masks=config.tasks.foreground_masks)
    experiment.finish(model)
    return experiment.folder
