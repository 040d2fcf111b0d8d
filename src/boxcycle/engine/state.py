"""Everything that must survive a kill for a run to go on as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from boxcycle.engine.config import FitConfig
from boxcycle.engine.ema import Ema
from boxcycle.engine.losses import RunningMeans

FORMAT = 1  # of resume.pt
MAY_CHANGE = {"log_every", "eval_every", "save_every", "workers", "threads", "device", "trackers"}  # when resuming


@dataclass
class TrainingState:
    """The parts of a run that change with its steps. Random states are kept by the loop: each process has its own."""

    config: FitConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: Any  # of fp16, else None
    ema: Ema | None
    means: RunningMeans
    step: int = 0  # updates done
    evaluated: bool = True  # False while the evaluation due at ``step`` is not done
    metrics: dict[str, float] = field(default_factory=dict)  # of the last evaluation
    best: float | None = None
    best_step: int = 0

    def weights(self) -> Mapping[str, Tensor]:
        """What is worth keeping: the averaged weights if there are any."""
        return self.ema.average if self.ema else self.model.state_dict()

    def finite(self) -> bool:
        """Whether every trainable weight is a number."""
        checks = [parameter.isfinite().all() for parameter in self.model.parameters() if parameter.requires_grad]
        return bool(torch.stack(checks).all())

    def to_dict(self, random_states: list[dict[str, Any]]) -> dict[str, Any]:
        """Tensors, numbers and texts only. ``random_states``: one a process, by rank."""
        return {
            "format": FORMAT,
            "config": self.config.model_dump(mode="json"),
            "step": self.step,
            "evaluated": self.evaluated,
            "metrics": self.metrics,
            "best": self.best,
            "best_step": self.best_step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "ema": {"average": self.ema.average, "updates": self.ema.updates} if self.ema else None,
            "means": {"sums": self.means.sums, "counts": self.means.counts},
            "random": random_states,
        }

    def load_dict(self, saved: Mapping[str, Any], source: Path) -> None:
        """Take over what :meth:`to_dict` gave. Raises ``ValueError`` if settings or model are others."""
        if saved.get("format") != FORMAT:
            raise ValueError(f"{source} has checkpoint format {saved.get('format')}; this version reads {FORMAT}")
        self._check_config(saved["config"], source)
        try:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{source} belongs to another model: {' '.join(str(error).split())}") from error
        if self.ema:
            self.ema.load(saved["ema"]["average"], saved["ema"]["updates"])
        if self.scaler:
            self.scaler.load_state_dict(saved["scaler"])
        device = next(self.model.parameters()).device
        self.means.sums = {name: value.to(device) for name, value in saved["means"]["sums"].items()}
        self.means.counts = dict(saved["means"]["counts"])
        self.step, self.evaluated, self.metrics = saved["step"], saved["evaluated"], dict(saved["metrics"])
        self.best, self.best_step = saved["best"], saved["best_step"]

    def _check_config(self, saved: Mapping[str, Any], source: Path) -> None:
        now = self.config.model_dump(mode="json")
        differ = [name for name in now if name not in MAY_CHANGE and now[name] != saved.get(name)]
        if differ:
            changes = ", ".join(f"{name} was {saved.get(name)!r} and is {now[name]!r}" for name in differ)
            raise ValueError(f"cannot resume {source} with other settings: {changes}")
