"""What the loop makes of a dict of losses: a weighted sum of exactly the right keys, and running means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class NonFiniteLoss(ValueError):
    """The weighted sum of the losses of a step is NaN or infinite."""

    def __init__(self, step: int, findings: Iterable[str]) -> None:
        super().__init__(f"the loss of step {step} is not finite: {'; '.join(findings)}")
        self.step = step


class LossModule(nn.Module):
    """Calls ``model(images, targets)``; wrappers for processes and precision go around it and leave ``model`` alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Any, targets: Any) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.model(images, targets)
        return losses


def weighted_total(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of weight times loss. Raises ``ValueError`` unless the keys are equal: a typo may not drop a loss."""
    if losses.keys() != weights.keys():
        missing, unexpected = sorted(weights.keys() - losses.keys()), sorted(losses.keys() - weights.keys())
        raise ValueError(
            f"losses and loss_weights must have the same keys; losses lack {missing}, loss_weights lack {unexpected}"
        )
    return torch.stack([weight * losses[name].float() for name, weight in weights.items()]).sum()


def describe(losses: Mapping[str, Tensor], targets: Iterable[Mapping[str, Any]]) -> str:
    """One clause for an error: each loss's value, and the images."""
    values = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in losses.items())
    images = ", ".join(str(int(target["image_id"])) if "image_id" in target else "unnamed" for target in targets)
    return f"{values} (images {images})"


class RunningMeans:
    """Means since the last row, by name; summed on the device, so that adding waits for nothing."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor | float]) -> None:
        """Count each of ``values`` (scalars) once."""
        for name, value in values.items():
            scalar = value.detach().float() if isinstance(value, Tensor) else torch.tensor(float(value))
            self.sums[name] = self.sums[name] + scalar if name in self.sums else scalar.clone()
            self.counts[name] = self.counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means; then start anew."""
        means = {name: float(total) / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


def mean_over_processes(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each name over the processes that have it (a number to watch may need an object to exist)."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: sum(row[name] for row in rows if name in row) / sum(name in row for row in rows) for name in names}
