"""The folder of a run: a new one, one to go on with, or one to throw away; and which process keeps it."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from boxcycle.config import load_config

if TYPE_CHECKING:
    from boxcycle.methods.experiment import RunConfig

CONFIG = "config.yaml"
CHECKPOINTS = "checkpoints"
# what may differ between a run and its continuation: the engine itself compares `fit`, the rest changes no result
FREE: dict[str, Any] = {
    "fit": True,
    "run": True,
    "resume": True,
    "overwrite": True,
    "data": {"cache"},
    "proposals": {"cache", "workers"},
}


def is_main_process() -> bool:
    """Whether this process keeps the folder; `torchrun` and `accelerate launch` number theirs in RANK."""
    return os.environ.get("RANK", "0") == "0"


def weights_file(path: Path) -> Path:
    """``path`` itself, or the weights of the run in that folder: the best, or the last where no evaluation chose."""
    if not path.is_dir():
        return path
    best = path / CHECKPOINTS / "best.safetensors"
    last = best.with_name("last.safetensors")
    return last if last.is_file() and not best.is_file() else best


def check_folder(config: RunConfig) -> None:
    """Raise ``ValueError`` if the run may not use the folder that it names; nothing is changed yet.

    A folder that is not empty must hold a run, which is gone on with under equal settings, or may be thrown away.
    """
    folder = config.run
    if folder is None:
        if config.resume:
            raise ValueError("resume=true needs run=FOLDER, the run to go on with")
        return
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (config.resume or config.overwrite):
        raise ValueError(f"{folder} is not empty; resume=true goes on with its run, overwrite=true throws it away")
    if not any((folder / name).exists() for name in (CONFIG, CHECKPOINTS)):
        wish = "gone on with" if config.resume else "thrown away"
        raise ValueError(f"{folder} has neither {CONFIG} nor {CHECKPOINTS}, so it holds no run that could be {wish}")
    if config.resume:
        _check_same_settings(config, folder / CONFIG)
    else:
        _check_nothing_else_is_lost(config, folder.resolve())


def open_folder(method: str, config: RunConfig) -> Path:
    """Make the folder, empty unless its run is resumed; without a name it is ``runs/<method>/<data>-<number>``."""
    check_folder(config)
    if config.run is None:
        return _make_next(Path("runs") / method, config.data.path.resolve().stem)
    if config.overwrite and config.run.is_dir():
        shutil.rmtree(config.run)
    config.run.mkdir(parents=True, exist_ok=True)
    return config.run


def _make_next(parent: Path, name: str) -> Path:
    """Make the first folder ``name-<number>`` that is not there; of two runs that try at once, one gets the next."""
    for number in itertools.count(1):
        folder = parent / f"{name}-{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


def _check_same_settings(config: RunConfig, file: Path) -> None:
    if not file.is_file():
        return
    before = dict(_leaves(load_config(type(config), file=file).model_dump(exclude=FREE)))
    now = dict(_leaves(config.model_dump(exclude=FREE)))
    changes = [f"{key} was {before[key]} and is {now[key]}" for key in now if now[key] != before[key]]
    if changes:
        raise ValueError(f"{file.parent} was started with other settings: {', '.join(changes)}")


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _check_nothing_else_is_lost(config: RunConfig, folder: Path) -> None:
    """Refuse to throw away a folder in which somebody also works, or keeps what this run is to start from."""
    needed: dict[str, Path | None] = {"the working directory": Path(), "data": config.data.path}
    needed |= {"data.budget": config.data.budget, "init": config.init}
    for name, path in needed.items():
        if path is not None and path.resolve().is_relative_to(folder):
            raise ValueError(f"overwrite=true would throw away {folder}, and {name} with it; choose another folder")
