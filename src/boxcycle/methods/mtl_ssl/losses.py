"""The losses of the three auxiliary tasks and of the refinement. [MTL-SSL section 3.4]

All return one value an image or a region, not yet averaged over the batch, so that the detector can weigh images
equally.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.ops import generalized_box_iou_loss


def multi_object_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft cross entropy of each window, L_m. [MTL-SSL Eq. 2]

    Shapes: logits [M, K+1], labels [M, K+1] with rows that sum to 1; returns [M].
    """
    return cross_entropy(logits, labels, reduction="none")


def closeness_loss(logits: Tensor, labels: Tensor, *, background: bool = True) -> Tensor:
    """Soft cross entropy of each object, L_c. [MTL-SSL Eq. 2]

    ``background=False`` is the released code's form: the softmax runs over the foreground classes alone, and an object
    without neighbours has no loss.

    Shapes: logits [R, K+1], labels [R, K+1]; returns [R].
    """
    if background:
        return cross_entropy(logits, labels, reduction="none")
    return cross_entropy(logits[:, 1:], labels[:, 1:], reduction="none")


def foreground_loss(logits: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Two-way cross entropy of background against foreground, L_f, a mean over the cells of an image. [MTL-SSL Eq. 2]

    Shapes: logits [B, 2, h, w] (background first), mask [B, h, w] of 0 and 1, weights [B, h, w] of mean 1 or None;
    returns [B].
    """
    losses = cross_entropy(logits, mask.long(), reduction="none")
    if weights is not None:
        losses = losses * weights
    return losses.flatten(1).mean(1)


def edge_loss(guess: Tensor, distances: Tensor, owner: Tensor) -> Tensor:
    """1 - GIoU of the boxes that cells guess with the boxes that they lie in, a mean over boxes of the mean over cells.

    Shapes: guess and distances [4, h, w], positive where a cell lies in a box; owner [h, w], that box, -1 for none;
    returns a scalar, 0 without boxes.
    """
    inside = owner >= 0
    signs = guess.new_tensor([-1, -1, 1, 1])  # of left, top, right and bottom, seen from the cell
    each = generalized_box_iou_loss(guess[:, inside].T * signs, distances[:, inside].T * signs, reduction="none")
    _, row, counts = owner[inside].unique(return_inverse=True, return_counts=True)
    return (each / counts[row]).sum() / max(len(counts), 1)
