"""Where a cell or a box is, as waves of many lengths. [Vaswani et al., 2017, section 3.5; DETR, section A.4]"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cell_positions(valid: Tensor, channels: int) -> Tensor:
    """The place of each cell's centre within its image, padding left out: half the channels for y, half for x.

    Shapes: valid [B, h, w] bool; returns [B, h, w, channels].
    """
    whole = valid.float()
    rows, columns = whole.cumsum(1), whole.cumsum(2)
    y = (rows - 0.5) / (rows[:, -1:] + 1e-6)
    x = (columns - 0.5) / (columns[:, :, -1:] + 1e-6)
    return waves(torch.stack([y, x], -1), channels // 2)


def waves(places: Tensor, channels: int) -> Tensor:
    """Sines and cosines of wavelengths 1 to 10,000, alternating, for each coordinate.

    Shapes: places [..., D] as parts of the image; returns [..., D * channels].
    """
    lengths = 10000 ** (2 * (torch.arange(channels, device=places.device) // 2) / channels)
    angles = places[..., None] * (2 * math.pi) / lengths
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], -1).flatten(-3)
