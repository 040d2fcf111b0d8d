"""Batch norms with fixed statistics, computed as part of the convolution before them."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from boxcycle.models.backbone_depthwise import Pair, conv2d


class NormedConv2d(nn.Module):
    """A convolution and the batch norm after it with fixed statistics, in training too, computed as one convolution.

    With fixed mean m and variance v the norm is an affine map of each channel, so that norm(conv(x)) is a convolution
    with the weight W * gamma / sqrt(v + eps) and the bias beta - m * gamma / sqrt(v + eps). Gradients reach W, gamma
    and beta through this product exactly, and the passes of a batch norm over the feature map are saved.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        self.gamma, self.beta, self.eps = norm.weight, norm.bias, norm.eps
        self.register_buffer("mean", norm.running_mean)
        self.register_buffer("variance", norm.running_var)
        self.same_padding = type(conv).__name__ == "Conv2dSame"  # timm's class for TensorFlow's padding

    def forward(self, inputs: Tensor) -> Tensor:
        scale = self.gamma * (self.variance + self.eps).rsqrt()
        return self._convolve(inputs, scale, self.beta - self.mean * scale)

    @torch.no_grad()
    def estimate(self, inputs: Tensor) -> None:
        """Fix the mean and variance of the convolution's output on these inputs as the statistics of the norm.

        A channel that says the same everywhere keeps the variance 1: there is nothing to bring to a scale.
        """
        outputs = self._convolve(inputs, torch.ones_like(self.mean), torch.zeros_like(self.mean))
        if outputs.numel():
            variance, mean = torch.var_mean(outputs, (0, 2, 3), correction=0)
            self.mean.copy_(mean)
            self.variance.copy_(variance.where(variance > self.eps, 1.0))

    def _convolve(self, inputs: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        """The convolution times a scale, plus a bias, each for every channel."""
        conv = self.conv
        if conv.bias is not None:
            bias = bias + conv.bias * scale
        weight, padding = conv.weight * scale[:, None, None, None], cast(Pair, conv.padding)
        if self.same_padding:
            weight, padding = _same_padding(weight, inputs.shape[-2:], conv.stride, conv.dilation)
        return conv2d(inputs, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def _same_padding(weight: Tensor, size: torch.Size, stride: Pair, dilation: Pair) -> tuple[Tensor, Pair]:
    """A kernel and an equal padding of both sides that together pad maps of ``size`` as TensorFlow's SAME does.

    SAME gives ceil(size / stride) outputs and puts an odd cell of padding at the bottom and right. PyTorch pads sides
    equally, so the kernel gets a row or column of zeros at the top or left instead: copying it is cheaper than a map.
    An exported graph keeps the padding of the size it was traced at, which is right for all sizes that are as even
    (multiples of 32); its exporter must know the kernel's shape, hence ``cat``, not ``pad``.
    """
    height, width = (
        max((math.ceil(cells / step) - 1) * step + (kernel - 1) * hole + 1 - cells, 0)
        for cells, step, kernel, hole in zip(map(int, size), stride, weight.shape[-2:], dilation, strict=True)
    )
    if height % 2:
        weight = torch.cat((torch.zeros_like(weight[:, :, :1]), weight), 2)
    if width % 2:
        weight = torch.cat((torch.zeros_like(weight[:, :, :, :1]), weight), 3)
    return weight, ((height + 1) // 2, (width + 1) // 2)


def fold_batch_norms(network: nn.Module, *, train_affine: bool) -> None:
    """Replace, in place, each convolution that a batch norm follows by a ``NormedConv2d``, and remove the norm.

    A norm belongs to the convolution before it among its siblings, since timm's networks define their layers in the
    order in which they run; of timm's norm with an activation, the activation stays. ``train_affine`` says whether the
    norms' weights and biases are trained. Raises ``ValueError`` if a norm has no convolution before it: it would be
    left to follow the statistics of its batch.
    """
    for parent in list(network.modules()):
        conv_name, conv = "", None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                conv_name, conv = name, child
            elif isinstance(child, nn.BatchNorm2d):
                if conv is None or conv.out_channels != child.num_features:
                    raise ValueError(f"batch norm '{name}' of {type(parent).__name__} has no convolution before it")
                child.requires_grad_(train_affine)
                setattr(parent, conv_name, NormedConv2d(conv, child))
                setattr(parent, name, getattr(child, "act", nn.Identity()))
                conv = None
