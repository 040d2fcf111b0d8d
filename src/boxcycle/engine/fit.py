"""The training loop.

The model is called as ``model(images, targets)`` and returns a dict of scalar losses, each a mean over the images it was given; its
attribute ``loss_weights`` has the same keys. It may offer ``watched`` (numbers of the last call, logged beside the losses) and
``parameter_groups()``. Every trainable parameter must receive a gradient in every step, zero if need be, also where a process sees only
empty targets: processes meet in the backward pass, and one that skips a parameter would keep the others waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object, send_to_device
from torch import Tensor, nn

from boxcycle.engine.checkpoint import RESUME, load_resume, save_resume, save_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.devices import make_accelerator, torch_settings
from boxcycle.engine.ema import Ema
from boxcycle.engine.losses import LossModule, NonFiniteLoss, describe, mean_over_processes, weighted_total
from boxcycle.engine.optim import clip_gradients, make_optimizer, parameter_groups, set_learning_rate
from boxcycle.engine.progress import TrainingProgress, memory_gb
from boxcycle.engine.random_state import kept_random_state, random_state, set_random_state
from boxcycle.engine.records import Records
from boxcycle.engine.schedule import learning_rate_factor
from boxcycle.engine.signals import EvaluationStopped, Interrupted, StopSignals
from boxcycle.engine.state import TrainingState

MakeBatches = Callable[[int, int, int], Iterable[tuple[Any, Any]]]
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class FitResult:
    """How a run ended. ``seconds`` and ``images_per_second`` are of this call; the rest is of the whole run."""

    steps: int
    best: float | None  # the best value of the chosen metric, None without an evaluation
    best_step: int
    metrics: dict[str, float]  # of the last evaluation
    losses: dict[str, float]  # the last logged row
    seconds: float
    images_per_second: float  # while training, evaluations and checkpoints apart


def fit(
    model: nn.Module,
    make_batches: MakeBatches,
    config: FitConfig,
    folder: Path,
    *,
    evaluate: Evaluate | None = None,
    best: str = "AP50",
    resume: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> FitResult:
    """Train ``model`` for ``config.steps`` steps and leave checkpoints and records in ``folder``.

    ``make_batches(start_step, rank, world_size)`` yields this process's micro-batches ``(images, targets)`` from step ``start_step`` (0 is the
    first) on: ``config.accumulate`` of them a step, each of ``batch_size / accumulate / world_size`` images, the same whenever asked again.
    ``evaluate(model)`` runs on the main process, on the averaged weights if there are any; its figure named ``best`` (higher is better)
    chooses ``checkpoints/best.safetensors``. ``metadata`` goes into the weights files.

    With ``resume`` a run goes on from ``checkpoints/resume.pt`` (from step 0 if there is none), on a CPU bit for bit as if it had never
    stopped, provided that batches and evaluation do not depend on global random state.

    Raises :class:`Interrupted` after Ctrl-C or SIGTERM, once the step under way is done and saved; :class:`NonFiniteLoss`; ``ValueError``
    for settings that cannot work here, a folder that already holds a run, and checkpoints of another run.
    """
    accelerator = make_accelerator(config, folder)
    with torch_settings(config), StopSignals() as signals:
        loop = _Loop(model, config, folder, accelerator, signals, metadata or {})
        loop.evaluate_with, loop.best_metric = evaluate, best
        loop.start(resume)
        with loop.progress:
            try:
                return loop.run(make_batches)
            finally:
                loop.close()


class _Loop:
    """One call of :func:`fit`, on one of its processes."""

    evaluate_with: Evaluate | None = None
    best_metric: str

    def __init__(
        self,
        model: nn.Module,
        config: FitConfig,
        folder: Path,
        accelerator: Accelerator,
        signals: StopSignals,
        metadata: Mapping[str, str],
    ) -> None:
        self.model, self.config, self.folder, self.accelerator, self.signals = (
            model,
            config,
            folder,
            accelerator,
            signals,
        )
        self.metadata = metadata
        self.is_main, self.world_size = accelerator.is_main_process, accelerator.num_processes
        self.checkpoints = folder / "checkpoints"
        self.groups = parameter_groups(model, config)
        self.module = accelerator.prepare_model(LossModule(model.train()))
        self.optimizer = accelerator.prepare_optimizer(make_optimizer(self.groups, config))
        ema = Ema(model, config.ema) if config.ema and self.is_main else None
        self.state = TrainingState(config, model, self.optimizer.optimizer, accelerator.scaler, ema)
        self.losses: dict[str, float] = {}
        self.started = time.perf_counter()
        self.seconds, self.images, self.timed = 0.0, 0, (0.0, 0)  # training alone: so far, and at the last row

    # --- the run ---------------------------------------------------------------------------------------------------------------------

    def start(self, resume: bool) -> None:
        """Restore or begin, and open the records."""
        saved = load_resume(self.checkpoints)
        if saved and not resume:
            raise ValueError(f"{self.folder} already holds a run; to go on with it: resume=true")
        if saved:
            self.state.load_dict(saved, self.checkpoints / RESUME)
            if self.accelerator.process_index < len(saved["random"]):
                set_random_state(saved["random"][self.accelerator.process_index])
        self.progress = TrainingProgress(self.config.steps, self.state.step, shown=self.is_main)
        if resume:
            self.progress.say(
                f"resuming at step {self.state.step}"
                if saved
                else f"nothing to resume in {self.folder}: starting at step 0"
            )
        if self.is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.records = Records(self.folder, self.state.step, self.accelerator)
        self.save()  # a folder that cannot be written is found now; a kill between two files of a save is mended

    def run(self, make_batches: MakeBatches) -> FitResult:
        state, config = self.state, self.config
        if not state.evaluated:
            self.evaluate()
        batches = self.batches(make_batches) if state.step < config.steps else iter(())
        while state.step < config.steps:
            self.train_step(batches)
            if self.due(config.log_every):
                self.log()
            state.evaluated = not (self.evaluate_with and self.due(config.eval_every))
            stop = self.largest(self.signals.requested)
            if stop or not state.evaluated or self.due(config.save_every):
                self.save()
            if stop:
                self.stop(stop)
            if not state.evaluated:
                self.evaluate()
        return self.result()

    def train_step(self, batches: Iterator[tuple[Any, Any]]) -> None:
        """One update of the weights, from ``accumulate`` micro-batches."""
        begun, config = time.perf_counter(), self.config
        set_learning_rate(self.optimizer, config.lr * learning_rate_factor(config, self.state.step))
        for micro in range(config.accumulate):
            images, targets = self.next_batch(batches)
            last = micro == config.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.module):
                losses = self.module(images, targets)
                total = weighted_total(losses, self.model.loss_weights)
                self.check_finite(total, losses, targets)
                self.accelerator.backward(total / config.accumulate)
            self.state.means.add({"loss": total, **losses, **getattr(self.model, "watched", {})})
        self.accelerator.unscale_gradients()
        self.state.means.add(clip_gradients(self.groups, config.clip, config.clip_norm))
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.state.ema:
            self.state.ema.update(self.model)
        self.state.step += 1
        self.seconds, self.images = self.seconds + time.perf_counter() - begun, self.images + config.batch_size
        self.progress.advance(self.state.step)

    def evaluate(self) -> None:
        """Evaluate on the main process while the others wait, keep the weights if they are the best so far, save."""
        metrics = self.evaluate_here() if self.is_main else None
        metrics = broadcast_object_list([metrics])[0]
        if metrics is None:
            self.stop(self.largest(self.signals.requested))
        state = self.state
        state.metrics, state.evaluated = metrics, True
        if self.best_metric not in metrics:
            raise ValueError(
                f"the evaluation has no figure {self.best_metric!r} to choose the best weights by; it has {sorted(metrics)}"
            )
        value = metrics[self.best_metric]
        if state.best is None or value > state.best:
            state.best, state.best_step = value, state.step
            self.save_weights("best.safetensors")
        if self.is_main:
            self.records.add(state.step, metrics)
            self.progress.say(
                f"step {state.step}: {self.best_metric} {value:.4g}, best {state.best:.4g} at step {state.best_step}"
            )
        self.save()

    # --- its parts -------------------------------------------------------------------------------------------------------------------

    def batches(self, make_batches: MakeBatches) -> Iterator[tuple[Any, Any]]:
        """The micro-batches from here on. A loader draws a seed when it starts; that may not shift the model's draws of a resumed run."""
        with kept_random_state():
            batches = iter(make_batches(self.state.step, self.accelerator.process_index, self.world_size))
            first = list(next_or_nothing(batches))
        return chain(first, batches)

    def next_batch(self, batches: Iterator[tuple[Any, Any]]) -> tuple[Any, Any]:
        batch = next(batches, None)
        step = f"step {self.state.step + 1} of {self.config.steps}"
        if batch is None:
            raise ValueError(f"make_batches has no batch for {step}")
        wanted = self.config.batch_size // (self.config.accumulate * self.world_size)
        if len(batch[0]) != wanted:
            raise ValueError(
                f"make_batches must give {wanted} images (batch_size / accumulate / processes) a batch; got {len(batch[0])} in {step}"
            )
        moved: tuple[Any, Any] = send_to_device(batch, self.accelerator.device, non_blocking=True)
        return moved

    def check_finite(self, total: Tensor, losses: Mapping[str, Tensor], targets: Any) -> None:
        """Stop every process if the loss of one is not finite, before the weights are touched."""
        finite = bool(total.isfinite())
        if not self.largest(int(not finite)):
            return
        findings = gather_object([describe(losses, targets)] if not finite else [])
        raise NonFiniteLoss(self.state.step + 1, findings)

    def evaluate_here(self) -> dict[str, float] | None:
        """The figures; None if a signal cut the evaluation short."""
        averaged = self.state.ema.applied(self.model) if self.state.ema else nullcontext()
        self.model.eval()
        try:
            with averaged, torch.no_grad(), kept_random_state(), self.progress.paused(), self.signals.evaluating():
                return {name: float(value) for name, value in self.evaluate_with(self.model).items()}
        except EvaluationStopped:
            return None
        finally:
            self.model.train()

    def log(self) -> None:
        """Write a row: means over the steps since the last one, and over the processes."""
        self.losses = mean_over_processes(gather_object([self.state.means.take()]))
        seconds, images = self.seconds - self.timed[0], self.images - self.timed[1]
        self.timed = (self.seconds, self.images)
        row = {
            **self.losses,
            "lr": self.config.lr * learning_rate_factor(self.config, self.state.step - 1),
            "images_per_second": images / seconds,
            "memory_gb": memory_gb(self.accelerator.device),
        }
        if self.is_main:
            self.records.add(self.state.step, row)
            self.progress.show(self.state.step, row)

    def save(self) -> None:
        """Write what resuming needs and the last weights."""
        if not self.state.finite():
            raise FloatingPointError(
                f"weights are not finite after step {self.state.step}; the checkpoint before it is kept"
            )
        random_states = gather_object([random_state()])
        if self.is_main:
            self.records.sync()
            save_resume(self.checkpoints, self.state.to_dict(random_states))
        self.save_weights("last.safetensors")
        self.accelerator.wait_for_everyone()

    def save_weights(self, name: str) -> None:
        if self.is_main:
            figures = {self.best_metric: f"{self.state.best:.6g}"} if name.startswith("best") else {}
            save_weights(
                self.checkpoints / name,
                self.state.weights(),
                {**self.metadata, **figures, "step": str(self.state.step)},
            )

    def stop(self, signum: int) -> None:
        interrupted = Interrupted(signum, self.state.step, self.folder)
        self.progress.say(str(interrupted))
        raise interrupted

    def due(self, every: int) -> bool:
        """Whether something that happens every ``every`` steps (0: never) and at the end happens now."""
        return self.state.step == self.config.steps or bool(every and self.state.step % every == 0)

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers: what one of them found is known to all."""
        if self.world_size == 1:
            return number
        shared = torch.tensor(number, device=self.accelerator.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return int(shared)

    def result(self) -> FitResult:
        state = self.state
        return FitResult(
            steps=state.step,
            best=state.best,
            best_step=state.best_step,
            metrics=state.metrics,
            losses=self.losses,
            seconds=time.perf_counter() - self.started,
            images_per_second=self.images / self.seconds if self.seconds else 0.0,
        )

    def close(self) -> None:
        if self.is_main:
            self.records.close()


def next_or_nothing(batches: Iterator[Any]) -> Iterator[Any]:
    """At most one item."""
    for batch in batches:
        yield batch
        return
