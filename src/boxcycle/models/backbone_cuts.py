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
    image, and, unless ``train_affine``, all weights and biases of batch norms keep their ImageNet values. ``dense``
    makes of that body the network's own stage of stride 32, for detectors that run it over the whole map; None where
    the network has no such stage. ``branches``: the trunk's last step is taken in several branches at once.
    """

    timm_name: str
    cut: Callable[[Any], tuple[Stages, nn.Module]]
    trunk_channels: int
    head_channels: int
    frozen: int
    train_affine: bool
    dense: Callable[[Any], nn.Module] | None = None
    branches: bool = False


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


def _dense_efficientnet(body: Any) -> nn.Module:
    return nn.Sequential(OrderedDict(stage6=body.stage6, stage7=body.stage7))  # what follows widens for the classifier


def _dense_resnet(body: Any) -> nn.Module:
    block = body[0]
    for conv in (block.conv2 if hasattr(block, "conv3") else block.conv1, block.downsample[0]):
        getattr(conv, "conv", conv).stride = (2, 2)  # as it was before the cut
    return body


def _cut_mobilenet(network: Any) -> tuple[Stages, nn.Module]:
    blocks = list(network.blocks)
    stages: Stages = OrderedDict(stem=nn.Sequential(OrderedDict(conv=network.conv_stem, bn=network.bn1)))
    stages.update((f"stage{i}", block) for i, block in enumerate(blocks[:4], start=1))  # up to Conv2d_11
    return stages, blocks[4]  # Conv2d_12, which takes 7 x 7 to 4 x 4, and Conv2d_13


def _cut_inception(network: Any) -> tuple[Stages, nn.Module]:
    parts = dict(network.named_children())

    def stage(*names: str) -> nn.Module:
        return nn.Sequential(OrderedDict((name, parts[name]) for name in names))

    stages: Stages = OrderedDict(
        stem=stage("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a"),
        stage1=stage("maxpool_5a", "mixed_5b", "repeat"),
        stage2=stage("mixed_6a", "repeat_1"),
    )
    # The classifier drops border cells (VALID padding), so that its stride is not the same all over; a detector pads.
    for module in (module for part in stages.values() for module in part.modules()):
        if isinstance(module, nn.Conv2d):
            module.padding = (module.kernel_size[0] // 2, module.kernel_size[1] // 2)
        elif isinstance(module, nn.MaxPool2d):
            module.padding = 1
    return stages, stage("mixed_7a", "repeat_2", "block8", "conv2d_7b")  # Mixed_7a takes 7 x 7 to 3 x 3


def _cut_vgg(network: Any) -> tuple[Stages, nn.Module]:
    layers: list[list[nn.Module]] = [[]]
    for layer in list(network.features)[:-1]:  # without the last pooling, which would make the stride 32
        if isinstance(layer, nn.MaxPool2d):
            layer.ceil_mode = True  # as Caffe's, and all other networks here: no border is dropped
            layers.append([])
        layers[-1].append(layer)
    stages: Stages = OrderedDict((f"conv{i}", nn.Sequential(*stage)) for i, stage in enumerate(layers, start=1))
    return stages, network.pre_logits  # fc6 and fc7


ARCHITECTURES = {
    # Frozen up to stride 4, as the ResNets of MTL-SSL's release are: these maps are the largest, and leaving out their
    # backward pass makes the trunk's step 1.4 times as fast on a CPU. The affine parts of the norms are trained, as in
    # the release's networks that are not ResNets: nothing else in a depthwise block shifts its range before a ReLU6.
    "efficientnet_lite0": Architecture(
        "tf_efficientnet_lite0.in1k", _cut_efficientnet, 112, 1280, 3, True, _dense_efficientnet
    ),
    # MTL-SSL's release: conv1 and conv2_x frozen, batch norms neither estimated nor trained.
    "resnet18": Architecture("resnet18.tv_in1k", _cut_resnet, 256, 512, 2, False, _dense_resnet),
    "resnet50": Architecture("resnet50.tv_in1k", _cut_resnet, 1024, 2048, 2, False, _dense_resnet),
    "resnet101": Architecture("resnet101.tv_in1k", _cut_resnet, 1024, 2048, 2, False, _dense_resnet),
    # MTL-SSL's release freezes no stage of these two.
    "mobilenet_v1": Architecture(
        "mobilenetv1_100.ra4_e3600_r224_in1k", _cut_mobilenet, 512, 1024, 0, True, lambda body: body
    ),
    "inception_resnet_v2": Architecture(
        "inception_resnet_v2.tf_in1k", _cut_inception, 1088, 1536, 0, True, branches=True
    ),
    # Fast R-CNN (Girshick, 2015, section 4.5): training conv1 and conv2 of VGG16 does not pay.
    "vgg16": Architecture("vgg16.tv_in1k", _cut_vgg, 512, 4096, 2, False),
}
