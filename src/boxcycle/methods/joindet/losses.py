"""What JoinDet learns beside classes and boxes: the frozen backbone's features of what a query found."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from boxcycle.models.detr_losses import Wanted


def embedding_loss(found: Tensor, sought: Tensor, image: Tensor, wanted: Sequence[Wanted]) -> Tensor:
    """L1 distance between what matched queries say and their targets, the third term of the loss. [JoinDet Eq. 10]

    Means over the channels, over the boxes of an image, over the images: see ``models/detr_losses.py``.

    Shapes: found and sought [M, D]; image [M], the image of each row.
    """
    counts = found.new_tensor([max(len(its.labels), 1) for its in wanted])
    return ((found - sought).abs().mean(1) / counts[image]).sum() / len(wanted)


def unit_mean_square(vectors: Tensor) -> Tensor:
    """Vectors scaled to a mean square of 1, so that the loss does not depend on how large a network's features are.

    Shapes: vectors [N, D]; returns the same.
    """
    return vectors * (vectors.square().mean(1, keepdim=True) + 1e-12).rsqrt()
