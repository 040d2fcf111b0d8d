"""A small weak detector."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.network import GuidanceConfig, WeakDetectorConfig

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
        network = {"frozen": 0, "roi_size": 4, "width": 16, **network}
        config = WeakDetectorConfig(backbone=tiny, weights="none", **network)
        guidance = GuidanceConfig(**{"gate": 0.0, **changes})
        return WeakDetector(CLASSES, config, guidance, guided_after=after)

    return make
