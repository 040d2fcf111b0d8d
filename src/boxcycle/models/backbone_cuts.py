"""Where each network is cut into the stages of a trunk (stride 16) and the body of a head, and how it is trained."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

Stages = OrderedDict[str, nn.Module]


@dataclass(frozen=True)
class Architecture:
    """A network of timm and how a detector uses it.

    ``cut`` splits timm's network into named trunk stages and the head's body. ``frozen`` stages, counted from the
    image, and, unless ``train_affine``, all weights and biases of batch norms keep their ImageNet values.
    """

    timm_name: str
    cut: Callable[[Any], tuple[Stages, nn.Module]]
    trunk_channels: int
    head_channels: int
    frozen: int
    train_affine: bool


def _cut_efficientnet(network: Any) -> tuple[Stages, nn.Module]:
    blocks = list(network.blocks)
    stages: Stages = OrderedDict(stem=nn.Sequential(OrderedDict(conv=network.conv_stem, bn=network.bn1)))
    stages.update((f"stage{i}", block) for i, block in enumerate(blocks[:5], start=1))
    body = OrderedDict(stage6=blocks[5], stage7=blocks[6], conv=network.conv_head, bn=network.bn2)
    return stages, nn.Sequential(body)


def _cut_resnet(network: Any) -> tuple[Stages, nn.Module]:
    stem = OrderedDict(conv=network.conv1, bn=network.bn1, act=network.act1, maxpool=network.maxpool)
    stages = OrderedDict(stem=nn.Sequential(stem), layer1=network.layer1, layer2=network.layer2, layer3=network.layer3)
    for module in network.layer4.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)  # 7 x 7 regions stay 7 x 7, without dilation (MTL-SSL's released head)
    return stages, network.layer4


ARCHITECTURES = {
    # Stem and first stage hold general edge and colour filters, and freezing them saves their backward pass at the
    # largest maps. The affine parts are trained: with fixed statistics they are how a network without other biases
    # shifts its ReLU6 ranges.
    "efficientnet_lite0": Architecture("tf_efficientnet_lite0.in1k", _cut_efficientnet, 112, 1280, 2, True),
    # MTL-SSL's release: conv1 and conv2_x frozen, batch norms neither estimated nor trained.
    "resnet18": Architecture("resnet18.tv_in1k", _cut_resnet, 256, 512, 2, False),
    "resnet50": Architecture("resnet50.tv_in1k", _cut_resnet, 1024, 2048, 2, False),
    "resnet101": Architecture("resnet101.tv_in1k", _cut_resnet, 1024, 2048, 2, False),
}
