"""Fixtures of the whole suite."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left alone with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets ``bccd`` and ``coco-mini``; the test is skipped where it is absent."""
    folder = Path(os.environ.get("BOXCYCLE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real data sets in {folder} (or name their folder in BOXCYCLE_DATA)")
    return folder


@pytest.fixture
def quiet_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in an empty folder, on one thread."""
    import torch

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def overfit() -> Callable[..., bool]:
    """A function that trains a detector on a few images, and says whether it then knows them."""
    import torch
    from torch import nn

    def train(model: Any, images: Any, targets: Any, known: Any = objects_are_known, steps: int = 90) -> bool:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=7e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=7e-4, total_steps=steps)
        model.train()
        for step in range(steps):
            losses = model(images, [its | {"seed": 4 * step + number} for number, its in enumerate(targets)])
            optimizer.zero_grad()
            sum(model.loss_weights[name] * value for name, value in losses.items()).backward()
            nn.utils.clip_grad_norm_(parameters, 10.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            found = model.eval()(images)
        return all(known(its, detections) for its, detections in zip(targets, found, strict=True))

    return train


def objects_are_known(target: Any, detections: Any) -> bool:
    """The best detection of each object's class is on it, with a score above one half."""
    from torchvision.ops import box_iou

    for box, label in zip(target["boxes"], target["labels"], strict=True):
        its = detections["labels"] == label
        best = detections["boxes"][its][:1], detections["scores"][its][:1]
        if not len(best[0]) or box_iou(best[0], box[None]) <= 0.6 or best[1] <= 0.5:
            return False
    return True


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
