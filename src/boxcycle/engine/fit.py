"""The training loop.

The model is called as ``model(images, targets)`` and returns a dict of scalar losses, each a mean over the images it
was given; its attribute ``loss_weights`` has the same keys. It may offer ``watched`` (numbers of the last call, logged
beside the losses) and ``parameter_groups()``.

Every trainable parameter must receive a gradient in every step, zero if need be, also where a process sees only empty
targets: processes meet in the backward pass, and one that skips a parameter would keep the others waiting.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from boxcycle.engine.checkpoint import RESUME, load_resume, save_resume, save_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.devices import largest, make_accelerator, torch_settings
from boxcycle.engine.ema import Ema
from boxcycle.engine.losses import RunningMeans, mean_over_processes
from boxcycle.engine.progress import TrainingProgress, memory_gb
from boxcycle.engine.random_state import kept_random_state, random_state, set_random_state
from boxcycle.engine.records import Records
from boxcycle.engine.schedule import learning_rate
from boxcycle.engine.signals import EvaluationStopped, Interrupted, StopSignals
from boxcycle.engine.state import TrainingState
from boxcycle.engine.update import Batches, Updater

MakeBatches = Callable[[int, int, int], Iterable[tuple[Any, Any]]]
Evaluate = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True)
class FitResult:
    """How a run ended. ``seconds`` and ``images_per_second`` are of this call, the rest is of the whole run."""

    steps: int
    best: float | None  # the best value of the chosen figure; None without an evaluation
    best_step: int
    metrics: dict[str, float]  # of the last evaluation
    losses: dict[str, float]  # means of the last logged row, and what was watched
    seconds: float
    images_per_second: float  # while training: evaluations and checkpoints apart


def fit(
    model: nn.Module,
    make_batches: MakeBatches,
    config: FitConfig,
    folder: Path,
    *,
    evaluate: Evaluate | None = None,
    best: str | None = "AP50",
    resume: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> FitResult:
    """Train ``model`` for ``config.steps`` steps and leave checkpoints and records in ``folder``.

    ``make_batches(start_step, rank, world_size)`` yields this process's micro-batches ``(images, targets)`` from step
    ``start_step`` (0 is the first) on: ``config.accumulate`` of them a step, each of ``batch_size / accumulate /
    world_size`` images, the same whenever it is asked again. ``evaluate(model)`` runs on the main process, with the
    averaged weights if there are any; its figure ``best`` (higher is better) chooses ``checkpoints/best.safetensors``;
    with None the last weights stand, whatever the figures say. ``metadata`` goes into the weights files. ``model``
    carries the last weights afterwards, not the averaged ones.

    With ``resume`` the run goes on from ``checkpoints/resume.pt`` (from step 0 if there is none), on a CPU bit for bit
    as if it had never stopped, provided that batches do not depend on global random state.

    Raises :class:`Interrupted` after Ctrl-C or SIGTERM, once the step under way is done and saved; ``NonFiniteLoss``;
    ``ValueError`` for settings that cannot work here, a folder that already holds a run, a checkpoint of another run.
    """
    accelerator = make_accelerator(config, folder)
    with torch_settings(config), StopSignals() as signals:
        run = _Run(model, config, folder, accelerator, signals, evaluate, best, dict(metadata or {}))
        with run.closing:
            run.start(resume)
            run.train(make_batches)
        return run.result()


class _Run:
    """One call of :func:`fit` on one of its processes. Only the main process writes and shows."""

    def __init__(
        self,
        model: nn.Module,
        config: FitConfig,
        folder: Path,
        accelerator: Accelerator,
        signals: StopSignals,
        evaluate: Evaluate | None,
        best: str | None,
        metadata: dict[str, str],
    ) -> None:
        self.model, self.config, self.folder, self.accelerator = model, config, folder, accelerator
        self.signals, self.evaluate_model, self.best, self.metadata = signals, evaluate, best, metadata
        self.checkpoints, self.is_main = folder / "checkpoints", accelerator.is_main_process
        means = RunningMeans()
        self.updater = Updater(model, config, accelerator, means)
        ema = Ema(model, config.ema) if config.ema and self.is_main else None
        self.state = TrainingState(config, model, self.updater.optimizer, accelerator.scaler, ema, means)
        self.losses: dict[str, float] = {}
        self.closing = ExitStack()
        self.started, self.seconds, self.images = time.perf_counter(), 0.0, 0

    def start(self, resume: bool) -> None:
        """Restore or begin; open progress and records; save, so that a folder that cannot be written is found now."""
        [saved] = broadcast_object_list([load_resume(self.checkpoints) if self.is_main else None])
        if saved and not resume:
            raise ValueError(f"{self.folder} already holds a run; to go on with it: resume=true")
        if saved:
            self.restore(saved)
        self.progress = TrainingProgress(self.config.steps, self.state.step, shown=self.is_main)
        self.closing.callback(self.progress.close)
        if self.is_main:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            self.records = Records(self.folder, self.state.step, self.accelerator, self.config)
            self.closing.callback(self.records.close)
        if resume:
            where = f"resuming at step {self.state.step}" if saved else "nothing to resume, starting at step 0"
            self.progress.say(f"{where} in {self.folder}")
        self.save()
        self.progress.start()

    def train(self, make_batches: MakeBatches) -> None:
        """The loop."""
        config, state = self.config, self.state
        if not state.evaluated:
            self.evaluate()  # a signal or a kill came between
        batches = self.batches_from_here(make_batches)
        while state.step < config.steps:
            self.updater.update(state.step, batches)
            state.step += 1
            if state.ema:
                state.ema.update(self.model)
            self.progress.advance(state.step)
            if self.due(config.log_every):
                self.log()
            state.evaluated = self.evaluate_model is None or not self.due(config.eval_every)
            stop = largest(self.accelerator, self.signals.requested)
            if stop or not state.evaluated or self.due(config.save_every):
                self.save()
            if stop:
                raise Interrupted(stop, state.step, self.folder)
            if not state.evaluated:
                self.evaluate()

    def due(self, every: int) -> bool:
        """Whether what happens every ``every`` steps (0: never) and at the end happens now."""
        return self.state.step == self.config.steps or bool(every and self.state.step % every == 0)

    def batches_from_here(self, make_batches: MakeBatches) -> Batches:
        """The micro-batches from this step on.

        A loader draws a seed when it is started, here; that may not shift the random draws of a resumed run.
        """
        if self.state.step == self.config.steps:
            return iter(())
        with kept_random_state():
            batches = iter(
                make_batches(self.state.step, self.accelerator.process_index, self.accelerator.num_processes)
            )
            first = list(islice(batches, 1))
        return chain(first, batches)

    def log(self) -> None:
        """Write a row: means over the steps since the last one, and over the processes."""
        self.losses = mean_over_processes(gather_object([self.state.means.take()]))
        row = {
            **self.losses,
            "lr": learning_rate(self.config, self.state.step - 1),
            "images_per_second": self.updater.images / self.updater.seconds,
            "memory_gb": memory_gb(self.accelerator.device),
        }
        self.count_time()
        if self.is_main:
            self.records.add(self.state.step, row)
            self.progress.show(self.state.step, row)

    def evaluate(self) -> None:
        """Evaluate while the other processes wait; keep the weights if they are the best so far; save."""
        [metrics] = broadcast_object_list([self.measure() if self.is_main else None])
        if metrics is None:
            raise Interrupted(largest(self.accelerator, self.signals.requested), self.state.step, self.folder)
        if self.best is not None and self.best not in metrics:
            raise ValueError(
                f"the evaluation has no figure {self.best!r} to choose weights by; it has {sorted(metrics)}"
            )
        self.state.metrics, self.state.evaluated = metrics, True
        if self.is_main:
            self.records.add(self.state.step, metrics)
        if self.best is not None:
            self.keep_best(self.best, metrics[self.best])
        self.save()

    def keep_best(self, name: str, value: float) -> None:
        """Keep the weights if their figure is the highest so far."""
        state = self.state
        if not math.isnan(value) and (state.best is None or value > state.best):
            state.best, state.best_step = value, state.step
            self.save_weights("best", {name: f"{value:.6g}"})
        best = f" (best {state.best:.4g}, step {state.best_step})" if state.best is not None else ""
        self.progress.say(f"step {state.step}: {name} {value:.4g}{best}")

    def measure(self) -> dict[str, float] | None:
        """The figures of the evaluation; None if a signal cut it short."""
        averaged = self.state.ema.applied(self.model) if self.state.ema else nullcontext()
        self.model.eval()
        try:
            with averaged, torch.no_grad(), kept_random_state(), self.progress.paused(), self.signals.evaluating():
                assert self.evaluate_model, "an evaluation is due only if there is one"
                return {name: float(value) for name, value in self.evaluate_model(self.model).items()}
        except EvaluationStopped:
            return None
        finally:
            self.model.train()

    def save(self) -> None:
        """Write the last weights and what resuming needs."""
        if not self.state.finite():
            raise ValueError(f"weights are not finite after step {self.state.step}; the last save stays as it is")
        random_states = gather_object([random_state()])
        if self.is_main:
            self.records.sync()
            save_resume(self.checkpoints, self.state.to_dict(random_states))
        self.save_weights("last", {})
        self.accelerator.wait_for_everyone()  # none may leave, and end the others, before the files are whole

    def save_weights(self, name: str, figures: Mapping[str, str]) -> None:
        if self.is_main:
            metadata = {**self.metadata, **figures, "step": str(self.state.step)}
            save_weights(self.checkpoints / f"{name}.safetensors", self.state.weights(), metadata)

    def restore(self, saved: Mapping[str, Any]) -> None:
        self.state.load_dict(saved, self.checkpoints / RESUME)
        rank = self.accelerator.process_index
        if rank < len(saved["random"]):  # else more processes than before: their draws start from the seed
            set_random_state(saved["random"][rank])

    def count_time(self) -> None:
        self.seconds, self.images = self.seconds + self.updater.seconds, self.images + self.updater.images
        self.updater.seconds, self.updater.images = 0.0, 0

    def result(self) -> FitResult:
        state, seconds = self.state, time.perf_counter() - self.started
        speed = self.images / self.seconds if self.seconds else 0.0
        return FitResult(state.step, state.best, state.best_step, state.metrics, self.losses, seconds, speed)
