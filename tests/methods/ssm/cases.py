"""Candidates and detections for the tests of SSM."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from boxcycle.methods.ssm.labels import Candidates
from boxcycle.types import Detections


def detections(rows: Sequence[tuple[Sequence[float], Sequence[float]]], classes: int = 3) -> Detections:
    """Detections from (box, probabilities) pairs."""
    boxes = torch.tensor([list(box) for box, _ in rows], dtype=torch.float32).reshape(-1, 4)
    probs = torch.tensor([list(probs) for _, probs in rows], dtype=torch.float64).reshape(-1, classes + 1)
    scores, labels = probs[:, 1:].max(1) if len(rows) else (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return Detections(boxes=boxes, labels=labels + 1, scores=scores, probs=probs)


def make(probs: Sequence[Sequence[float]], consistency: Sequence[float] | None = None) -> Candidates:
    """Candidate number i is in image i, which is how ties between them are settled."""
    count = len(probs)
    return Candidates(
        image_ids=torch.arange(count),
        boxes=torch.tensor([[0.0, 0, 10, 10]]).repeat(count, 1),
        probs=torch.tensor(probs, dtype=torch.float64).reshape(count, -1 if count else 4),
        consistency=torch.tensor(consistency or [float("nan")] * count, dtype=torch.float64),
        tests=torch.zeros(count, dtype=torch.int64),
        age=torch.zeros(count, dtype=torch.int64),
    )
