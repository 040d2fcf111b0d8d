"""Devices, processes and precision: Hugging Face accelerate, with its silent fallbacks turned into errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, set_seed

from boxcycle.engine.config import FitConfig

PATIENCE = timedelta(hours=12)  # how long processes wait for one that evaluates; NCCL's own limit is ten minutes


def make_accelerator(config: FitConfig, folder: Path) -> Accelerator:
    """One CPU or GPU, or as many processes as ``torchrun`` or ``accelerate launch`` started; seeds each process apart.

    Raises ``ValueError`` where accelerate would quietly do something else (a device or tracker that is not there, fp16
    on a CPU), and for images that cannot be shared out equally.
    """
    if missing := [name for name in config.trackers if name not in map(str, get_available_trackers())]:
        raise ValueError(f"trackers names {missing[0]!r}, which is not installed: pip install {missing[0]}")
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may fit on a GPU in bf16, then on its CPU
    accelerator = Accelerator(
        # left to itself, torchrun on a machine without a GPU starts processes that never meet
        cpu=config.device == "cpu" or not _has_accelerator(),
        mixed_precision=config.precision,
        # the loop accumulates, whatever the environment says
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
        log_with=list(config.trackers) or None,
        project_dir=str(folder),
    )
    _check(config, accelerator)
    set_seed(config.seed, device_specific=True)
    return accelerator


def largest(accelerator: Accelerator, number: int) -> int:
    """The largest of the processes' numbers: what one of them found is known to all."""
    if accelerator.num_processes == 1:
        return number
    shared = torch.tensor(number, device=accelerator.device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)


@contextmanager
def torch_settings(config: FitConfig) -> Iterator[None]:
    """``threads`` and ``deterministic`` hold inside the block; torch's settings before it come back after it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once, at its first call
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _check(config: FitConfig, accelerator: Accelerator) -> None:
    found = accelerator.device.type
    if config.device not in ("auto", found):
        raise ValueError(f"device is {config.device!r}, but torch finds only {found!r} here")
    if config.precision == "fp16" and found == "cpu":
        raise ValueError("precision 'fp16' needs a GPU; on a CPU take 'bf16' or 'no'")
    parts = config.accumulate * accelerator.num_processes
    if config.batch_size % parts:
        raise ValueError(
            f"batch_size ({config.batch_size}) must be a multiple of accumulate x processes "
            f"({config.accumulate} x {accelerator.num_processes}), so that every image counts the same"
        )
