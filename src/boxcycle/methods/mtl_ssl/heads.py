"""Heads of the tasks that cost little for each window: a last stage runs once over the whole map. [MTL-SSL section 3.2]

The mean of a linear layer's outputs is the linear layer of the mean. So a map is turned into class logits cell by cell,
and a window's logits are a weighted mean of cells: one product of two matrices for thousands of windows.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from boxcycle.models.backbone import RoIHead
from boxcycle.models.faster_rcnn import RegionHead


def task_head(region: nn.Module, form: str) -> nn.Module:
    """The head of a task, by the name of ``tasks.heads``: it starts as a copy of the detector's region head.

    Where a last stage is run over the whole map, only the linear layer is copied. A region head of another kind, which
    runs over whole maps itself or has no last stage to run, is copied as it is.
    """
    if form != "region" and isinstance(region, RegionHead):
        return MapHead(region)
    if form == "shared":
        raise ValueError(
            "tasks.heads=shared needs a region head that is a backbone's last stage, such as Faster R-CNN's; "
            f"found {type(region).__name__}: choose dense or region"
        )
    return copy.deepcopy(region)


class Cells(NamedTuple):
    """A last stage's features of whole maps, [B, C, h, w], and the size (H, W) of the maps: some stages halve it."""

    features: Tensor
    size: tuple[int, int]


def run_over_maps(stage: RoIHead, maps: Tensor) -> Cells:
    """A last stage that is made for regions, over whole maps [B, C, H, W] instead."""
    features = stage.body(maps.contiguous(memory_format=torch.channels_last))
    return Cells(features, (maps.shape[-2], maps.shape[-1]))  # as they are: an export follows them


class MapHead(nn.Module):
    """Class logits of windows as means of the logits of the cells that they cover.

    The linear layer is a copy of a region head's (replicate initialisation).
    """

    def __init__(self, region: RegionHead) -> None:
        super().__init__()
        self.classifier = copy.deepcopy(region.classifier)
        self.stride = region.stride

    def prepare(self, cells: Cells) -> Tensor:
        """Logits [B, K+1, H, W] of the cells of maps, for :meth:`classify`."""
        logits = conv2d(cells.features, self.classifier.weight[:, :, None, None], self.classifier.bias)
        return interpolate(logits, cells.size, mode="bilinear")  # nothing to do where the stage keeps the size

    def classify(self, prepared: Tensor, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of windows (boxes: a list of [R_i, 4], image frame)."""
        per_image = zip(prepared.float(), boxes, strict=True)
        return torch.cat([window_means(logits, windows / self.stride) for logits, windows in per_image])

    def forward(self, cells: Cells, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of windows: both steps."""
        return self.classify(self.prepare(cells), boxes)


def window_means(cells: Tensor, windows: Tensor) -> Tensor:
    """Mean of a map over each window; a cell counts by the part of it that lies inside.

    Shapes: cells [D, H, W], windows [M, 4] xyxy in units of cells; returns [M, D].
    """
    down = _parts(windows[:, 1], windows[:, 3], cells.shape[1])  # [M, H]
    across = _parts(windows[:, 0], windows[:, 2], cells.shape[2])  # [M, W]
    parts = (down[:, :, None] * across[:, None]).flatten(1)  # [M, H W], rows sum to 1
    return parts @ cells.flatten(1).T


def _parts(low: Tensor, high: Tensor, count: int) -> Tensor:
    """[M, count] the part of each interval [low, high) that lies in each of the cells [0, 1), [1, 2), ..."""
    start = torch.arange(count, device=low.device, dtype=low.dtype)
    shared = high[:, None].minimum(start + 1) - low[:, None].maximum(start)
    return shared.clamp(min=0) / (high - low)[:, None].clamp(min=1e-6)
