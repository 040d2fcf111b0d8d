"""A small detector of torchvision's in each kind, images with all that it wants, and the loop of its references."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

SMALL = {"windows": 8, "refined": 4, "foreground": 1.0}
CHANNELS = 8
KINDS = {"faster": detection.FasterRCNN, "mask": detection.MaskRCNN, "keypoint": detection.KeypointRCNN}
Sample = dict[str, Tensor]


def tiny_detector(kind: str = "faster", seed: int = 0, **options: Any) -> Any:
    """A detector of torchvision's with four pyramid levels (strides 4 to 32) and a pooled fifth; 3 classes."""
    torch.manual_seed(seed)
    stages = OrderedDict(
        (str(level), nn.Sequential(nn.Conv2d(inputs, 8, 3, stride, 1), nn.BatchNorm2d(8), nn.ReLU()))
        for level, (inputs, stride) in enumerate([(3, 4), (8, 2), (8, 2), (8, 2)])
    )
    names = {name: name for name in stages}
    trunk = BackboneWithFPN(nn.Sequential(stages), names, [8] * 4, CHANNELS, extra_blocks=LastLevelMaxPool())
    extra = {
        "faster": {},
        "mask": {"mask_head": MaskRCNNHeads(8, (8,), 1), "mask_predictor": MaskRCNNPredictor(8, 8, 4)},
        "keypoint": {"keypoint_head": KeypointRCNNHeads(8, (8,)), "keypoint_predictor": KeypointRCNNPredictor(8, 2)},
    }[kind]
    small: dict[str, Any] = {
        "min_size": 64,
        "max_size": 96,
        "rpn_anchor_generator": AnchorGenerator(tuple((8 * 2**i,) for i in range(5)), ((1.0,),) * 5),
        "box_head": TwoMLPHead(CHANNELS * 49, 16),
        "box_predictor": FastRCNNPredictor(16, 4),
        "rpn_post_nms_top_n_train": 40,
        "rpn_post_nms_top_n_test": 12,
        "box_batch_size_per_image": 16,
        "box_score_thresh": 0.0,
    }
    return KINDS[kind](trunk, **(small | extra | options))


def image(seed: int, height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def target(boxes: list[list[float]], labels: list[int], height: int = 48, width: int = 64) -> Sample:
    """All that any of the detectors wants; torchvision's detectors leave alone what they do not know."""
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(boxes), height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, corners.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    middle = (corners[:, None, :2] + corners[:, None, 2:]) / 2
    points = torch.cat([middle, torch.ones_like(middle[..., :1])], dim=2).repeat(1, 2, 1)
    return {"boxes": corners, "labels": torch.tensor(labels, dtype=torch.int64), "masks": masks, "keypoints": points}


def samples() -> tuple[list[Tensor], list[Sample]]:
    """Three images of two sizes; the second has no box."""
    images = [image(0), image(1, 60, 60), image(2)]
    boxes = [[4.0, 5, 40, 44], [30, 8, 62, 40]]
    return images, [target(boxes, [1, 3]), target([], [], 60, 60), target([[0, 0, 33, 33]], [2])]


def torchvision_loop(model: nn.Module, images: list[Tensor], targets: list[Sample], steps: int) -> list[float]:
    """As in torchvision's references: sum the losses, step; returns the sums."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.02, momentum=0.9, weight_decay=1e-4)
    model.train()
    sums = []
    for _ in range(steps):
        losses = sum(loss for loss in model(images, targets).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        sums.append(losses.item())
    return sums


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    assert [name for name, value in one.state_dict().items() if not value.equal(theirs[name])] == []


def assert_same_detections(one: list[Sample], other: list[Sample]) -> None:
    assert any(len(found["boxes"]) for found in one)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert first[name].equal(second[name]), name
