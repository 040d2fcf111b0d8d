"""Faster R-CNN with a trunk/head split backbone: RoIAlign on the trunk's map, the last stage for each region.

Ren et al., "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", NeurIPS 2015, in the form
that is called C4.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn
from torchvision.ops import roi_align

from boxcycle.models.backbone import Backbone, build_backbone
from boxcycle.models.config import DetectorConfig
from boxcycle.models.proposals import RegionProposer
from boxcycle.models.two_stage import TwoStageDetector

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)
REGION_CELLS = 7  # a side: Fast R-CNN, section 2.1


class RegionHead(nn.Module):
    """Class logits of regions: RoIAlign, a backbone's last stage (the papers: "conv5"), one fully connected layer."""

    def __init__(self, stage: nn.Module, stride: int, size: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.stage, self.stride, self.size = stage, stride, size
        self.classifier = start_small(nn.Linear(channels, num_classes + 1), std=0.01)

    def pooled(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Feature vectors [R, head_channels] of regions (boxes: a list of [R_i, 4], image frame)."""
        # torchvision's MultiScaleRoIAlign has no aligned=True (half-pixel-correct) form, hence the function
        regions = roi_align(maps, boxes, self.size, spatial_scale=1 / self.stride, sampling_ratio=2, aligned=True)
        return self.stage(regions)

    def prepare(self, maps: Tensor) -> Tensor:
        """What all regions of a batch share, for :meth:`classify`: here the maps as they are."""
        return maps

    def classify(self, prepared: Tensor, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions (boxes: a list of [R_i, 4], image frame) of prepared maps."""
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
        # initial deviations: Fast R-CNN, section 3.1
        self.regressor = start_small(nn.Linear(channels, num_classes * 4), std=0.001)

    def forward(self, maps: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [R, K+1] and box deltas [R, K, 4] of regions."""
        vectors = self.region.pooled(maps, boxes)
        return self.region.classifier(vectors), self.regressor(vectors).unflatten(1, (-1, 4))


class FasterRCNN(TwoStageDetector):
    """Faster R-CNN for K classes on a trunk/head split backbone."""

    def __init__(
        self, num_classes: int, config: DetectorConfig | None = None, backbone: Backbone | None = None
    ) -> None:
        config = config or DetectorConfig()
        backbone = backbone or build_backbone(config.backbone, weights=config.weights, frozen=config.frozen)
        proposer = build_proposer(backbone.trunk_channels, config)
        size = config.roi_size or REGION_CELLS
        region = RegionHead(backbone.head, backbone.stride, size, backbone.head_channels, num_classes)
        head = DetectionHead(region, backbone.head_channels, num_classes)
        del backbone.head  # it belongs to the region head now; one owner for each weight
        super().__init__(backbone, proposer, head, num_classes, config.regions)


def build_proposer(channels: int, config: DetectorConfig) -> RegionProposer:
    """The region proposal network on a trunk's maps of so many channels."""
    return RegionProposer(
        channels,
        config.anchor_sizes,
        config.anchor_ratios,
        candidates=config.rpn_candidates,
        count=config.proposals,
        nms_iou=config.rpn_nms_iou,
        sampled=config.rpn_sampled,
    )


def start_small(layer: Layer, std: float) -> Layer:
    """Give a new layer weights of a truncated normal distribution and no bias, in place."""
    nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer
