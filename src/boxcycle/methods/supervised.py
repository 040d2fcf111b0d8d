"""The baseline: the detector and its own losses. Also the template for a new method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from boxcycle.methods.experiment import Experiment, TrainConfig
from boxcycle.methods.weights import load_detector_weights
from boxcycle.models.detectors import build_detector
from boxcycle.models.two_stage import TwoStageDetector


class Config(TrainConfig):
    """`boxcycle train supervised`."""


def build(config: Config, class_names: Sequence[str]) -> TwoStageDetector:
    """The detector before its first step."""
    detector = build_detector(len(class_names), config.detector)
    if config.init is not None:
        load_detector_weights(detector, config.init, class_names)
    return detector


def train(config: Config) -> Path:
    """Train and evaluate; returns the run's folder."""
    experiment = Experiment("supervised", config)
    model = build(config, experiment.class_names)
    experiment.fit(model)
    experiment.finish(model)
    return experiment.folder
