"""Images of several sizes as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from boxcycle.types import ImageList


def pad_images(images: Sequence[Tensor], mean: Sequence[float], std: Sequence[float]) -> ImageList:
    """Normalise the images and pad them to one size, a multiple of 32. Shapes: images [3, H_i, W_i] in [0, 1]."""
    sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*sizes, strict=True))
    tensors = images[0].new_zeros(len(images), 3, height, width)
    centre, spread = (images[0].new_tensor(values)[:, None, None] for values in (mean, std))
    for row, image in zip(tensors, images, strict=True):
        row[:, : image.shape[-2], : image.shape[-1]] = (image - centre) / spread
    return ImageList(tensors, sizes)
