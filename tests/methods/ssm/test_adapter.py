"""The adapter for torchvision's detectors that docs/mining.md shows, run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .cases import make_index

PAGE = Path(__file__).parents[3] / "docs" / "mining.md"


@pytest.fixture
def shown() -> dict[str, Any]:
    """What the page's code defines."""
    names: dict[str, Any] = {}
    for text in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S):
        exec(compile(text, str(PAGE), "exec"), names)
    return names


def test_probabilities_from_overlapping_detections(shown: dict[str, Any]) -> None:
    found = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [50, 50, 60, 60]]),
        "labels": torch.tensor([2, 1, 2]),
        "scores": torch.tensor([0.6, 0.3, 0.9]),
    }
    complete = shown["WithProbs"](torch.nn.Identity(), 3).complete(found)
    expected = torch.tensor([[0.1, 0.3, 0.6, 0], [0.1, 0.3, 0.6, 0], [0.1, 0, 0.9, 0]])
    assert torch.allclose(complete["probs"], expected, atol=1e-6)
    crowded = found | {"scores": torch.tensor([0.9, 0.9, 0.9])}
    assert torch.allclose(shown["WithProbs"](torch.nn.Identity(), 3).complete(crowded)["probs"].sum(1), torch.ones(3))


def test_a_torchvision_detector_mines(shown: dict[str, Any], tmp_path: Path) -> None:
    from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

    torch.manual_seed(0)
    detector = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=96, box_score_thresh=0.01
    )
    index = make_index(tmp_path, [[(2, 2, 30, 30, 1, 0.9)], [(5, 5, 40, 40, 2, 0.9)]])
    found = shown["mine"](detector, index, np.array([0]), tmp_path / "mined")
    assert found.candidates.probs.shape[1] == 4
    assert (tmp_path / "mined" / "candidates-0-of-1.jsonl").exists()
