"""Faster R-CNN with a trunk/head split backbone: RoIAlign on the trunk's map, then the backbone's own last stage for
each region.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NeurIPS 2015, in the C4
form.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torchvision.ops import roi_align

from boxcycle.models.backbone import Backbone, build_backbone
from boxcycle.models.proposals import RegionProposer
from boxcycle.models.two_stage import RegionConfig, TwoStageDetector


class FasterRCNNConfig(BaseModel):
    """A Faster R-CNN by name and number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(
        "efficientnet_lite0",
        description="efficientnet_lite0 | resnet18 | resnet50 | resnet101 | mobilenet_v1 | inception_resnet_v2 | vgg16",
    )
    weights: str = Field(
        "default", description="default (packaged ImageNet weights) | none | hub | a .safetensors or .pth file"
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
    roi_size: int = Field(7, gt=0, description="cells a side of a region's features; 4 is cheap, for small images")
    regions: RegionConfig = RegionConfig()


class RegionHead(nn.Module):
    """Class logits of regions: RoIAlign, a backbone's last stage, one fully connected layer. The "conv5 head" of the
    papers.
    """

    def __init__(self, stage: nn.Module, stride: int, size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stage, self.stride, self.size = stage, stride, size
        self.classifier = _linear(channels, num_classes + 1, std=0.01)

    def pooled(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Feature vectors [R, head_channels] of regions (boxes: a list of [R_i, 4], image frame)."""
        # torchvision's MultiScaleRoIAlign has no aligned=True (half-pixel-correct) form, hence the function
        regions = roi_align(maps, boxes, self.size, spatial_scale=1 / self.stride, sampling_ratio=2, aligned=True)
        return self.stage(regions)

    def prepare(self, maps: Tensor) -> Tensor:
        """What :meth:`classify` reads: the maps themselves, since everything is done for each region."""
        return maps

    def classify(self, prepared: Tensor, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions (boxes: a list of [R_i, 4], image frame)."""
        return self.classifier(self.pooled(prepared, boxes))

    def forward(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions: both steps."""
        return self.classify(self.prepare(maps), boxes)


class DetectionHead(nn.Module):
    """A region head and, from the same vectors, a box for each class.

    ``region`` can be copied (``copy.deepcopy``) into a head that classifies other windows of the same maps.
    """

    def __init__(self, region: RegionHead, channels: int, num_classes: int) -> None:
        super().__init__()
        self.region = region
        self.regressor = _linear(channels, num_classes * 4, std=0.001)  # initial deviations: Fast R-CNN, section 3.1

    def forward(self, maps: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [R, K+1] and box deltas [R, K, 4] of regions."""
        vectors = self.region.pooled(maps, boxes)
        return self.region.classifier(vectors), self.regressor(vectors).unflatten(1, (-1, 4))


class FasterRCNN(TwoStageDetector):
    """Faster R-CNN for K classes on a trunk/head split backbone."""

    def __init__(
        self, num_classes: int, config: FasterRCNNConfig | None = None, backbone: Backbone | None = None
    ) -> None:
        config = config or FasterRCNNConfig()
        backbone = backbone or build_backbone(config.backbone, weights=config.weights, frozen=config.frozen)
        proposer = RegionProposer(
            backbone.trunk_channels,
            config.anchor_sizes,
            config.anchor_ratios,
            candidates=config.rpn_candidates,
            count=config.proposals,
            nms_iou=config.rpn_nms_iou,
            sampled=config.rpn_sampled,
        )
        region = RegionHead(backbone.head, backbone.stride, config.roi_size, backbone.head_channels, num_classes)
        head = DetectionHead(region, backbone.head_channels, num_classes)
        del backbone.head  # it belongs to the region head now; one owner for each weight
        super().__init__(backbone, proposer, head, num_classes, config.regions)


def _linear(inputs: int, outputs: int, std: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(layer.bias)
    return layer
