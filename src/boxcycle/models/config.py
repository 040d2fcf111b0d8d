"""What a user can set about a two-stage detector: one frozen model for all of them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.models.two_stage import RegionConfig


class DetectorConfig(BaseModel):
    """A two-stage detector by name and number; every key means the same for each of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["faster_rcnn", "rfcn"] = Field(
        "faster_rcnn",
        description="faster_rcnn: the backbone's last stage for each region; rfcn: once for the whole image",
    )
    backbone: str = Field(
        "efficientnet_lite0",
        description="efficientnet_lite0 | resnet18 | resnet50 | resnet101 | mobilenet_v1 | inception_resnet_v2 | vgg16",
    )
    weights: str = Field(
        "default",
        description="default (packaged ImageNet weights) | none (random; the first training images give the norms' "
        "statistics) | hub | a .safetensors or .pth file",
    )
    frozen: int | None = Field(
        None, ge=0, description="first stages that do not learn; empty: the backbone's own default"
    )
    anchor_sizes: tuple[float, ...] = Field(
        (16, 32, 64, 128, 256),
        min_length=1,
        description="square roots of anchor areas, pixels (the paper: 64, 128, 256, 512)",
    )
    anchor_ratios: tuple[float, ...] = Field(
        (0.5, 1.0, 2.0), min_length=1, description="heights over widths of anchors"
    )
    rpn_sampled: int = Field(256, gt=0, description="anchors of an image that teach the proposer")
    rpn_candidates: int = Field(
        1000, gt=0, description="best anchors that go into the proposer's suppression (the paper: all)"
    )
    rpn_nms_iou: float = Field(0.7, gt=0, le=1, description="IoU of the proposer's suppression")
    proposals: int = Field(300, gt=0, description="proposals of an image")
    roi_size: int | None = Field(
        None,
        gt=0,
        description="cells a side into which a region is pooled; empty: 7 for faster_rcnn (4 is cheap, for small "
        "images), 3 for rfcn",
    )
    regions: RegionConfig = RegionConfig()
