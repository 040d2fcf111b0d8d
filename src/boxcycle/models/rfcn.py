"""R-FCN with a trunk/head split backbone: its last stage once over the whole map, then votes of score maps by position.

Dai, Li, He and Sun, "R-FCN: Object Detection via Region-based Fully Convolutional Networks", NeurIPS 2016.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu
from torchvision.ops import ps_roi_align, roi_align

from boxcycle.models.backbone import Backbone, build_backbone
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import build_proposer, start_small
from boxcycle.models.two_stage import TwoStageDetector

BINS = 3  # k, a side: MTL-SSL's release (R-FCN's paper: 3 and 7)
SAMPLES = 6  # points a side of a bin: MTL-SSL's release crops 18 x 18 points for 3 x 3 bins
REDUCED = 1024  # channels after the last stage: R-FCN, section 2


class ScoreHead(nn.Module):
    """Class logits of regions: a backbone's last stage, 1x1 to 1024 channels, k x k score maps for each class, votes.

    All but the votes is done once for a whole map: ``classify(prepare(maps), boxes)`` for every list of boxes.
    """

    def __init__(self, body: nn.Module, stride: int, bins: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body, self.stride, self.bins = keep_cells(body), stride, bins
        self.reduction = start_small(nn.Conv2d(channels, REDUCED, kernel_size=1), std=0.01)
        self.scores = start_small(nn.Conv2d(REDUCED, bins**2 * (num_classes + 1), kernel_size=1), std=0.01)

    def reduced(self, maps: Tensor) -> Tensor:
        """Features [B, 1024, H, W] of the whole map, from which all score maps are made (maps: [B, C, H, W])."""
        features = self.body(maps)
        if features.shape[-2:] != maps.shape[-2:]:
            expected, found = list(maps.shape[-2:]), list(features.shape[-2:])
            raise ValueError(
                f"R-FCN needs a last stage that keeps maps of {expected} cells (height, width); this backbone's gives "
                f"{found}: choose larger images or another backbone"
            )
        return relu(self.reduction(features))

    def prepare(self, maps: Tensor) -> Tensor:
        """The score maps [B, (K+1) k k, H, W] of a batch, for :meth:`classify`."""
        return self.scores(self.reduced(maps))

    def classify(self, prepared: Tensor, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions (boxes: a list of [R_i, 4], image frame) of score maps."""
        return votes(prepared, boxes, self.bins, self.stride)

    def forward(self, maps: Tensor, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions: both steps."""
        return self.classify(self.prepare(maps), boxes)


class DetectionHead(nn.Module):
    """A score head and, from the same features, k x k maps of each class's four box deltas.

    ``region`` can be copied (``copy.deepcopy``) into a head that classifies other windows of the same maps.
    """

    def __init__(self, region: ScoreHead, num_classes: int) -> None:
        super().__init__()
        self.region = region
        # as in Faster R-CNN: boxes start where the regions are
        self.shifts = start_small(nn.Conv2d(REDUCED, region.bins**2 * num_classes * 4, kernel_size=1), std=0.001)

    def forward(self, maps: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Logits [R, K+1] and box deltas [R, K, 4] of regions."""
        region = self.region
        reduced = region.reduced(maps)
        deltas = votes(self.shifts(reduced), boxes, region.bins, region.stride)
        return region.classify(region.scores(reduced), boxes), deltas.unflatten(1, (-1, 4))


class RFCN(TwoStageDetector):
    """R-FCN for K classes on a trunk/head split backbone."""

    def __init__(
        self, num_classes: int, config: DetectorConfig | None = None, backbone: Backbone | None = None
    ) -> None:
        config = config or DetectorConfig(name="rfcn")
        backbone = backbone or build_backbone(config.backbone, weights=config.weights, frozen=config.frozen)
        proposer = build_proposer(backbone.trunk_channels, config)
        bins = config.roi_size or BINS
        region = ScoreHead(backbone.head.body, backbone.stride, bins, backbone.head_channels, num_classes)
        head = DetectionHead(region, num_classes)
        del backbone.head  # its body belongs to the score head now; one owner for each weight
        super().__init__(backbone, proposer, head, num_classes, config.regions)


def votes(maps: Tensor, boxes: list[Tensor], bins: int, stride: int) -> Tensor:
    """Each region's mean over its k x k bins, where bin (i, j) reads the map that is responsible for it.

    Shapes: maps [B, D k k, H, W], those of one output together, its bins row by row; boxes: a list of [R_i, 4], image
    frame. Returns [R, D], float32. [R-FCN, section 2, position-sensitive score maps and pooling]
    """
    # float32: torchvision has no other kernel on the CPU, and its own does not take part in autocast
    maps, regions = maps.float(), [rows.float() for rows in boxes]
    if torch.onnx.is_in_onnx_export():
        return votes_by_roi_align(maps, regions, bins, stride)
    return ps_roi_align(maps, regions, bins, spatial_scale=1 / stride, sampling_ratio=SAMPLES).mean((2, 3))


def votes_by_roi_align(maps: Tensor, boxes: list[Tensor], bins: int, stride: int) -> Tensor:
    """:func:`votes` by an operation that ONNX has: every map is pooled in every bin, and a map's own bin kept."""
    pooled = roi_align(maps, boxes, bins, spatial_scale=1 / stride, sampling_ratio=SAMPLES, aligned=True)
    cells = pooled.unflatten(1, (-1, bins * bins)).flatten(3)  # [R, D, map, bin]
    own = torch.eye(bins * bins, dtype=cells.dtype, device=cells.device) / bins**2
    return (cells * own).sum((2, 3))


def keep_cells(body: nn.Module) -> nn.Module:
    """Let a last stage give one cell for each cell of its map, in place: strides of 1, padding of half a kernel.

    So score maps have the trunk's stride of 16 on every backbone. Without it those of a ResNet have it already, and
    those of MobileNet, EfficientNet and Inception-ResNet have 32: R-FCN's paper keeps 16, by dilating what follows,
    MTL-SSL's release without dilation, as here.
    """
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel = layer.kernel_size if isinstance(layer.kernel_size, tuple) else (layer.kernel_size,) * 2
            layer.stride, layer.padding = (1, 1), tuple(side // 2 for side in kernel)
        elif isinstance(layer, nn.AvgPool2d):  # of a shortcut, over the cells that a stride would merge
            layer.kernel_size, layer.stride, layer.padding = 1, 1, 0
    return body
