"""A trained detector from its run folder or its weights file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import nn

from boxcycle.engine.checkpoint import load_weights
from boxcycle.methods import METHODS
from boxcycle.methods.experiment import TrainConfig


@dataclass(frozen=True)
class Trained:
    """A detector with what is needed to use it: class names (label k at k - 1), the data's own ids, its configuration."""

    model: nn.Module
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    config: TrainConfig
    method: str
    file: Path


def load(path: str | Path, *, device: str = "auto") -> Trained:
    """Load the best weights of a run folder, or a weights file of one, in evaluation mode.

    ``device``: "auto" is a GPU if there is one. Raises ``ValueError`` for a file that is no weights of this package, or is damaged.
    """
    path = Path(path)
    file = path / "checkpoints" / "best.safetensors" if path.is_dir() else path
    tensors, metadata = load_weights(file)
    try:
        method, names = metadata["method"], tuple(json.loads(metadata["class_names"]))
        saved = METHODS[method].Config.model_validate(yaml.safe_load(metadata["config"]))
        category_ids = tuple(json.loads(metadata["category_ids"]))
    except (KeyError, ValueError) as error:
        raise ValueError(f"{file} does not say which detector it holds ({error}); expected weights that `boxcycle train` wrote") from None
    blank = saved.model_copy(update={"init": None, "detector": saved.detector.model_copy(update={"weights": "none"})})
    model = METHODS[method].build(blank, names)
    model.load_state_dict(tensors)
    where = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    return Trained(model.to(where).eval(), names, category_ids, saved, method, file)
