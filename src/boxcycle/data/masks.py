"""Segmentations: COCO's polygons and run lengths as JSON text, decoded only where a mask is wanted."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.check import DataError

FARTHEST = 1e6  # pixels; a polygon beyond it is a fault, and would cost memory to draw


def decode(segmentation: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a segmentation (JSON text: polygons, or compressed or plain RLE).

    Shapes: returns [height, width], original frame. Raises :class:`DataError` if the text is no segmentation of an
    image of that size.
    """
    from faster_coco_eval.core import mask as coco_mask

    value = json.loads(segmentation)
    wrong = fault(value, height, width)
    if wrong:
        raise DataError(wrong)
    try:
        runs = value
        if isinstance(value, list):
            runs = coco_mask.merge(coco_mask.frPyObjects(value, height, width))
        elif isinstance(value["counts"], list):
            runs = coco_mask.frPyObjects(value, height, width)
        return np.asarray(coco_mask.decode(runs), dtype=bool)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"RLE of an image of {height} x {width} (height x width) is malformed: {error}") from None


def encode(mask: NDArray[np.bool_]) -> str:
    """The compressed RLE of a mask [H, W], as JSON text."""
    from faster_coco_eval.core import mask as coco_mask

    runs = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return json.dumps({"size": list(mask.shape), "counts": runs["counts"].decode("ascii")}, separators=(",", ":"))


def extent(segmentation: str, height: int, width: int) -> tuple[float, float, float, float]:
    """The box (xyxy, original frame) around a segmentation; polygons at full precision. Raises as :func:`decode`."""
    value = json.loads(segmentation)
    if isinstance(value, list):
        points = np.concatenate([np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in value])
        return (*points.min(0).tolist(), *points.max(0).tolist())
    rows, columns = np.nonzero(decode(segmentation, height, width))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def fault(value: Any, height: float, width: float) -> str | None:
    """What is wrong at first sight with a parsed ``segmentation`` field, as the end of a sentence; None if nothing.

    A height or width of NaN is not known, and any is right. The runs of a compressed RLE are only checked by
    :func:`decode`.
    """
    if isinstance(value, list):
        return _polygon_fault(value)
    if not isinstance(value, dict) or not isinstance(value.get("counts"), (str, list)):
        return "segmentation is neither a list of polygons nor an RLE with 'size' and 'counts'"
    size, counts = value.get("size"), value["counts"]
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
        return f"RLE size must be two positive integers, height and width; it is {size}"
    if any(known == known and known != side for known, side in zip((height, width), size, strict=True)):
        return f"RLE size must be [{height:g}, {width:g}] (height, width), as the image; it is {size}"
    if isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts):
            return "RLE counts must be non-negative integers"
        pixels = size[0] * size[1]
        if sum(counts) != pixels:
            return f"RLE counts must add up to {pixels}, the pixels of the image; they add up to {sum(counts)}"
    return None


def _near(numbers: list[float]) -> bool:
    return min(numbers) >= -FARTHEST and max(numbers) <= FARTHEST


def _polygon_fault(polygons: list[Any]) -> str | None:
    if not polygons:
        return "segmentation has no polygon"
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            return "a polygon must be a list of at least 3 points as x, y, x, y, ..."
        # whole-list functions: ten times faster than a test of each number, of which a data set has tens of millions
        if not set(map(type, polygon)) <= {float, int} or not _near(polygon) or math.isnan(sum(polygon)):
            return "a polygon must hold finite pixel coordinates"
    return None
