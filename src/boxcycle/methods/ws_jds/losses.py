"""The losses of WS-JDS, each of one image: a sum over classes, so that the detector can weigh images equally."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

LEAST = 1e-6  # probabilities keep that far from 0 and 1 before a logarithm


def image_loss(image_scores: Tensor, tags: Tensor) -> Tensor:
    """Cross entropy of an image's scores y against its tags, summed over the classes. [WS-JDS Eq. 1]

    Scores come within 1e-6 of 0 and 1; the gradient passes there too, so that a class once lost can come back.

    Shapes: [K] and [K]; returns a scalar.
    """
    kept = image_scores + (image_scores.clamp(LEAST, 1 - LEAST) - image_scores).detach()
    return -(tags * kept.log() + (1 - tags) * (1 - kept).log()).sum()


def guided_loss(scores: Tensor, weights: Tensor, tags: Tensor, *, literal: bool = False) -> Tensor:
    """The image loss of proposals weighted by what the segmentation says of them. [WS-JDS Eq. 4]

    As printed, y^r = sum of W X^s leaves [0, 1] and has no logarithm. As in the released code, proposals of positive
    weight are to give the tag, those of negative weight, together, nothing. ``literal`` keeps the printed form, cut
    off at 0 and 1.

    Shapes: scores X^s [R, K], weights [R, K] in [-1, 1] without gradient, tags [K]; returns a scalar.
    """
    if literal:
        return image_loss((weights * scores).sum(0), tags)
    good, bad = ((part * scores).sum(0) for part in (weights.clamp(min=0), (-weights).clamp(min=0)))
    return image_loss(good, tags) + image_loss(bad, torch.zeros_like(tags))


def seed_loss(logits: Tensor, seeds: Tensor) -> Tensor:
    """Cross entropy of the segmentation's cells against their seeds. [WS-JDS Eq. 2]

    For each class the mean over the cells that are the class and the mean over those that are not, so that neither
    drowns the other (the released code; the paper sums over all cells).

    Shapes: logits [K, H, W], seeds [K, H, W] of 1, 0 and -1 (ignored); returns a scalar.
    """
    wanted = (seeds == 1).to(logits)
    each = binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return sum((_mean_where(each, seeds == value) for value in (0, 1)), each.new_zeros(()))


def boundary_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """How far the masks of the present classes are from what the CRF made of them, the mean over cells of KL(q || S).
    [WS-JDS section 3, constrain-to-boundary loss]

    Shapes: logits [K+, H, W], targets q [K+, H, W] in [0, 1]; returns a scalar, 0 without present classes.
    """
    if not len(logits):
        return logits.sum()
    entropy = torch.xlogy(targets, targets) + torch.xlogy(1 - targets, 1 - targets)
    return (entropy - targets * logsigmoid(logits) - (1 - targets) * logsigmoid(-logits)).mean()


def pooled_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Cross entropy of the segmentation's own image scores: the smooth maximum (log-mean-exp) of its cells.

    Teaches the segmentation where the detection gives it no seeds; the paper does not say what its arms without them
    use. Shapes: logits [K, H, W], tags [K]; returns a scalar.
    """
    cells = logits.flatten(1)
    scores = cells.logsumexp(1) - torch.tensor(float(cells.shape[1])).log()
    return binary_cross_entropy_with_logits(scores, tags.to(scores), reduction="sum")


def _mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Sum over the classes of the mean of each class's chosen cells, 0 for a class without."""
    counts = chosen.sum((1, 2)).clamp(min=1)
    return ((values * chosen).sum((1, 2)) / counts).sum()
