"""Images whose tags are known, with proposals."""

from __future__ import annotations

import torch
from torch import Tensor

from boxcycle.types import Target


def picture(seed: int, size: tuple[int, int] = (64, 80)) -> Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(seed))


def draw_proposals(seed: int, count: int, size: tuple[int, int] = (64, 80)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1], size[0]])
    return torch.cat([corners.amin(1), corners.amax(1) + 1], dim=1)


def tagged(seed: int, tags: list[float], count: int = 30) -> Target:
    """A target without any box: only what training may read."""
    return {
        "image_id": seed,
        "seed": seed,
        "image_labels": torch.tensor(tags),
        "proposals": draw_proposals(seed, count),
    }  # type: ignore[typeddict-item]
