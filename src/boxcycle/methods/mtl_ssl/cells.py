"""Tasks of cells instead of windows: foreground (task 3), and an experiment with edges. [MTL-SSL section 3.1]"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from boxcycle.methods.mtl_ssl import labels, losses
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.types import ImageList, Target

GRID = 64  # cells a side: the released code
EDGE_UNIT = 16.0  # pixels: the stride of this package's trunks
LONGEST_EDGE = 8.0  # of the log of a distance in EDGE_UNIT; exp(8) * 16 pixels is longer than any image, and finite


class CellHead(nn.Module):
    """A 1x1 convolution on the shared maps, read off at the centres of a grid over each image."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        conv = nn.utils.skip_init(nn.Conv2d, channels, outputs, kernel_size=1)
        # a draw apart from the detector's, which stays what it is without the tasks
        nn.init.trunc_normal_(conv.weight, std=0.01, a=-0.02, b=0.02, generator=torch.Generator().manual_seed(0))
        nn.init.zeros_(conv.bias)
        self.conv = conv

    def forward(self, maps: Any, batch: ImageList) -> Tensor:
        """Values [B, D, grid, grid] of each image's part of the padded maps; levels of a pyramid add up."""
        whole = [batch.tensors.new_tensor([[0, 0, width, height]]) for height, width in batch.sizes]
        grids = []
        for level in [maps] if isinstance(maps, Tensor) else maps.levels.values():
            scale = level.shape[-1] / batch.tensors.shape[-1]
            # one bilinear sample at each cell's centre
            sampled = roi_align(self.conv(level), whole, GRID, spatial_scale=scale, sampling_ratio=1, aligned=True)
            grids.append(sampled.float())
        return torch.stack(grids).sum(0)


def foreground_task(logits: Tensor, batch: ImageList, targets: list[Target], config: TaskConfig) -> Tensor:
    """Task 3, the loss: where are objects at all? Shapes: logits [B, 2, grid, grid]; targets in the image frame."""
    per_image = list(zip(targets, batch.sizes, strict=True))
    mask = torch.stack([_foreground_mask(target, size, config) for target, size in per_image])
    if not config.foreground_original:
        return losses.foreground_loss(logits, mask).mean()
    weights = torch.stack([labels.foreground_weights(target["boxes"], size, GRID) for target, size in per_image])
    return losses.foreground_loss(logits.tanh(), mask, weights).mean()


def edge_task(values: Tensor, batch: ImageList, targets: list[Target]) -> Tensor:
    """The loss of an experiment: how far are a box's edges from the cells inside it?

    Shapes: values [B, 4, grid, grid], logs of distances; targets in the image frame.
    """
    distances = values.clamp(max=LONGEST_EDGE).exp() * EDGE_UNIT
    each = [
        losses.edge_loss(guess, *labels.edge_distances(target["boxes"], size, GRID))
        for guess, target, size in zip(distances, targets, batch.sizes, strict=True)
    ]
    return torch.stack(each).mean()


def _foreground_mask(target: Target, size: tuple[int, int], config: TaskConfig) -> Tensor:
    if not config.foreground_masks:
        return labels.foreground_mask(target["boxes"], size, GRID, original=config.foreground_original)
    if "masks" not in target:
        name = f"image {target['image_id']}" if "image_id" in target else "the target"
        raise ValueError(f"tasks.foreground_masks=true needs segmentation masks; {name} has none")
    return labels.foreground_of_masks(target["masks"], GRID)
