"""The two-stage detectors by name."""

from __future__ import annotations

from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.rfcn import RFCN
from boxcycle.models.two_stage import TwoStageDetector

DETECTORS: dict[str, type[FasterRCNN] | type[RFCN]] = {"faster_rcnn": FasterRCNN, "rfcn": RFCN}


def build_detector(num_classes: int, config: DetectorConfig) -> TwoStageDetector:
    """The detector that a configuration names, for K classes."""
    return DETECTORS[config.name](num_classes, config)
