"""Fixtures of the whole suite."""

import os
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets ``bccd`` and ``coco-mini``; the test is skipped where it is absent."""
    folder = Path(os.environ.get("BOXCYCLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets in {folder} (or name their folder in BOXCYCLE_DATA)")
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backbone of 0.5 million random weights, for the time of a test."""
    from collections import OrderedDict

    from torch import nn

    from boxcycle.models import backbone_cuts

    def cut(network: Any) -> tuple[OrderedDict[str, nn.Module], nn.Module]:
        stem = nn.Sequential(*network.conv1, network.bn1, network.act1, network.maxpool)
        stages = OrderedDict(stem=stem, layer1=network.layer1, layer2=network.layer2, layer3=network.layer3)
        return stages, network.layer4

    architecture = backbone_cuts.Architecture("test_resnet.r160_in1k", cut, 192, 96, frozen=0, train_affine=True)
    monkeypatch.setitem(backbone_cuts.ARCHITECTURES, "tiny", architecture)
    return "tiny"
