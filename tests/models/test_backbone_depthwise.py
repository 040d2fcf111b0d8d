from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from boxcycle.models import backbone_depthwise
from boxcycle.models.backbone_depthwise import conv2d

PADDING = (2, 2)


def _case(size: tuple[int, int], kernel: tuple[int, int] = (5, 5)) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(3, 6, *size).to(memory_format=torch.channels_last)
    return inputs, torch.randn(6, 1, *kernel), torch.randn(6)


def _outputs_and_gradients(function: object, case: tuple[Tensor, ...], padding: tuple[int, int]) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in case]
    outputs = function(*leaves, (1, 1), padding, (1, 1), 6)  # type: ignore[operator]
    direction = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    return [outputs, *torch.autograd.grad((outputs * direction).sum(), leaves)]


@pytest.mark.parametrize("kernel", [(5, 5), (7, 7), (5, 7), (4, 4)])
@pytest.mark.parametrize("padding", [(2, 2), (0, 0), (3, 1)])
@pytest.mark.parametrize("size", [(7, 7), (9, 20), (13, 8)])
def test_gradients_equal_pytorchs(size: tuple[int, int], padding: tuple[int, int], kernel: tuple[int, int]) -> None:
    case = _case(size, kernel)
    expected = _outputs_and_gradients(F.conv2d, case, padding)
    for found, wanted in zip(_outputs_and_gradients(conv2d, case, padding), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (2, 2), (1, 3)])
def test_maps_smaller_than_the_kernel(size: tuple[int, int]) -> None:
    case = _case(size)
    expected = _outputs_and_gradients(F.conv2d, case, PADDING)
    for found, wanted in zip(_outputs_and_gradients(conv2d, case, PADDING), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_numerical_gradient() -> None:
    case = [tensor.double().requires_grad_() for tensor in _case((4, 4))]
    assert torch.autograd.gradcheck(lambda *leaves: conv2d(*leaves, (1, 1), PADDING, (1, 1), 6), case)


def test_no_regions() -> None:
    inputs, weight, bias = _case((4, 4))
    weight.requires_grad_()
    conv2d(inputs[:0], weight, bias, (1, 1), PADDING, (1, 1), 6).sum().backward()
    assert weight.grad is not None
    assert not weight.grad.any()


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        (True, {}),
        (False, {"stride": (2, 2)}),
        (False, {"dilation": (2, 2), "padding": (4, 4)}),
        (False, {"groups": 1, "weight": torch.randn(6, 6, 5, 5, requires_grad=True)}),
        (False, {"groups": 6, "weight": torch.randn(12, 1, 5, 5, requires_grad=True), "bias": torch.randn(12)}),
        (False, {"weight": torch.randn(6, 1, 3, 3, requires_grad=True)}),
        (False, {"weight": torch.randn(6, 1, 5, 5)}),
    ],
)
def test_blocks_are_used_for_large_depthwise_kernels_that_learn(
    expected: bool, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []
    blockwise = backbone_depthwise._BlockwiseDepthwise.apply
    monkeypatch.setattr(
        backbone_depthwise._BlockwiseDepthwise, "apply", lambda *leaves: (used.append(True), blockwise(*leaves))[1]
    )
    inputs, weight, bias = _case((9, 9))
    arguments: dict[str, object] = {"weight": weight.requires_grad_(), "bias": bias, "stride": (1, 1)}
    arguments |= {"padding": PADDING, "dilation": (1, 1), "groups": 6, **change}
    outputs = conv2d(inputs, **arguments)  # type: ignore[arg-type]
    assert bool(used) == expected
    assert torch.equal(outputs, F.conv2d(inputs, **arguments))  # type: ignore[arg-type]
    with torch.no_grad():
        conv2d(inputs, **arguments)  # type: ignore[arg-type]
    assert len(used) == expected


def test_autocast_keeps_its_own_precision() -> None:
    inputs, weight, bias = _case((9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = conv2d(inputs, weight.requires_grad_(), bias, (1, 1), PADDING, (1, 1), 6)
    assert outputs.dtype == torch.bfloat16
    outputs.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.isfinite().all()
