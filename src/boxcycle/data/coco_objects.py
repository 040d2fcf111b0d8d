"""The objects of a COCO file as whole columns, so that a million of them costs seconds and no Python object remains."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.check import Report
from boxcycle.data.masks import extent, fault
from boxcycle.data.numbers import decimals, integers
from boxcycle.data.records import Records

ENCODE = json.JSONEncoder(separators=(",", ":")).encode
Where = Callable[[int], tuple[str, str]]


def read_objects(
    annotations: list[dict[str, Any]], categories: dict[int, int], records: Records, report: Report
) -> None:
    """Fills the objects of ``records``; an annotation that refers to nothing or has no readable box is a finding.

    ``categories`` gives the label of each category id.
    """
    column = {
        key: [annotation.get(key) for annotation in annotations] for key in ("id", "image_id", "category_id", "area")
    }
    ids, _ = integers(column["id"])
    where = _where(str(records.file), ids)
    position = {image_id: i for i, image_id in reversed(list(enumerate(np.asarray(records.image_ids).tolist())))}
    images = _looked_up(
        column["image_id"], position, "annotation-image", "image_id {} is not among the images", where, report
    )
    labels = _looked_up(
        column["category_id"], categories, "class-unknown", "category_id {} is not among the categories", where, report
    )
    flags = {key: _flags(annotations, key, where, report) for key in ("iscrowd", "difficult")}
    sizes = np.asarray(records.image_sizes)[images] if len(images) else np.zeros((0, 2))
    segmentations = _segmentations(annotations, sizes, where, report)
    boxes, good = _boxes(annotations, segmentations, sizes, where, report)
    rows = np.flatnonzero(good & (images >= 0) & (labels >= 0))
    _look_like_xyxy(boxes[rows], sizes[rows], records, report)
    records.box_images, records.labels, records.box_ids = images[rows], labels[rows], ids[rows]
    records.numbers, records.areas = ids[rows], decimals(column["area"])[0][rows]
    records.boxes = np.concatenate([boxes[rows, :2], boxes[rows, :2] + boxes[rows, 2:]], axis=1)
    records.iscrowd, records.difficult = flags["iscrowd"][rows], flags["difficult"][rows]
    records.segmentations = [segmentations[row] for row in rows]


def _where(file: str, ids: NDArray[np.int64]) -> Where:
    """File and object of a finding about an annotation, by its id, or by its place in the list if it has none."""
    return lambda row: (file, f"annotation {ids[row]}" if ids[row] != -1 else f"annotation number {row + 1}")


def _looked_up(
    values: list[Any], position: dict[int, int], check: str, says: str, where: Where, report: Report
) -> NDArray[np.int64]:
    read, known = integers(values)
    found = np.array([position.get(value, -1) for value in read.tolist()], dtype=np.int64)
    found[~known] = -1
    report.add_rows(check, np.flatnonzero(found < 0).tolist(), where, lambda row: says.format(repr(values[row])[:40]))
    return found


def _flags(annotations: list[dict[str, Any]], key: str, where: Where, report: Report) -> NDArray[np.bool_]:
    values = [annotation.get(key) or 0 for annotation in annotations]
    read, known = integers([int(value) if isinstance(value, bool) else value for value in values])
    bad = np.flatnonzero(~known | (read < 0) | (read > 1)).tolist()
    report.add_rows("annotation", bad, where, lambda row: f"{key} must be 0 or 1; it is {repr(values[row])[:40]}")
    return read == 1


def _segmentations(
    annotations: list[dict[str, Any]], sizes: NDArray[np.float64], where: Where, report: Report
) -> list[str]:
    texts, faults = [""] * len(annotations), {}
    known_sizes = sizes.tolist()
    for row, annotation in enumerate(annotations):
        value = annotation.get("segmentation")
        if not value or value == [[]]:
            continue
        wrong = fault(value, *known_sizes[row])
        if wrong:
            faults[row] = wrong
        else:
            texts[row] = ENCODE(value)
    report.add_rows("segment", list(faults), where, lambda row: f"{faults[row]}; the segmentation is dropped")
    return texts


def _boxes(
    annotations: list[dict[str, Any]],
    segmentations: list[str],
    sizes: NDArray[np.float64],
    where: Where,
    report: Report,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes (x, y, width, height) [N, 4] as in the file, and which rows [N] have one."""
    values = [annotation.get("bbox") for annotation in annotations]
    good = np.array([type(value) is list and len(value) == 4 for value in values], dtype=bool)
    boxes = np.full((len(values), 4), np.nan)
    rows = np.flatnonzero(good)
    numbers, known = decimals(list(itertools.chain.from_iterable(values[row] or () for row in rows)))
    boxes[rows], good[rows] = numbers.reshape(-1, 4), known.reshape(-1, 4).all(1)
    missing = [row for row in np.flatnonzero(~good).tolist() if values[row] in (None, [])]
    wrong = sorted(set(np.flatnonzero(~good).tolist()) - set(missing))
    report.add_rows(
        "annotation", wrong, where, lambda row: f"bbox must be four numbers; it is {repr(values[row])[:60]}"
    )
    from_segment = [row for row in missing if segmentations[row]]
    for row in from_segment:
        left, top, right, bottom = extent(segmentations[row], *_whole(sizes[row], segmentations[row]))
        boxes[row], good[row] = (left, top, right - left, bottom - top), True
    report.add_rows(
        "box-from-segment", from_segment, where, lambda row: "has no bbox; the extent of its segmentation is used"
    )
    without = sorted(set(missing) - set(from_segment))
    report.add_rows("box-missing", without, where, lambda row: "has neither a bbox nor a segmentation; dropped")
    return boxes, good


def _whole(size: NDArray[np.float64], segmentation: str) -> tuple[int, int]:
    if np.isfinite(size).all():
        return int(size[0]), int(size[1])
    value = json.loads(segmentation)
    return tuple(value["size"]) if isinstance(value, dict) else (1, 1)  # polygons need no size


def _look_like_xyxy(boxes: NDArray[np.float64], sizes: NDArray[np.float64], records: Records, report: Report) -> None:
    """Warn if a fifth of the boxes leave their image, and nearly all of them would fit if they were corners."""
    x, y, width, height = boxes.T
    with np.errstate(invalid="ignore"):
        leaving = (x + width > sizes[:, 1] + 1) | (y + height > sizes[:, 0] + 1)
        fitting = (width > x) & (height > y) & (width <= sizes[:, 1] + 1) & (height <= sizes[:, 0] + 1)
    if len(boxes) >= 3 and leaving.mean() > 0.2 and fitting.mean() > 0.95:
        message = (
            f"the boxes look like xyxy: {leaving.sum():,} of {len(boxes):,} leave their image as x, y, width, height, "
            f"and {fitting.sum():,} would fit as corners x1, y1, x2, y2; COCO boxes are x, y, width, height"
        )
        report.add("boxes-look-like-xyxy", records.file, "", message, count=int(leaving.sum()))
