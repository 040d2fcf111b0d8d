"""A detector of a few hundred weights, its data, and one function that trains it: also in processes that are killed."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boxcycle.engine.checkpoint import save_resume
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import FitResult, fit
from boxcycle.engine.signals import Interrupted
from ranks import be_rank

# what a row of metrics.csv has of it, beside the figures of an evaluation
LOGGED = {"loss", "loss_boxes", "loss_classes", "present", "grad_norm_detector", "grad_norm_heads"}
LOGGED |= {"lr", "images_per_second", "memory_gb"}


class TinyDetector(nn.Module):
    """Two losses, each a mean over images; an image without boxes gives zeros through every weight.

    With ``noisy`` it draws from all three global random generators, which a resumed run has to get back.
    """

    def __init__(self, *, noisy: bool = False, poison: float | None = None) -> None:
        super().__init__()
        self.loss_weights = {"loss_boxes": 1.0, "loss_classes": 0.5}
        self.trunk = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 8), nn.ReLU())
        self.norm = nn.BatchNorm1d(8) if noisy else nn.Identity()
        self.boxes, self.classes = nn.Linear(8, 4), nn.Linear(8, 3)
        self.noisy, self.poison = noisy, poison

    def forward(self, images: list[Tensor], targets: list[dict[str, Any]]) -> dict[str, Tensor]:
        features = self.norm(self.trunk(torch.stack(images)))
        if self.noisy:
            features = nn.functional.dropout(features, 0.2) * (1 + 0.1 * random.random() + 0.1 * np.random.rand())  # noqa: NPY002
        present = torch.tensor([float(len(target["boxes"]) > 0) for target in targets])
        wanted = torch.stack([target["boxes"].sum(0) for target in targets])
        off = (self.boxes(features) - wanted).pow(2).mean(1) * present
        scores = self.classes(features).log_softmax(1)[:, 0].neg() * present
        self.watched = {"present": present.mean()}
        if self.poison is not None and any(target["image_id"] == self.poison for target in targets):
            scores = scores * torch.nan
        return {"loss_boxes": off.mean(), "loss_classes": scores.mean()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        heads = [*self.boxes.parameters(), *self.classes.parameters()]
        return [
            {"name": "detector", "params": [*self.trunk.parameters(), *self.norm.parameters()], "weight_decay": 0.01},
            {"name": "heads", "params": heads, "lr_scale": 2.0},
        ]


def sample(position: int, *, empty: bool = False) -> tuple[Tensor, dict[str, Any]]:
    """Image number ``position`` of an endless stream."""
    generator = torch.Generator().manual_seed(position)
    boxes = torch.rand(0 if empty else 1 + position % 3, 4, generator=generator)
    return torch.rand(3, 4, 4, generator=generator), {"boxes": boxes, "image_id": position}


def make_batches(config: FitConfig, *, empty_half: bool = False):
    """What ``fit`` wants; with ``empty_half`` the second half of every step's images has no boxes."""

    def batches(start_step: int, rank: int, world_size: int) -> Iterator[tuple[list[Tensor], list[dict[str, Any]]]]:
        torch.rand(1)  # a real loader draws its workers' seed when it starts
        share = config.batch_size // (config.accumulate * world_size)
        for step in range(start_step, config.steps):
            for micro in range(config.accumulate):
                first = (rank * config.accumulate + micro) * share
                places = range(first, first + share)
                half = config.batch_size // 2
                chosen = [sample(step * config.batch_size + p, empty=empty_half and p >= half) for p in places]
                yield [image for image, _ in chosen], [target for _, target in chosen]

    return batches


def evaluate(model: nn.Module) -> dict[str, float]:
    """A figure that goes up and down with the weights; draws random numbers, as an evaluation's loader does."""
    torch.rand(3)
    return {"AP50": float(sum(parameter.sum() for parameter in model.parameters())), "AP": 0.5}


def signals_itself(model: nn.Module, calls: int, signum: int) -> nn.Module:
    """``model``, which sends its process the signal ``signum`` in its ``calls``-th call."""
    seen: list[int] = []

    def count(*_: Any) -> None:
        seen.append(1)
        if len(seen) == calls:
            os.kill(os.getpid(), signum)

    model.register_forward_hook(count)
    return model


def train(
    folder: Path,
    config: FitConfig,
    *,
    model: nn.Module | None = None,
    noisy: bool = True,
    empty_half: bool = False,
    **options: Any,
) -> FitResult:
    """Fit the detector of a fixed seed, or ``model``; ``options`` are those of ``fit``."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = model or TinyDetector(noisy=noisy)
    return fit(model, make_batches(config, empty_half=empty_half), config, folder, **{"evaluate": evaluate, **options})


def train_as_rank(
    rank: int, world_size: int, port: int, folder: Path, config: FitConfig, options: dict[str, Any]
) -> None:
    """One of several gloo processes; a stopped one exits as the CLI does.

    ``poison``: the model of the rank that meets this image has a loss that is not finite. ``stop``: (rank, call) to be
    sent SIGTERM. An error goes into a file.
    """
    be_rank(rank, world_size, port)
    torch.manual_seed(1 + rank)  # processes that start from different weights must end with equal ones
    model: nn.Module = TinyDetector(noisy=options.pop("noisy", False), poison=options.pop("poison", None))
    if rank == 0:
        torch.manual_seed(1)
        model.load_state_dict(TinyDetector(noisy=model.noisy).state_dict())
    stop_rank, call = options.pop("stop", (None, 0))
    if rank == stop_rank:
        signals_itself(model, call, signal.SIGTERM)
    try:
        train(folder, config, model=model, **options)
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)
    except Exception as error:
        (folder / f"error-{rank}.txt").write_text(str(error))
        sys.exit(1)
    finally:
        torch.distributed.destroy_process_group()


def save_and_be_killed(folder: Path, moment: int) -> None:
    """Save step 2, and die before what the save asks of the disk as number ``moment`` (0 is the first)."""
    calls = itertools.count()

    def deadly(function: Callable[..., None]) -> Callable[..., None]:
        def call(*given: Any) -> None:
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            function(*given)

        return call

    os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
    save_resume(folder, {"step": 2})
