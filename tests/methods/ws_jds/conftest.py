"""A small weak detector, and images whose tags are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.network import GuidanceConfig, WeakDetectorConfig
from boxcycle.types import Target

MakeDetector = Callable[..., WeakDetector]
CLASSES = 3


@pytest.fixture
def make_detector(tiny: str) -> MakeDetector:
    """``make_detector(variant="both", sampled=24, ...)``: settings of guidance and network, guided from the start."""

    def make(**changes: Any) -> WeakDetector:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        network = {name: changes.pop(name) for name in list(changes) if name in WeakDetectorConfig.model_fields}
        after = changes.pop("guided_after", 0)
        config = WeakDetectorConfig(backbone=tiny, weights="none", roi_size=4, width=16, **network)
        guidance = GuidanceConfig(**{"gate": 0.0, **changes})
        return WeakDetector(CLASSES, config, guidance, guided_after=after)

    return make


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
