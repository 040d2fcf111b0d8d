"""MTL-SSL on R-FCN, whose region head runs once over the whole map; what all detectors share: test_detector.py."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.config import DetectorConfig
from boxcycle.models.rfcn import RFCN
from boxcycle.models.two_stage import RegionConfig
from small_images import IMAGES, TARGETS, rectangles

from .forms import build


def test_each_head_has_its_own_last_stage_reduction_and_score_maps(tiny: str) -> None:
    model = build(tiny, "rfcn")
    names = [name for name, _ in model.detector.head.region.named_parameters()]
    assert {name.split(".")[0] for name in names} == {"body", "reduction", "scores"}
    for head in (model.window_head, model.closeness_head):
        for one, other in zip(model.detector.head.region.parameters(), head.parameters(), strict=True):
            assert one.equal(other)
            assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize("training", [True, False])
def test_each_last_stage_runs_once(tiny: str, training: bool) -> None:
    model, runs = build(tiny, "rfcn"), Counter[str]()
    heads = {"detector": model.detector.head.region, "windows": model.window_head, "closeness": model.closeness_head}
    for name, head in heads.items():
        head.body.register_forward_hook(lambda *_, name=name: runs.update([name]))
    if training:
        model.losses(IMAGES, TARGETS)
    else:
        model.eval().predict(IMAGES)
    assert runs == dict.fromkeys(heads, 1)


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [False, True], ids=["plain", "tasks"])
def test_it_overfits_four_images(overfit: Callable[..., bool], tasks: bool) -> None:
    """From ImageNet weights: random ones take ten times as many steps."""
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, positive_fraction=0.5)
    detector = RFCN(3, DetectorConfig(name="rfcn", anchor_sizes=(20, 36), proposals=50, regions=regions))
    model = MultiTaskDetector(detector, TaskConfig(windows=4, refined=2)) if tasks else detector
    assert overfit(model, *rectangles(first_width=80))
