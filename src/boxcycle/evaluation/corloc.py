"""CorLoc: in how many images the best box of a class lies on an object of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from boxcycle.data.index import Index
from boxcycle.evaluation.predictions import Prediction, annotated_images


class CorLoc(NamedTuple):
    """CorLoc in percent of each class (NaN where no image shows it), and the mean over the others."""

    mean: float
    per_class: dict[str, float]


def corloc(
    index: Index,
    predictions: Sequence[Prediction],
    *,
    difficult: Literal["use", "skip"] = "use",
    min_iou: float = 0.5,
) -> CorLoc:
    """The part of the images of each class whose best-scored box of it meets an object of it.
    [Deselaers et al., IJCV 2012, section 5]

    An IoU of ``min_iou`` is enough. An image without a detection of the class is a miss. Boxes that VOC marks as
    difficult count as objects; with "skip" an image that has no others of a class is left out for it. Crowd regions do
    not count. Images that nobody annotated are left out. Boxes are continuous: VOC's kit adds one pixel to their sides.

    Raises:
        ValueError: if predictions and images do not match one to one, or a label, box or score cannot be.
    """
    hits, images = np.zeros(index.num_classes), np.zeros(index.num_classes)
    for position, found in annotated_images(index, predictions):
        rows = index.boxes_of(position)
        single = ~index.iscrowd[rows]
        boxes, classes = index.boxes[rows][single], index.labels[rows][single]
        easy = ~index.difficult[rows][single] if difficult == "skip" else np.ones(len(boxes), dtype=bool)
        for label in np.unique(classes[easy]).tolist():
            images[label - 1] += 1
            hits[label - 1] += _meets(found, label, boxes[classes == label]) >= min_iou
    with np.errstate(invalid="ignore"):
        per_class = 100 * hits / images
    known = per_class[~np.isnan(per_class)]
    mean = float(known.mean()) if len(known) else float("nan")
    return CorLoc(mean, dict(zip(index.class_names, per_class.tolist(), strict=True)))


def best_box(found: Prediction, label: int) -> NDArray[np.float64] | None:
    """The best-scored box [4] of a class, xyxy; None without a detection of it."""
    scores = np.where(found.labels == label, found.scores, -np.inf)
    if not len(scores) or scores.max() == -np.inf:
        return None
    return found.boxes[scores.argmax()].astype(np.float64)


def _meets(found: Prediction, label: int, boxes: NDArray[np.float64]) -> float:
    """IoU of the best detection of a class with the nearest of the boxes [N, 4], 0 without a detection."""
    best = best_box(found, label)
    return 0.0 if best is None else float(box_iou(torch.from_numpy(best[None]), torch.from_numpy(boxes)).max())
