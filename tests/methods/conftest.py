"""Fixtures of the methods' tests: a few generated scenes, small runs on them, and one finished run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.methods import METHODS
from boxcycle.methods.experiment import TrainConfig

MakeConfig = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set: 6 training images and 3 others of 64 pixels, 13 classes."""
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", SceneConfig(size=64), {"train": 6, "val": 3})


@pytest.fixture(scope="session")
def configure(scenes: Path) -> MakeConfig:
    """Makes the configuration of a small run; sections given are changes to the small ones."""

    def make(method: str = "supervised", **changes: Any) -> TrainConfig:
        small: dict[str, dict[str, Any]] = {
            "data": {"path": scenes, "resize": {"short": 64, "long": 64}},
            "detector": {"roi_size": 4, "proposals": 20, "regions": {"sampled": 8}},
            "fit": {"steps": 1, "batch_size": 2, "workers": 0, "device": "cpu"},
        }
        sections = {name: {**values, **changes.pop(name, {})} for name, values in small.items()}
        return METHODS[method].Config.model_validate({**sections, **changes})

    return make


@pytest.fixture(scope="session")
def finished(configure: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one step; tests leave it as it is."""
    torch.set_num_threads(1)
    return METHODS["supervised"].train(configure(run=tmp_path_factory.mktemp("runs") / "finished"))
