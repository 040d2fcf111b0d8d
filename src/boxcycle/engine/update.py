"""One update of the weights: forward, check, backward, clip, step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor, nn

from boxcycle.engine.config import FitConfig
from boxcycle.engine.devices import largest
from boxcycle.engine.losses import LossModule, NonFiniteLoss, RunningMeans, describe, weighted_total
from boxcycle.engine.optim import clip_gradients, make_optimizer, parameter_groups, set_learning_rate
from boxcycle.engine.schedule import learning_rate

Batches = Iterator[tuple[Any, Any]]


class Updater:
    """Model and optimizer on this process's device, ready for :meth:`update`.

    ``seconds`` and ``images`` count what updates took and saw since the caller last set them to zero.
    """

    def __init__(self, model: nn.Module, config: FitConfig, accelerator: Accelerator, means: RunningMeans) -> None:
        self.model, self.config, self.accelerator, self.means = model.train(), config, accelerator, means
        self.groups = parameter_groups(model, config)
        self._module = accelerator.prepare_model(LossModule(model))
        self._optimizer = accelerator.prepare_optimizer(make_optimizer(self.groups, config))
        self.seconds, self.images = 0.0, 0

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """torch's optimizer, without accelerate's wrapper."""
        optimizer: torch.optim.Optimizer = self._optimizer.optimizer
        return optimizer

    def update(self, step: int, batches: Batches) -> None:
        """Step number ``step`` (0 is the first), from ``accumulate`` micro-batches of this process."""
        begun, config = time.perf_counter(), self.config
        set_learning_rate(self.optimizer, learning_rate(config, step))
        for micro in range(config.accumulate):
            images, targets = self._next(batches, step)
            last = micro == config.accumulate - 1  # the processes exchange gradients once a step
            with nullcontext() if last else self.accelerator.no_sync(self._module):
                losses = self._module(images, targets)
                total = weighted_total(losses, cast("Mapping[str, float]", self.model.loss_weights))
                self._check_finite(step, total, losses, targets)
                self.accelerator.backward(total / config.accumulate)
            self.means.add({"loss": total, **losses, **getattr(self.model, "watched", {})})
        self.accelerator.unscale_gradients()
        self.means.add(clip_gradients(self.groups, config.clip, config.clip_norm))
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.seconds += time.perf_counter() - begun
        self.images += config.batch_size

    def _next(self, batches: Batches, step: int) -> tuple[Any, Any]:
        batch = next(batches, None)
        where = f"step {step + 1} of {self.config.steps}"
        if batch is None:
            raise ValueError(f"make_batches has no batch for {where}")
        wanted = self.config.batch_size // (self.config.accumulate * self.accelerator.num_processes)
        if len(batch[0]) != wanted:
            raise ValueError(
                f"make_batches must give {wanted} images a batch (batch_size / accumulate / processes); "
                f"got {len(batch[0])} in {where}"
            )
        moved: tuple[Any, Any] = send_to_device(batch, self.accelerator.device, non_blocking=True)
        return moved

    def _check_finite(self, step: int, total: Tensor, losses: Mapping[str, Tensor], targets: Any) -> None:
        """Stop every process if the loss of one is not finite, before the weights are touched.

        Asking waits for the forward pass: the one point a step at which a GPU's queue is emptied.
        """
        finite = bool(total.isfinite())
        if largest(self.accelerator, int(not finite)):
            findings = [] if finite else [describe(losses, targets)]
            raise NonFiniteLoss(step + 1, gather_object(findings))
