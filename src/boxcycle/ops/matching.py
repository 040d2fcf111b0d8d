"""Which box teaches which candidate: assignment of annotated boxes to anchors or proposals, and balanced sampling."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import box_iou

from boxcycle.ops.boxes import covered_fraction
from boxcycle.types import MINED, Target

IGNORED = -1  # a label: teaches nothing


class Assignment(NamedTuple):
    """What P candidates of an image are to learn.

    ``labels`` [P] int64: 1..K object, 0 background, -1 ignored; ``matched`` [P] int64: the row of the box in the
    target, 0 where none.
    """

    labels: Tensor
    matched: Tensor


def assign(
    candidates: Tensor, target: Target, *, positive_iou: float, negative_iou: float, best_for_each_box: bool = False
) -> Assignment:
    """Assign to each candidate the annotated box that it overlaps most. [Faster R-CNN, section 3.1.2]

    IoU of at least ``positive_iou`` makes an object, below ``negative_iou`` background, between the two ignored. With
    ``best_for_each_box`` the candidates that overlap a box most are its objects whatever their IoU, if it is above 0. A
    background candidate of which at least half lies in an ignore region (``iscrowd``) is ignored.

    Shapes: candidates [P, 4] xyxy, image frame.
    """
    boxes, labels = target["boxes"], target["labels"]
    nothing = torch.zeros(len(candidates), dtype=torch.int64, device=candidates.device)
    if not len(boxes):
        return Assignment(nothing, nothing)
    ignore = target["iscrowd"].bool() if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    overlap = box_iou(candidates, boxes).masked_fill(ignore, 0.0)  # [P, N]
    best, matched = overlap.max(1)
    assigned = torch.where(best >= positive_iou, labels[matched], IGNORED)
    assigned = assigned.masked_fill(best < negative_iou, 0)
    if best_for_each_box:
        highest = overlap.amax(0)
        rescued = ((overlap == highest) & (highest > 0)).any(1)
        assigned = torch.where(rescued, labels[matched], assigned)
    if ignore.any():
        inside = (covered_fraction(candidates, boxes[ignore]) >= 0.5).any(1)
        assigned = assigned.masked_fill(inside & (assigned == 0), IGNORED)
    return Assignment(assigned, matched)


def says_where(target: Target, matched: Tensor) -> Tensor:
    """Whether the boxes that candidates are matched to teach places, and not only classes.

    A mined box does not: the losses of SSM's pseudo labels are those of classifiers, and to learn places from a
    detector's own boxes is to learn its errors. Shapes: matched [P], rows of the target; returns [P] bool.
    """
    if "source" not in target or not len(target["source"]):
        return torch.ones_like(matched, dtype=torch.bool)
    return (target["source"] != MINED)[matched]


def sample_balanced(labels: Tensor, count: int, positive_fraction: float, generator: torch.Generator) -> Tensor:
    """Draw at most ``count`` rows, objects first up to ``positive_fraction`` of them, background for the rest.

    Shapes: labels [P] as in :class:`Assignment`; returns rows [S] int64, objects before background.
    """
    positive = (labels > 0).nonzero().flatten()
    negative = (labels == 0).nonzero().flatten()
    positive = _draw(positive, int(count * positive_fraction), generator)
    return torch.cat([positive, _draw(negative, count - len(positive), generator)])


def _draw(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    order = torch.randperm(len(rows), generator=generator, device=rows.device)
    return rows[order[:count]]
