"""ImageNet networks cut in two: a trunk that sees the image once, and a head that sees every region of interest."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from boxcycle.models.backbone_cuts import ARCHITECTURES, Architecture
from boxcycle.models.backbone_dilation import dilate
from boxcycle.models.backbone_norm import fold_batch_norms
from boxcycle.models.backbone_weights import create_network, network_statistics


class Trunk(nn.Sequential):
    """The first stages, in order: normalised images [B, 3, H, W] -> features [B, C, ceil(H/stride), ceil(W/stride)].

    Works in the channels-last memory layout, in which the convolutions are faster on a CPU
    (``benchmarks/backbone_step.py``).
    """

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = super().forward(images.contiguous(memory_format=torch.channels_last))
        return features


class RoIHead(nn.Module):
    """The last stage ("conv5"): region features [R, C, 7, 7] -> one vector for each region [R, head_channels].

    ``copy.deepcopy`` of it is an independent head that starts from the same weights. ``body`` is the convolutional
    part, for detectors that run it over the whole map.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, regions: Tensor) -> Tensor:
        maps: Tensor = self.body(regions.contiguous(memory_format=torch.channels_last))
        return maps.mean((2, 3))


class Backbone(nn.Module):
    """A trunk and a head cut from one network that was trained on ImageNet.

    ``trunk`` maps normalised images [B, 3, H, W] to features [B, trunk_channels, ceil(H/stride), ceil(W/stride)], where
    ``stride`` is 16, or 8 of a dilated trunk; ``head`` maps region features [R, trunk_channels, 7, 7] to vectors
    [R, head_channels]. ``mean`` and ``std`` are those that the network was trained with, for RGB in [0, 1]. The
    statistics of the batch norms are fixed, in training mode too, and also in copies of the head: detectors see too few
    images a step to estimate them.
    """

    def __init__(self, trunk: Trunk, head: RoIHead, architecture: Architecture, stride: int = 16) -> None:
        super().__init__()
        self.trunk, self.head, self.stride = trunk, head, stride
        self.trunk_channels, self.head_channels = architecture.trunk_channels, architecture.head_channels
        self.mean, self.std = network_statistics(architecture.timm_name)


def build_backbone(
    name: str = "efficientnet_lite0",
    *,
    weights: str | Path = "default",
    frozen: int | None = None,
    stride: Literal[8, 16] = 16,
) -> Backbone:
    """Build a backbone by name (a key of ``ARCHITECTURES``).

    ``weights``: "default" (the ImageNet weights that come with the installation; efficientnet_lite0 has them), "none"
    (random; to be trained, their norms need :func:`boxcycle.models.backbone_calibration.calibrate`), "hub" (timm's
    download), or a .safetensors, .pth or .pt file. ``frozen``: how many stages of the trunk, counted from the image,
    keep their weights; None is the network's own number. ``stride``: 8 leaves out the trunk's last step and dilates
    what follows.

    Raises ``ValueError`` for an unknown name, an impossible ``frozen`` or ``stride``, or weights that are absent or do
    not fit.
    """
    if name not in ARCHITECTURES:
        nearest = difflib.get_close_matches(name, ARCHITECTURES, n=1)
        hint = f"did you mean '{nearest[0]}'?" if nearest else f"there are {', '.join(ARCHITECTURES)}"
        raise ValueError(f"no backbone '{name}'; {hint}")
    architecture = ARCHITECTURES[name]
    if stride == 8 and architecture.branches:
        raise ValueError(f"{name} has stride 16 alone: its last step is in several branches at once")
    stages, body = architecture.cut(create_network(name, architecture.timm_name, weights))
    backbone = Backbone(Trunk(stages), RoIHead(body), architecture, stride)
    if stride == 8:
        dilate(backbone.trunk)
    fold_batch_norms(backbone, train_affine=architecture.train_affine)
    _freeze(backbone.trunk, architecture.frozen if frozen is None else frozen, name)
    return backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _freeze(trunk: Trunk, count: int, name: str) -> None:
    stages = list(trunk.children())
    if not 0 <= count <= len(stages):
        raise ValueError(f"frozen must be in 0..{len(stages)}, the stages of the trunk of {name}; got {count}")
    for stage in stages[:count]:
        stage.requires_grad_(False)
