"""Images of several sizes as one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from boxcycle.types import ImageList


def pad_images(images: Sequence[Tensor], mean: Sequence[float], std: Sequence[float]) -> ImageList:
    """Normalise images with a network's own statistics, and pad them to one size, a multiple of 32.

    Sizes are taken from ``shape`` as they are, so that an export follows its input. Shapes: images [3, H_i, W_i] in
    [0, 1].
    """
    sizes = [(image.shape[-2], image.shape[-1]) for image in images]
    height, width = ((max(sides) + 31) // 32 * 32 for sides in zip(*sizes, strict=True))
    means, deviations = (images[0].new_tensor(list(values))[:, None, None] for values in (mean, std))
    padded = [
        pad((image - means) / deviations, (0, width - size[1], 0, height - size[0]))
        for image, size in zip(images, sizes, strict=True)
    ]
    return ImageList(torch.stack(padded), sizes)
