"""Statistics for the batch norms of networks that start from random weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from boxcycle.models.backbone_norm import NormedConv2d
from boxcycle.types import Target


def uncalibrated(model: nn.Module) -> list[NormedConv2d]:
    """The convolutions of ``model`` whose norms still have the mean 0 and the variance 1 that they were created with.

    ImageNet weights come with statistics, a trained network has learnt with its own. Of random weights there are none,
    and since fixed norms never estimate them, activations would grow or vanish from layer to layer, and nothing learn.
    """
    layers = (module for module in model.modules() if isinstance(module, NormedConv2d))
    return [layer for layer in layers if not layer.mean.any() and bool((layer.variance == 1).all())]


def calibrate(model: nn.Module, images: list[Tensor], targets: list[Target]) -> None:
    """Give each uncalibrated convolution the statistics of its own output in one pass of ``model`` over these images.

    A layer's statistics are there before its output goes on to the next one, so that afterwards the output of every
    layer has mean 0 and variance 1 in each channel, as far as these images go. A layer that runs more than once takes
    those of its first run, one that does not run stays as it is. ``model(images, targets)`` gives losses, which nobody
    needs here; weights, gradients and torch's random state stay as they are.
    """
    waiting = set(uncalibrated(model))

    def estimate(layer: NormedConv2d, inputs: tuple[Tensor]) -> None:
        if layer in waiting:
            waiting.remove(layer)
            layer.estimate(*inputs)

    hooks = [layer.register_forward_pre_hook(estimate) for layer in waiting]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.train()(images, targets)
    finally:
        for hook in hooks:
            hook.remove()
