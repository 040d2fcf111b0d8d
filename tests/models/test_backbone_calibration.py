"""Statistics of fixed norms, from one pass of a model over a few images."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from boxcycle.models.backbone_calibration import calibrate, uncalibrated
from boxcycle.models.backbone_norm import NormedConv2d
from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import DETECTORS, build_detector
from boxcycle.models.two_stage import RegionConfig, TwoStageDetector
from boxcycle.types import Target

IMAGES = [torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(k)) for k in range(2)]
TARGETS = [Target(boxes=torch.tensor([[8.0, 5, 60, 50]]), labels=torch.tensor([2]), seed=k) for k in range(2)]


def doubling(*, bias: float | None = None) -> NormedConv2d:
    """A fresh layer whose convolution doubles one channel, and adds a bias."""
    layer = NormedConv2d(nn.Conv2d(1, 1, 1, bias=bias is not None), nn.BatchNorm2d(1, eps=0.0))
    nn.init.constant_(layer.conv.weight, 2)
    if bias is not None and layer.conv.bias is not None:
        nn.init.constant_(layer.conv.bias, bias)
    return layer


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


class Losses(nn.Module):
    """What `calibrate` is given: calls its layers in turn and returns losses that depend on targets and on chance."""

    def __init__(self, *layers: NormedConv2d) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        maps = torch.stack(images)
        for layer in self.layers:
            maps = layer(maps)
        return {"loss": maps.sum() + torch.rand(())}


def small_detector(name: str, backbone: str = "resnet18", weights: str = "none") -> TwoStageDetector:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=8)
    config = DetectorConfig(name=name, backbone=backbone, weights=weights, proposals=10, regions=regions)
    return build_detector(3, config)


def test_statistics_of_a_layer_by_hand() -> None:
    layer = doubling(bias=1.0)
    layer.estimate(row(1, 3, 5, 7))  # the convolution gives 3, 7, 11, 15: mean 9, variance (36 + 4 + 4 + 36) / 4
    assert (layer.mean.item(), layer.variance.item()) == (9, 20)
    torch.testing.assert_close(layer(row(1, 3, 5, 7)), row(-6, -2, 2, 6) / 20**0.5)


def test_gamma_and_beta_come_after_the_statistics() -> None:
    layer = doubling()
    nn.init.constant_(layer.gamma, 3)
    nn.init.constant_(layer.beta, 4)
    layer.estimate(row(1, 3))  # the convolution gives 2 and 6
    assert (layer.mean.item(), layer.variance.item()) == (4, 4)
    torch.testing.assert_close(layer(row(1, 3)), row(1, 7))


def test_a_channel_that_says_the_same_everywhere_keeps_its_variance() -> None:
    layer = doubling()
    layer.estimate(row(5, 5, 5))
    assert (layer.mean.item(), layer.variance.item()) == (10, 1)


def test_no_region_at_all_leaves_a_layer_as_it_is() -> None:
    layer = doubling()
    layer.estimate(torch.empty(0, 1, 2, 2))
    assert uncalibrated(layer) == [layer]


def test_later_layers_see_what_calibrated_ones_give() -> None:
    model = Losses(doubling(), doubling())
    calibrate(model, [row(1, 3)[0]], [])
    first, second = model.layers
    assert (first.mean.item(), first.variance.item()) == (4, 4)  # of 2 and 6
    assert (second.mean.item(), second.variance.item()) == (0, 4)  # of -2 and 2, not of 4 and 12


def test_a_layer_takes_what_its_first_run_shows() -> None:
    layer = doubling()
    calibrate(Losses(layer, layer), [row(1, 3)[0]], [])
    assert (layer.mean.item(), layer.variance.item()) == (4, 4)


def test_only_statistics_change_and_only_once() -> None:
    model = Losses(doubling())
    before = copy.deepcopy(dict(model.named_parameters()))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    calibrate(model, [row(1, 3)[0]], [])
    assert torch.get_rng_state().equal(state)
    assert all(value.equal(before[name]) and value.grad is None for name, value in model.named_parameters())
    assert uncalibrated(model) == []
    calibrate(model, [row(100, 300)[0]], [])
    model([row(100, 300)[0]], [])  # nothing is left that would estimate
    assert model.layers[0].mean.item() == 4


def test_a_failed_pass_leaves_no_hook() -> None:
    model = Losses(doubling())
    with pytest.raises(RuntimeError, match="channels"):
        calibrate(model, [torch.ones(2, 3, 3)], [])
    assert not model.layers[0]._forward_pre_hooks


@pytest.mark.parametrize("name", DETECTORS)
def test_every_layer_of_a_detector_gives_mean_0_and_variance_1(name: str) -> None:
    """In both stages, on the images that calibrated it."""
    detector = small_detector(name)
    assert len(uncalibrated(detector)) == 20  # ResNet-18: 17 convolutions and 3 shortcuts
    calibrate(detector, IMAGES, TARGETS)
    assert uncalibrated(detector) == []
    seen: dict[NormedConv2d, Tensor] = {}

    def keep(layer: NormedConv2d, inputs: tuple[Tensor], outputs: Tensor) -> None:
        seen[layer] = outputs.clone()  # activations work in place

    for module in detector.modules():
        if isinstance(module, NormedConv2d):
            module.register_forward_hook(keep)
    with torch.no_grad():
        detector(IMAGES, TARGETS)
    assert len(seen) == 20
    for outputs in seen.values():
        variance, mean = torch.var_mean(outputs, (0, 2, 3), correction=0)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(variance, torch.ones_like(variance), atol=1e-2, rtol=0)


def test_the_same_images_give_the_same_statistics() -> None:
    one, other = small_detector("faster_rcnn"), small_detector("faster_rcnn")
    calibrate(one, IMAGES, TARGETS)
    torch.rand(7)
    calibrate(other, IMAGES, TARGETS)
    assert all(value.equal(other.state_dict()[name]) for name, value in one.state_dict().items())


def test_imagenet_weights_have_their_statistics() -> None:
    assert uncalibrated(small_detector("faster_rcnn", "efficientnet_lite0", "default")) == []
