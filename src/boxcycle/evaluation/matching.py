"""Which detections of an image are right, by the rule of the VOC development kit."""

from __future__ import annotations

import enum
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from boxcycle.data.index import Index
from boxcycle.evaluation.predictions import Prediction


class Verdict(enum.IntEnum):
    """What a detection is: ``IGNORED`` ones, on difficult boxes and crowd regions, count neither for nor against."""

    WRONG = 0
    RIGHT = 1
    IGNORED = 2


class Match(NamedTuple):
    """The verdict on each of D detections, and the annotated box of its class that it overlaps most.

    ``verdicts`` [D]; ``nearest`` [D]: the number of the box within its image, 0 where the class has none; ``iou`` [D]:
    the overlap with it, -1 where there is none.
    """

    verdicts: NDArray[np.int64]
    nearest: NDArray[np.int64]
    iou: NDArray[np.float64]


def judge_image(index: Index, position: int, prediction: Prediction, min_iou: float = 0.5) -> NDArray[np.int64]:
    """The :class:`Verdict` [D] on each detection of image number ``position``: see :func:`match_image`."""
    return match_image(index, position, prediction, min_iou).verdicts


def match_image(index: Index, position: int, prediction: Prediction, min_iou: float = 0.5) -> Match:
    """Judge the detections of image number ``position``, in the prediction's order.

    Best score first, a detection goes to the annotated box of its class that it overlaps most. It is right if their
    IoU is at least ``min_iou`` (VOC: "at least", not "more than") and no better detection took the box; a second one
    on the same box is wrong. Boxes are continuous: VOC's own kit adds one pixel to each width and height.
    """
    rows = index.boxes_of(position)
    verdicts = np.full(len(prediction.scores), Verdict.WRONG, dtype=np.int64)
    if rows.start == rows.stop or not len(verdicts):
        return Match(verdicts, np.zeros_like(verdicts), np.full(len(verdicts), -1.0))
    overlap = overlaps(prediction.boxes, index.boxes[rows])
    overlap[prediction.labels[:, None] != index.labels[rows]] = -1
    nearest, iou = overlap.argmax(1), overlap.max(1)
    order = np.argsort(-prediction.scores, kind="stable")
    meets = order[iou[order] >= min_iou]
    _, first = np.unique(nearest[meets], return_index=True)
    verdicts[meets[first]] = Verdict.RIGHT
    no_matter = index.difficult[rows] | index.iscrowd[rows]
    verdicts[meets[no_matter[nearest[meets]]]] = Verdict.IGNORED
    return Match(verdicts, nearest, iou)


def overlaps(boxes: NDArray[np.float32], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU [D, N] in float64, so that a threshold of 0.5 means the same in every image size."""
    return box_iou(torch.from_numpy(boxes).double(), torch.from_numpy(others).double()).numpy()
