from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from torch import Tensor, nn

from boxcycle.models.backbone_cuts import ARCHITECTURES
from boxcycle.models.backbone_norm import NormedConv2d, fold_batch_norms
from boxcycle.models.backbone_weights import create_network


def _randomise_norms(network: nn.Module) -> None:
    """Statistics and affine parts away from 0 and 1, so that leaving one out shows."""
    generator = torch.Generator().manual_seed(3)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty_like(like).uniform_(low, high, generator=generator)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(uniform(module.weight, 0.3, 0.9))
                module.bias.copy_(uniform(module.bias, -0.3, 0.3))
                module.running_mean.copy_(uniform(module.running_mean, -0.3, 0.3))
                module.running_var.copy_(uniform(module.running_var, 0.5, 2.0))


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "resnet50", "mobilenet_v1", "inception_resnet_v2"])
def test_features_and_gradients_equal_those_of_timms_batch_norms(name: str) -> None:
    """The cut and folded network against timm's own forward pass in evaluation mode, in double precision."""
    torch.manual_seed(0)
    architecture = ARCHITECTURES[name]
    reference = create_network(name, architecture.timm_name, "none").double().eval()
    _randomise_norms(reference)
    network = copy.deepcopy(reference)
    architecture.cut(reference)  # changes strides and paddings in place, which both networks must have
    stages, body = architecture.cut(network)
    folded = nn.Sequential(*stages.values(), body)
    fold_batch_norms(folded, train_affine=True)
    assert sum(isinstance(module, NormedConv2d) for module in folded.modules()) > 10

    images = torch.randn(1, 3, 97, 70, dtype=torch.double)
    expected, found = reference.forward_features(images), folded(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    direction = torch.randn_like(expected)
    (expected * direction).sum().backward()
    (found * direction).sum().backward()
    _assert_equal_gradients(reference, folded, dimensions=4)  # convolutions
    _assert_equal_gradients(reference, folded, dimensions=1)  # their biases, and the norms' affine parts


def _assert_equal_gradients(reference: nn.Module, folded: nn.Module, dimensions: int) -> None:
    """Both have the same layers in the same order, so that parameters of one kind pair up by position."""
    left = [p.grad for p in reference.parameters() if p.grad is not None and p.ndim == dimensions]
    right = [p.grad for p in folded.parameters() if p.ndim == dimensions]
    assert len(left) > 10
    for expected, found in zip(left, right, strict=True):
        assert found is not None
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(7, 7), (8, 8), (7, 10), (5, 1)])
def test_same_padding_equals_zeros_placed_as_tensorflow_does(stride: int, kernel: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv = timm.layers.create_conv2d(2, 3, kernel, stride=stride, padding="same")
    normed = NormedConv2d(conv, nn.BatchNorm2d(3).eval())
    images = torch.randn(1, 2, *size)
    height, width = (math.ceil(s / stride) for s in size)
    totals = [max((out - 1) * stride + kernel - s, 0) for out, s in zip((height, width), size, strict=True)]
    padded = torch.zeros(1, 2, *(s + total for s, total in zip(size, totals, strict=True)))
    top, left = (total // 2 for total in totals)
    padded[:, :, top : top + size[0], left : left + size[1]] = images
    expected = nn.functional.conv2d(padded, conv.weight, stride=stride) / math.sqrt(1 + 1e-5)
    assert expected.shape[-2:] == (height, width)
    torch.testing.assert_close(normed(images), expected, rtol=1e-5, atol=1e-5)


def test_a_bias_of_the_convolution_is_normed_too() -> None:
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 3, 1, bias=True), nn.BatchNorm2d(3).eval()
    _randomise_norms(nn.Sequential(norm))
    images = torch.randn(2, 2, 4, 4)
    torch.testing.assert_close(NormedConv2d(conv, norm)(images), norm(conv(images)))


def test_a_norm_without_a_convolution_before_it_is_refused() -> None:
    with pytest.raises(ValueError, match="batch norm '0' of Sequential has no convolution before it"):
        fold_batch_norms(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)), train_affine=True)
