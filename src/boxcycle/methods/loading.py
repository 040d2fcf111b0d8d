"""A trained detector from its run folder or its weights file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from boxcycle import yaml12
from boxcycle.engine.checkpoint import load_weights
from boxcycle.methods import METHODS
from boxcycle.methods.experiment import RunConfig
from boxcycle.methods.run_folder import weights_file
from boxcycle.methods.weights import load_state


@dataclass(frozen=True)
class Trained:
    """A detector with what is needed to use it.

    ``class_names``: label k at position k - 1; ``category_ids``: the data's own, in the same order.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    config: RunConfig
    method: str
    file: Path


def load(path: str | Path, *, device: str = "auto") -> Trained:
    """Load the best weights of a run folder, or a weights file of one, in evaluation mode.

    ``device``: "auto" is a GPU if there is one. Raises ``ValueError`` for a file that is no weights of this package, or
    is damaged, and for a device that is not there.
    """
    where = _find_device(device)
    file = weights_file(Path(path))
    metadata = load_weights(file).metadata
    try:
        method, names = metadata["method"], tuple(json.loads(metadata["class_names"]))
        saved = METHODS[method].Config.model_validate(yaml12.load(metadata["config"]))
        category_ids = tuple(json.loads(metadata["category_ids"]))
    except (KeyError, TypeError, ValueError, yaml12.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file} does not say which detector it holds ({reason}); expected weights that `boxcycle train` wrote"
        ) from None
    blank = saved.model_copy(update={"init": None, "detector": saved.detector.model_copy(update={"weights": "none"})})
    model = METHODS[method].build(blank, names)
    load_state(model, file)
    return Trained(model.to(where).eval(), names, category_ids, saved, method, file)


def _find_device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an unknown name, or a device that this torch or machine lacks
        raise ValueError(f"device '{name}' cannot be used: {str(error).splitlines()[0]}") from None
