"""Data sets in which there is one class, foreground: for methods that look for objects and not for what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.index import Index, Strings

FOREGROUND = ("foreground",)


def one_class(index: Index) -> Index:
    """The same images and boxes, all of one class."""
    return replace(
        index,
        class_names=FOREGROUND,
        category_ids=np.ones(1, dtype=np.int64),
        labels=np.ones_like(index.labels),
        tagged=np.zeros(len(index), dtype=bool),
        tag_offsets=np.zeros(len(index) + 1, dtype=np.int64),
        tags=np.zeros(0, dtype=np.int64),
        verified=None,
    )


def with_boxes(index: Index, offsets: NDArray[np.int64], boxes: NDArray[np.float64]) -> Index:
    """The same images with other boxes, of one class, in the place of all that is known of them.

    Shapes: offsets [I + 1], boxes [N, 4] xyxy, original frame.
    """
    count = len(boxes)
    return replace(
        one_class(index),
        annotated=np.diff(offsets) > 0,
        box_offsets=offsets,
        boxes=boxes,
        labels=np.ones(count, dtype=np.int64),
        box_ids=np.arange(1, count + 1),
        areas=(boxes[:, 2:] - boxes[:, :2]).prod(1),
        iscrowd=np.zeros(count, dtype=bool),
        difficult=np.zeros(count, dtype=bool),
        segmentations=Strings("" for _ in range(count)),
        sources=np.full(count, 2),  # see types.Target: priors
        weights=None,
    )


def without_any_box(index: Index) -> Index:
    """The images alone: nothing that anybody said about them is left."""
    return with_boxes(index, np.zeros(len(index) + 1, dtype=np.int64), np.zeros((0, 4)))
