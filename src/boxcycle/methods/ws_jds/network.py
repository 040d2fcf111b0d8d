"""The two branches of WS-JDS on one trunk, and what can be set about them."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torchvision.ops import roi_align

from boxcycle.methods.ws_jds.refinement import Refinement
from boxcycle.models.backbone import Backbone

CHUNK = 512  # regions that a branch sees at a time where no gradient is wanted


class WeakDetectorConfig(BaseModel):
    """The network by name and number, and how it detects."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field("efficientnet_lite0", description="a backbone of the other methods (the paper: vgg16)")
    stride: Literal[8, 16] = Field(8, description="pixels a cell of the features: 8 (the code: dilated) or 16 (paper)")
    weights: str = Field(
        "default", description="default (packaged ImageNet weights) | none | hub | a .safetensors or .pth file"
    )
    frozen: int | None = Field(
        None, ge=0, description="first stages that do not learn; empty: all before the regions are pooled, as the code"
    )
    roi_size: int = Field(7, gt=0, description="cells a side of a region's features; 4 is cheap, for small images")
    sampled: int = Field(512, gt=0, description="proposals of an image that teach in a step (the paper: up to 2048)")
    width: int = Field(256, gt=0, description="channels of the segmentation's arms (the paper: 1024)")
    rates: tuple[int, ...] = Field(
        (6, 12, 18, 24), min_length=1, description="dilations of the arms, cells (at stride 16 half of them see as far)"
    )
    scales: tuple[float, ...] = Field((1.0,), min_length=1, description="sizes at which images are detected, averaged")
    flip: bool = Field(False, description="detect in the mirror image too, averaged")
    crf: Refinement = Field(
        "none", description="masks at test to the image's edges: none | small (64 cells) | full (needs boxcycle[crf])"
    )
    score_threshold: float = Field(1e-4, ge=0, lt=1, description="detections below are dropped (the code: 1e-9)")
    nms_iou: float = Field(0.5, gt=0, le=1, description="IoU of the final suppression")
    detections: int = Field(100, gt=0, description="detections kept of an image")


class GuidanceConfig(BaseModel):
    """Who teaches whom (Table 1), with which weights and from when on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: Literal["parallel", "to_segmentation", "to_detection", "both"] = Field(
        "both", description="guidance by the detection's maps, by the segmentation's masks, by both, by none"
    )
    segmentation: float = Field(1.0, ge=0, description="weight of the segmentation loss; 0: plain WSDDN")
    boundary: float = Field(1.0, ge=0, description="weight of the constrain-to-boundary loss")
    mask_detection: float = Field(0.1, ge=0, description="variant both: weight of the detection guided by masks")
    start: float = Field(0.2, ge=0, le=1, description="part of the training after which guidance begins")
    gate: float = Field(0.7, ge=0, le=1, description="classes below that image score have no map (as in the code)")
    foreground: float = Field(0.5, gt=0, le=1, description="a map's cells from there on are the class (paper: 0.1)")
    background: float = Field(0.05, ge=0, lt=1, description="and up to there not the class (the paper: 0.005)")
    threshold: float = Field(
        0.7, gt=0, le=1, description="T: cells from that part of the highest value on weigh proposals (the paper: 0.1)"
    )
    literal: bool = Field(False, description="Eq. 4 as printed, cut off at 0 and 1")
    weighted_maps: bool = Field(True, description="proposals speak by their scores in maps (the code); false: equally")

    @model_validator(mode="after")
    def _possible(self) -> GuidanceConfig:
        if not self.segmentation and self.variant != "parallel":
            raise ValueError("without the segmentation branch (segmentation=0) there is no guidance: variant=parallel")
        if self.background >= self.foreground:
            raise ValueError(f"background must be below foreground ({self.foreground}); got {self.background}")
        return self


class DetectionBranch(nn.Module):
    """WSDDN's two streams: RoIAlign, the backbone's last stage, a linear layer each.
    [WS-JDS section 3, object detection branch]
    """

    def __init__(self, backbone: Backbone, config: WeakDetectorConfig, num_classes: int) -> None:
        super().__init__()
        self.stage, self.stride, self.size = backbone.head, backbone.stride, config.roi_size
        self.classes = _linear(backbone.head_channels, num_classes)
        self.regions = _linear(backbone.head_channels, num_classes)

    def forward(self, maps: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits X^c and X^d [R, K] of regions (boxes: a list of [R_i, 4], image frame)."""
        rows = [torch.cat([torch.full_like(b[:, :1], i), b], dim=1) for i, b in enumerate(boxes)]
        together = torch.cat(rows).to(maps)
        chunks = [together] if torch.is_grad_enabled() else list(together.split(CHUNK))
        vectors = torch.cat([self._vectors(maps, chunk) for chunk in chunks])
        return self.classes(vectors), self.regions(vectors)

    def _vectors(self, maps: Tensor, rows: Tensor) -> Tensor:
        scale = 1 / self.stride
        vectors: Tensor = self.stage(
            roi_align(maps, rows, self.size, spatial_scale=scale, sampling_ratio=2, aligned=True)
        )
        return vectors


class SegmentationBranch(nn.Module):
    """Parallel arms of dilated convolutions (ASPP), summed: a logit for each class and cell, no background.
    [WS-JDS section 3, semantic segmentation branch]
    """

    def __init__(self, channels: int, config: WeakDetectorConfig, num_classes: int) -> None:
        super().__init__()
        self.arms = nn.ModuleList(_arm(channels, config.width, num_classes, rate) for rate in config.rates)

    def forward(self, maps: Tensor) -> Tensor:
        """Logits [B, K, h, w] of features [B, C, h, w]."""
        return torch.stack([arm(maps) for arm in self.arms]).sum(0)


def _arm(channels: int, width: int, num_classes: int, rate: int) -> nn.Sequential:
    last = nn.Conv2d(width, num_classes, 1, bias=False)  # one half everywhere at the start
    nn.init.normal_(last.weight, std=0.01)
    first = nn.Conv2d(channels, width, 3, padding=rate, dilation=rate)
    return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)  # WSDDN's successors (PCL); the paper: Xavier
    nn.init.zeros_(layer.bias)
    return layer
