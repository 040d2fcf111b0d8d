"""Where the numbers of a run go: metrics.csv and TensorBoard always, and the trackers that the user names."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.tensorboard import SummaryWriter

from boxcycle.engine.checkpoint import write_text
from boxcycle.engine.config import FitConfig
from boxcycle.engine.metrics import MetricsFile

PACKAGES = ("boxcycle", "torch", "torchvision", "timm", "accelerate", "numpy", "safetensors", "faster-coco-eval")


class Records:
    """One sink for the numbers of a run; exists on the main process only.

    ``folder`` receives ``metrics.csv``, TensorBoard's event file and ``env.json``. Rows after ``last_step`` are
    dropped: a resumed run does those steps again.
    """

    def __init__(self, folder: Path, last_step: int, accelerator: Accelerator, config: FitConfig) -> None:
        self._metrics = MetricsFile(folder / "metrics.csv", last_step)
        self._board = SummaryWriter(str(folder), purge_step=last_step + 1 if last_step else None)
        self._trackers = accelerator
        settings = {name: value if isinstance(value, int | float | str) else str(value) for name, value in config}
        options = {"wandb": {"name": folder.name, "dir": str(folder)}, "mlflow": {"run_name": folder.name}}
        accelerator.init_trackers("boxcycle", config=settings, init_kwargs=options)
        write_environment(folder)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Record ``values`` of the state after ``step``."""
        self._metrics.add(step, values)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        if self._trackers.trackers:
            self._trackers.log(dict(values), step=step)

    def sync(self) -> None:
        """Bring everything recorded so far to the disk."""
        self._metrics.sync()
        self._board.flush()

    def close(self) -> None:
        """Finish all writers."""
        self._board.close()
        for tracker in self._trackers.trackers:
            tracker.finish()


def write_environment(folder: Path) -> None:
    """Write ``env.json``: versions, machine, threads and, inside a git repository, its commit."""
    write_text(folder / "env.json", json.dumps(environment(), indent=2) + "\n")


def environment() -> dict[str, Any]:
    """What a result depends on beside its configuration."""
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        },
        "git": _git_state(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_state() -> dict[str, Any] | None:
    """Commit of the working folder, and whether files differ from it; None outside a repository or without git."""
    try:
        commit, changes = (
            subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "changed": bool(changes)}
