"""What a transformer sees of a batch: maps of one or several strides as rows of tokens, with places and padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from boxcycle.models.backbone import Backbone, Trunk
from boxcycle.models.backbone_cuts import ARCHITECTURES
from boxcycle.models.deformable_attention import Levels
from boxcycle.models.positions import cell_positions
from boxcycle.types import ImageList

GROUPS = 32  # of the norm after each projection: the released code of Deformable DETR


class FeatureMaps(nn.Module):
    """The backbone's maps: stride 16 alone, or strides 8, 16 and, with three stages, 32.

    ``channels`` has one number for each map. Raises ``ValueError`` if the network has no stage of stride 32.
    """

    def __init__(self, backbone: Backbone, name: str, stages: int) -> None:
        super().__init__()
        self.trunk, self.stages = backbone.trunk, stages
        self.top = _top_stage(backbone, name) if stages == 3 else None
        with torch.no_grad():
            self.channels = [int(maps.shape[1]) for maps in self(torch.zeros(1, 3, 64, 64))]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Shapes: images [B, 3, H, W], normalised; returns maps [B, C_i, H / stride_i, W / stride_i]."""
        if self.stages == 1:
            return [self.trunk(images)]
        maps = _last_of_each_size(self.trunk, images)[-2:]
        return maps if self.top is None else [*maps, self.top(maps[-1])]


class FeatureLevels(nn.Module):
    """Maps of all levels in one width, flattened, with their positions. [Deformable DETR section 4.1, A.2]

    One level has stride 16. Several begin at stride 8; those coarser than the backbone's come from a 3 x 3 convolution
    of stride 2 each.
    """

    def __init__(self, channels: Sequence[int], levels: int, width: int) -> None:
        super().__init__()
        more = levels - len(channels)
        projections = [nn.Conv2d(inputs, width, 1) for inputs in channels]
        for inputs in ([channels[-1]] + [width] * more)[:more]:  # the first of them sees the backbone's last map
            projections.append(nn.Conv2d(inputs, width, 3, stride=2, padding=1))
        for layer in projections:
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.projections = nn.ModuleList(nn.Sequential(layer, nn.GroupNorm(GROUPS, width)) for layer in projections)
        self.embedding = nn.Parameter(torch.randn(levels, width))

    def forward(self, maps: list[Tensor], batch: ImageList) -> Levels:
        """Shapes: maps [B, C_i, h_i, w_i], fine to coarse."""
        projected = [layer(one) for layer, one in zip(self.projections, maps, strict=False)]
        for layer in self.projections[len(maps) :]:
            projected.append(layer(maps[-1] if len(projected) == len(maps) else projected[-1]))
        shapes = [(int(one.shape[2]), int(one.shape[3])) for one in projected]
        valid = [valid_cells(batch, shape) for shape in shapes]
        positions = [
            cell_positions(mask, one.shape[1]) + place
            for mask, one, place in zip(valid, projected, self.embedding, strict=True)
        ]
        return Levels(
            tokens=torch.cat([one.flatten(2).transpose(1, 2) for one in projected], 1),
            positions=torch.cat([one.flatten(1, 2) for one in positions], 1),
            valid=torch.cat([mask.flatten(1) for mask in valid], 1),
            shapes=shapes,
            ratios=torch.stack(
                [torch.stack([m[:, 0].float().mean(1), m[:, :, 0].float().mean(1)], -1) for m in valid], 1
            ),
        )


def valid_cells(batch: ImageList, shape: tuple[int, int]) -> Tensor:
    """Which cells of a map of ``shape`` belong to the image: those whose first pixel does. Returns [B, h, w] bool."""
    device, padded = batch.tensors.device, batch.tensors.shape[-2:]
    sides = []
    for axis in (0, 1):
        first = (torch.arange(shape[axis], device=device) * (padded[axis] / shape[axis])).floor()
        sides.append(first < torch.tensor([size[axis] for size in batch.sizes], device=device)[:, None])
    return sides[0][:, :, None] & sides[1][:, None]


def level_of_stride_16(levels: int) -> int:
    """The number of the level of stride 16: the only one, or the second."""
    return min(levels - 1, 1)


def _last_of_each_size(trunk: Trunk, images: Tensor) -> list[Tensor]:
    """The last map of each resolution, fine to coarse."""
    maps: list[Tensor] = []
    current = images.contiguous(memory_format=torch.channels_last)
    for stage in trunk:
        current = stage(current)
        if maps and maps[-1].shape[-2:] == current.shape[-2:]:
            maps.pop()
        maps.append(current)
    return maps


def _top_stage(backbone: Backbone, name: str) -> nn.Module:
    dense = ARCHITECTURES[name].dense
    if dense is None:
        able = ", ".join(other for other, its in ARCHITECTURES.items() if its.dense)
        raise ValueError(f"{name} has no stage of stride 32 for 3 levels or more; there are {able}")
    return dense(backbone.head.body)
