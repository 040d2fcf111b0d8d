"""The policy for boxes: what is dropped, clipped and kept, over all boxes of a split at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.check import DataError, Report
from boxcycle.data.masks import decode
from boxcycle.data.records import Records

SMALLEST = 0.99  # pixels a side: one, less what writing fractions with six digits costs
ROUNDING = 0.05  # pixels over the border that writing a box with one or two digits costs; clipped without a finding


def judge_boxes(
    records: Records,
    report: Report,
    sizes: NDArray[np.float64],
    labels: NDArray[np.int64],
    chosen: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Boxes clipped to their images, their areas, and which of the chosen ones can be used.

    Shapes: sizes [I, 2] (height, width), labels [N], chosen [N]; returns boxes [N, 4] xyxy, original frame, areas [N]
    and good [N].
    """
    raw = np.array(records.boxes, dtype=np.float64).reshape(-1, 4)
    images = np.asarray(records.box_images, dtype=np.int64)
    height, width = sizes[images].T if len(images) else np.zeros((2, 0))
    good = chosen.copy()

    def drop(check: str, bad: Any, says: str) -> None:
        rows = np.flatnonzero(good & bad)
        report.add_rows(check, rows.tolist(), records.where_object, _sentence(raw, width, height, says))
        good[rows] = False

    with np.errstate(invalid="ignore"):
        drop("box-not-finite", ~np.isfinite(raw).all(1), "is not finite; dropped")
        drop("box-empty", _sides(raw).min(1) < SMALLEST, "has a side below one pixel; dropped")
        outside = (raw[:, 0] >= width) | (raw[:, 1] >= height) | (raw[:, 2] <= 0) | (raw[:, 3] <= 0)
        drop("box-outside", outside, "lies outside {image}; dropped")
        limits = np.stack([width, height, width, height], axis=1)
        boxes = np.clip(raw, 0, limits)
        drop("box-empty", _sides(boxes).min(1) < SMALLEST, "has less than one pixel inside {image}; dropped")
        drop("box-duplicate", _repeated(raw, images, labels, records), "is there already, with the same class; dropped")
        over = good & (np.maximum(-raw, raw - limits).max(1) > ROUNDING)
    rows = np.flatnonzero(over).tolist()
    report.add_rows(
        "box-clipped",
        rows,
        records.where_object,
        _sentence(raw, width, height, "reaches over the border of {image}; clipped"),
    )
    return boxes, _areas(records, report, boxes, over, good, sizes, images), good


def _sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):  # infinity minus infinity, of boxes that are not used
        return boxes[:, 2:] - boxes[:, :2]


def _repeated(
    boxes: NDArray[np.float64], images: NDArray[np.int64], labels: NDArray[np.int64], records: Records
) -> NDArray[np.bool_]:
    """Which rows equal an earlier one in image, class, crowd flag and all four numbers."""
    keys = np.column_stack([images, labels, np.asarray(records.iscrowd, dtype=bool), boxes])
    repeated = np.ones(len(keys), dtype=bool)
    order = np.lexsort(keys.T[::-1])  # stable: equal rows stay in the order of the file
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (keys[order][1:] != keys[order][:-1]).any(1)
    repeated[order[new]] = False
    return repeated


def _areas(
    records: Records,
    report: Report,
    boxes: NDArray[np.float64],
    clipped: NDArray[np.bool_],
    good: NDArray[np.bool_],
    sizes: NDArray[np.float64],
    images: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The file's areas [N]; where it gives none, or of a box that was clipped: the segment's, else the box's."""
    areas = np.array(records.areas, dtype=np.float64)
    has_segment = np.array([bool(text) for text in records.segmentations], dtype=bool)
    unknown = good & ~(np.isfinite(areas) & (areas > 0))
    for row in np.flatnonzero(unknown & has_segment).tolist():
        height, width = sizes[images[row]].astype(int).tolist()
        try:
            areas[row] = decode(records.segmentations[row], height, width).sum()
        except DataError as error:
            report.add("segment", *records.where_object(row), f"{error}; the segmentation is dropped")
            records.segmentations[row] = ""
    by_box = (unknown & ~(areas > 0)) | (clipped & ~has_segment)
    areas[by_box] = _sides(boxes).prod(1)[by_box]
    return areas


def _sentence(
    boxes: NDArray[np.float64], width: NDArray[np.float64], height: NDArray[np.float64], says: str
) -> Callable[[int], str]:
    def sentence(row: int) -> str:
        corners = ", ".join(f"{number:.6g}" for number in boxes[row])
        image = f"its image of {width[row]:g} x {height[row]:g} (width x height)"
        return f"box ({corners}) (x1, y1, x2, y2) {says.format(image=image)}"

    return sentence
