"""Box operations that torchvision.ops lacks. Boxes are xyxy, all of one frame."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import box_area


def covered_fraction(boxes: Tensor, regions: Tensor) -> Tensor:
    """How much of each box lies inside each region: intersection over the area of the *box*, in [0, 1].

    Shapes: boxes [P, 4], regions [N, 4]; returns [P, N].
    """
    corner_low = boxes[:, None, :2].maximum(regions[None, :, :2])
    corner_high = boxes[:, None, 2:].minimum(regions[None, :, 2:])
    intersection = (corner_high - corner_low).clamp(min=0).prod(-1)  # [P, N]
    return intersection / box_area(boxes)[:, None].clamp(min=1e-9)


def whole_image(size: tuple[int, int], like: Tensor) -> Tensor:
    """The box [4] around an image of ``size`` (height, width), of the type and on the device of ``like``.

    Made of tensors throughout, so that an export takes the sides from its input and not from the example.
    """
    height, width = (torch.as_tensor(side, dtype=like.dtype, device=like.device) for side in size)
    zero = torch.zeros_like(width)
    return torch.stack([zero, zero, width, height])
