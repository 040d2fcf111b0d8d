"""A small multi-task detector in each form that it has."""

from __future__ import annotations

import torch

from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import build_detector
from boxcycle.models.two_stage import RegionConfig

SMALL = {"windows": 8, "refined": 4}
JOINT = {"stop_gradient": False, "foreground": 1.0}
# of the tasks' heads on Faster R-CNN; those of R-FCN run over the whole map, as its own does
FORMS = ["region", "dense", "shared", "rfcn"]


def build(tiny: str, form: str = "dense", **tasks: object) -> MultiTaskDetector:
    """The paper's form: all tasks, and they teach the shared features."""
    torch.manual_seed(0)
    name, heads = ("rfcn", "dense") if form == "rfcn" else ("faster_rcnn", form)
    regions = RegionConfig(sampled=16, score_threshold=0.0)
    config = DetectorConfig(name=name, backbone=tiny, weights="none", proposals=20, regions=regions)
    return MultiTaskDetector(build_detector(3, config), TaskConfig(**{**SMALL, **JOINT, "heads": heads, **tasks}))
