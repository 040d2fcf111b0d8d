"""What cannot be recycled or learnt from is refused in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads

import boxcycle
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN

from .torchvision_samples import SMALL, image, target, tiny_detector


class OwnPredictor(FastRCNNPredictor):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(2 * x), self.bbox_pred(x)


class OwnHeads(RoIHeads):
    def forward(self, *arguments: Any) -> Any:
        return super().forward(*arguments)


def with_own_heads() -> Any:
    detector = tiny_detector()
    detector.roi_heads.__class__ = OwnHeads
    return detector


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: "fasterrcnn", r"an RPN and RoI heads .* found builtins.str"),
        (lambda: detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None), "found .*retinanet.RetinaNet"),
        (lambda: detection.fcos_resnet50_fpn(weights=None, weights_backbone=None), "found .*fcos.FCOS"),
        (lambda: detection.ssd300_vgg16(weights=None, weights_backbone=None), "found .*ssd.SSD"),
        (lambda: tiny_detector(box_predictor=OwnPredictor(16, 4)), r"FastRCNNPredictor .* found .*OwnPredictor"),
        (with_own_heads, "RoIHeads .* found .*OwnHeads"),
        (lambda: nn.DataParallel(tiny_detector()), "found .*DataParallel"),
        (lambda: boxcycle.recycle(tiny_detector()), "found .*RecycledDetector"),
    ],
)
def test_other_detectors_are_refused(make: Any, sentence: str) -> None:
    with torch.device("meta"):
        detector = make()
    with pytest.raises(TypeError, match=sentence):
        boxcycle.recycle(detector)


def test_our_own_detector_is_refused_by_its_full_name(tiny: str) -> None:
    own = FasterRCNN(3, DetectorConfig(backbone=tiny, weights="none"))
    with pytest.raises(TypeError, match=r"found boxcycle\.models\.faster_rcnn\.FasterRCNN"):
        boxcycle.recycle(own)


@pytest.mark.parametrize(
    ("tasks", "sentence"),
    [
        ({"stop_gradiant": True}, "no 'stop_gradiant'; did you mean 'stop_gradient'"),
        ({"windows": 0}, "'windows' must be greater than 0; found 0"),
        ({"multi_object": 0, "closeness": 0}, "refinement needs multi_object or closeness"),
    ],
)
def test_wrong_settings_are_refused(tasks: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        boxcycle.recycle(tiny_detector(), **tasks)


def changed(**changes: Any) -> list[dict[str, Any]]:
    its = target([[4, 5, 40, 44]], [1]) | changes
    return [{name: value for name, value in its.items() if value is not None}]


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (None, "needs targets"),
        ([], "got 1 images and 0 targets"),
        (changed(labels=None), r"targets\[0\] must have the tensors boxes, labels, masks; it lacks \['labels'\]"),
        (changed(masks=None), r"it lacks \['masks'\]"),
        (changed(boxes=[[1, 2, 3, 4]]), r"it lacks \['boxes'\]"),
        (changed(labels=torch.tensor([4])), r"targets\[0\]: labels of the target must be in 1..3"),
        (changed(labels=torch.tensor([1.0])), "must be int64"),
        (changed(boxes=torch.tensor([[4.0, 5, 100, 44]]), image_id=torch.tensor([12])), "image 12 must lie inside"),
        (changed(boxes=torch.tensor([[40.0, 5, 30, 40]]), image_id=7), "of image 7 must have x1 < x2"),
        (changed(masks=torch.zeros(2, 48, 64)), r"masks of targets\[0\] must be \(1, 48, 64\); got \(2, 48, 64\)"),
    ],
)
def test_bad_targets_are_refused(targets: Any, sentence: str) -> None:
    model = boxcycle.recycle(tiny_detector("mask"), **SMALL).train()
    with pytest.raises(ValueError, match=sentence):
        model([image(0)], targets)
