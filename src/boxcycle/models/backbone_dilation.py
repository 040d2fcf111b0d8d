"""Trunks of stride 8: the last step to a coarser map is left out, and what follows is dilated to see as far."""

from __future__ import annotations

from torch import nn


def dilate(trunk: nn.Sequential) -> None:
    """Bring a trunk from stride 16 to stride 8, in place; its weights stay what they are.

    In the last stage with a step of 2 that step becomes 1 and every larger kernel after it has holes of one cell. A
    pooling becomes one of 3 x 3 cells, which keeps the map's size. (DeepLab: Chen et al., ICLR 2015, section 3.1.)
    Layers must run in the order in which they are defined, without branches that step each on its own.
    """
    stages = list(trunk.children())
    first = max(i for i, stage in enumerate(stages) if any(map(_steps, stage.modules())))
    stepped = False
    for layer in (layer for stage in stages[first:] for layer in stage.modules()):
        if _steps(layer):
            stepped, layer.stride = True, (1, 1)  # type: ignore[assignment]
            if not isinstance(layer, nn.Conv2d):
                layer.kernel_size, layer.padding = 3, 1  # type: ignore[assignment]
        elif stepped and isinstance(layer, nn.Conv2d) and max(layer.kernel_size) > 1:
            layer.dilation = (2, 2)
            layer.padding = tuple(2 * int(cells) for cells in layer.padding)


def _steps(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) and layer.stride in (2, (2, 2))
