"""Where the best box of each tag lies: what a detector that learns from tags takes for the object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from boxcycle.data.index import Index
from boxcycle.evaluation.corloc import best_box
from boxcycle.evaluation.predictions import Prediction, annotated_images

Place = Literal["right", "part", "too large", "other class", "elsewhere", "not found"]
INSIDE = 0.7  # part of a box, or of an object, that counts as all of it


def best_box_places(index: Index, predictions: Sequence[Prediction]) -> dict[str, float]:
    """The percentage of the tags (an image and a class that it shows) by where their best-scored box lies.

    ``right``: IoU of at least 0.5 with an object of the class; ``part``: inside such an object; ``too large``: around
    one; ``other class``: on or inside an object of another class; ``elsewhere``; ``not found``: there is no box. The
    first that holds counts. Crowd regions are no objects, images that nobody annotated are left out. NaN without tags.

    Raises:
        ValueError: if predictions and images do not match one to one, or a label, box or score cannot be.
    """
    places: Counter[Place] = Counter()
    for position, found in annotated_images(index, predictions):
        rows = index.boxes_of(position)
        single = ~index.iscrowd[rows]
        boxes, classes = index.boxes[rows][single], index.labels[rows][single]
        for label in np.unique(classes).tolist():
            places[_place(found, label, boxes[classes == label], boxes[classes != label])] += 1
    tags = places.total()
    return {place: 100 * places[place] / tags if tags else float("nan") for place in get_args(Place)}


def _place(found: Prediction, label: int, own: NDArray[np.float64], others: NDArray[np.float64]) -> Place:
    best = best_box(found, label)
    if best is None:
        return "not found"
    if _ious(best, own).max() >= 0.5:
        return "right"
    if _shared(best, own).max() >= INSIDE * _areas(best):
        return "part"
    if (_shared(best, own) >= INSIDE * _areas(own)).any():
        return "too large"
    if (_ious(best, others) >= 0.5).any() or (_shared(best, others) >= INSIDE * _areas(best)).any():
        return "other class"
    return "elsewhere"


def _ious(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    ious: NDArray[np.float64] = box_iou(torch.from_numpy(box[None]), torch.from_numpy(others))[0].numpy()
    return ious


def _shared(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The area that a box [4] shares with each of the others [N, 4]. Shapes: returns [N]."""
    sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    return np.prod(np.clip(sides, 0, None), axis=1)


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Areas of boxes [..., 4]. Shapes: returns [...]."""
    return np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1)
