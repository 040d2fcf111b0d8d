"""A faster weight gradient for the depthwise 5 x 5 convolutions of EfficientNets on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input, conv2d_weight

Pair = tuple[int, ...]  # of the height and the width

# oneDNN, which computes PyTorch's convolutions on a CPU, has a depthwise weight gradient up to this kernel size only.
# Above it takes its general one, which costs 20 times as much on the maps of a region.
LARGEST_FAST_KERNEL = 3


def conv2d(
    inputs: Tensor, weight: Tensor, bias: Tensor, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Tensor:
    """``torch.nn.functional.conv2d``, with the weight gradient in blocks where that is faster."""
    if _gradient_in_blocks_is_faster(inputs, weight, stride, dilation, groups):
        result: Tensor = _BlockwiseDepthwise.apply(inputs, weight, bias, padding)
        return result
    return F.conv2d(inputs, weight, bias, stride, padding, dilation, groups)


def _gradient_in_blocks_is_faster(inputs: Tensor, weight: Tensor, stride: Pair, dilation: Pair, groups: int) -> bool:
    """Strided ones are left out: their blocks need larger copies of the inputs than the gradient saves."""
    return (
        min(weight.shape[-2:]) > LARGEST_FAST_KERNEL
        and groups == len(weight) == inputs.shape[1]
        and stride == dilation == (1, 1)
        and inputs.device.type == "cpu"
        and weight.requires_grad
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
    )


class _BlockwiseDepthwise(torch.autograd.Function):
    """A depthwise convolution with stride 1 whose weight gradient is put together from blocks of at most 3 x 3.

    Entry (a, b) of the gradient of a kernel is the sum of output gradient times input, shifted by (a, b). A block of
    entries is therefore the whole gradient of a smaller kernel on inputs that are shifted by the block's first entry.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, padding: Pair) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.padding = padding
        return F.conv2d(inputs, weight, bias, 1, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:  # type: ignore[override]
        inputs, weight = ctx.saved_tensors
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = conv2d_input(inputs.shape, weight, gradient, 1, ctx.padding, 1, len(weight))
        return to_inputs, _weight_gradient(inputs, weight, gradient, ctx.padding), gradient.sum((0, 2, 3)), None


def _weight_gradient(inputs: Tensor, weight: Tensor, gradient: Tensor, padding: Pair) -> Tensor:
    """Shapes: inputs [R, C, H, W], weight [C, 1, h, w], output gradient [R, C, H', W']; returns [C, 1, h, w]."""
    channels, _, height, width = weight.shape
    (rows, columns), (top, left) = gradient.shape[2:], padding
    result = torch.empty_like(weight)
    for a in range(0, height, LARGEST_FAST_KERNEL):
        for b in range(0, width, LARGEST_FAST_KERNEL):
            block = result[:, :, a : a + LARGEST_FAST_KERNEL, b : b + LARGEST_FAST_KERNEL]
            # What the block sees: rows a - top .. a - top + rows + block height - 1 of the inputs; F.pad also crops.
            below = a - top + rows + block.shape[2] - 1 - inputs.shape[2]
            right = b - left + columns + block.shape[3] - 1 - inputs.shape[3]
            seen = F.pad(inputs, (left - b, right, top - a, below))
            block.copy_(conv2d_weight(seen, block.shape, gradient, 1, 0, 1, channels))
    return result
