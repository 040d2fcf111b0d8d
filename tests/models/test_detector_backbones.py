"""The paper's backbones in both detectors: shapes of the stages, what is frozen, one step of plain gradient descent."""

from __future__ import annotations

import pytest
import torch

from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import DETECTORS, build_detector
from boxcycle.models.two_stage import RegionConfig, TwoStageDetector
from boxcycle.types import Target

FROZEN = {  # first stages: paper, section 3.4
    "resnet101": ["stem", "layer1"],
    "mobilenet_v1": [],
    "inception_resnet_v2": [],
}
SLOW = {"resnet101", "inception_resnet_v2"}
BACKBONES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in FROZEN]
CHANNELS = {"resnet101": (1024, 2048), "mobilenet_v1": (512, 1024), "inception_resnet_v2": (1088, 1536)}

IMAGE = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
TARGET = Target(boxes=torch.tensor([[8.0, 5, 60, 50]]), labels=torch.tensor([2]), seed=0)


def build(name: str, backbone: str) -> TwoStageDetector:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=8)
    config = DetectorConfig(name=name, backbone=backbone, weights="none", proposals=10, regions=regions)
    return build_detector(3, config)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("name", DETECTORS)
def test_one_step_changes_all_but_what_is_frozen(name: str, backbone: str) -> None:
    detector = build(name, backbone).train()
    maps = detector.features(detector.batch([IMAGE]))
    trunk, head = CHANNELS[backbone]
    assert maps.shape == (1, trunk, 4, 6)
    region = detector.head.region
    vectors = region.body(maps) if name == "rfcn" else region.pooled(maps, [torch.tensor([[0.0, 0, 96, 64]])])
    assert vectors.shape == ((1, head, 4, 6) if name == "rfcn" else (1, head))
    assert region.classify(region.prepare(maps), [torch.tensor([[8.0, 5, 60, 50]])]).shape == (1, 4)

    before = {key: value.clone() for key, value in detector.state_dict().items()}
    losses = detector.losses([IMAGE], [TARGET])
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    trained = {key: p for key, p in detector.named_parameters() if p.requires_grad}
    assert [key for key, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    torch.optim.SGD(trained.values(), lr=1e-3).step()

    changed = {key for key, value in detector.state_dict().items() if not value.equal(before[key])}
    assert changed <= set(trained)
    stages = dict(detector.backbone.trunk.named_children())
    still = [stage for stage in stages if not any(key.startswith(f"backbone.trunk.{stage}.") for key in changed)]
    assert still == FROZEN[backbone]
    assert any(key.startswith("head.region.") for key in changed)
