"""Attention that looks at a few places of feature maps, in plain PyTorch: the same code on a CPU and a GPU.

Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", ICLR 2021.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample


class Levels(NamedTuple):
    """Feature maps of several resolutions, as one row of S tokens an image: level by level, each row by row.

    ``tokens`` [B, S, C]; ``positions`` [B, S, C]: what says where a token is; ``valid`` [B, S] bool: False where the
    batch is padded; ``shapes``: (height, width) of each level in cells; ``ratios`` [B, levels, 2]: the part of each
    level's width and height that is image.
    """

    tokens: Tensor
    positions: Tensor
    valid: Tensor
    shapes: list[tuple[int, int]]
    ratios: Tensor

    def map(self, level: int) -> tuple[Tensor, Tensor]:
        """One level as a map: tokens [B, C, h, w], valid [B, h, w]."""
        counts = [height * width for height, width in self.shapes]
        tokens = self.tokens.split(counts, 1)[level].transpose(1, 2).unflatten(2, self.shapes[level])
        return tokens, self.valid.split(counts, 1)[level].unflatten(1, self.shapes[level])


class DeformableAttention(nn.Module):
    """Each query takes a weighted mean of a few interpolated tokens around its reference. [Deformable DETR Eq. 3]

    In training all queries look at first in ``heads`` directions, the k-th point of a direction k cells away.
    """

    def __init__(self, width: int, heads: int, levels: int, points: int) -> None:
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.offsets = nn.Linear(width, heads * levels * points * 2)
        self.weights = nn.Linear(width, heads * levels * points)
        self.values = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self._initialise()

    def forward(self, queries: Tensor, references: Tensor, levels: Levels) -> Tensor:
        """Look around ``references`` for each query.

        Shapes: queries [B, Q, C]; references [B, Q, levels, 2] centres, or [B, Q, levels, 4] centres and sizes of
        boxes, as parts of the padded maps; returns [B, Q, C].
        """
        shape = (*queries.shape[:2], self.heads, self.levels, self.points)
        values = self.values(levels.tokens).masked_fill(~levels.valid[..., None], 0.0)
        weights = self.weights(queries).unflatten(-1, (self.heads, -1)).softmax(-1).view(shape)
        offsets = self.offsets(queries).view(*shape, 2)
        around = references[:, :, None, :, None]  # [B, Q, 1, levels, 1, 2 or 4]
        if references.shape[-1] == 2:
            cells = values.new_tensor([(width, height) for height, width in levels.shapes])
            places = around + offsets / cells[:, None]
        else:  # the outermost point of a direction starts on the border of the box
            places = around[..., :2] + offsets / self.points * around[..., 2:] * 0.5
        return self.output(sample_levels(values, levels.shapes, places, weights))

    def _initialise(self) -> None:
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angles.cos(), angles.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)  # on the border of a square
        distance = torch.arange(1, self.points + 1)
        bias = direction[:, None, None] * distance[:, None]  # [heads, 1, points, 2]
        with torch.no_grad():
            self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())
        for weight in (self.offsets.weight, self.weights.weight, self.weights.bias):
            nn.init.zeros_(weight)
        for layer in (self.values, self.output):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def sample_levels(values: Tensor, shapes: list[tuple[int, int]], places: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of bilinear samples; what lies outside a map counts as zero.

    Shapes: values [B, S, C]; places [B, Q, heads, levels, points, 2], (x, y) as parts of the maps; weights [B, Q,
    heads, levels, points]; returns [B, Q, C], channels head by head.
    """
    batch, queries, heads = weights.shape[:3]
    grids = (2 * places - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)  # [levels, B heads, Q, points, 2]
    maps = values.transpose(1, 2).reshape(batch * heads, -1, values.shape[1])  # [B heads, C / heads, S]
    sampled = [
        grid_sample(flat.unflatten(2, shape), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        for flat, shape, grid in zip(maps.split([h * w for h, w in shapes], 2), shapes, grids, strict=True)
    ]
    share = weights.permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, -1)
    total = (torch.stack(sampled, 3).flatten(3) * share).sum(3)  # [B heads, C / heads, Q]
    return total.view(batch, -1, queries).transpose(1, 2)
