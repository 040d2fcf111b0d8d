"""The policy for boxes, against a slow reading of it one box at a time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from boxcycle.data.boxes import judge_boxes
from boxcycle.data.check import Report, count_dropped
from boxcycle.data.records import UNKNOWN, Records

SIZES = np.array([[40, 60], [30, 20]], dtype=np.float64)  # (height, width)


def slow_policy(image: int, box: tuple[float, ...]) -> tuple[str, list[float]]:
    """What becomes of one box: "kept", "box-clipped" or the check that drops it, and the clipped box."""
    height, width = SIZES[image].tolist()
    x1, y1, x2, y2 = box
    if not all(math.isfinite(number) for number in box):
        return "box-not-finite", []
    if x2 - x1 < 0.99 or y2 - y1 < 0.99:
        return "box-empty", []
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return "box-outside", []
    inside = [max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]
    if inside[2] - inside[0] < 0.99 or inside[3] - inside[1] < 0.99:
        return "box-empty", []
    moved = max(abs(a - b) for a, b in zip(box, inside, strict=True))
    return ("box-clipped" if moved > 0.05 else "kept"), inside


def records_of(boxes: list[tuple[int, tuple[float, ...]]]) -> Records:
    records = Records(file=Path("f"), root=Path(), class_names=["cat"], category_ids=[1])
    for number, (image, box) in enumerate(boxes):
        records.add_object(image, number, box, 1)
    return records


def test_vectorised_policy_is_the_slow_one() -> None:
    rng = np.random.default_rng(0)
    corner, side = rng.uniform(-30, 70, (500, 2)), rng.choice([-5, 0, 0.5, 0.995, 1, 8, 40, 90], (500, 2))
    boxes = np.concatenate([corner, corner + side], axis=1).round(3)
    boxes[rng.integers(0, 500, 30), rng.integers(0, 4, 30)] = rng.choice([math.nan, math.inf, -math.inf], 30)
    boxes[::7] = np.clip(boxes[::7], 0, 20)  # some inside
    boxes[3::7, 0] = -0.04  # some over the border by rounding
    images = rng.integers(0, 2, 500)
    records = records_of([(int(image), tuple(box)) for image, box in zip(images, boxes.tolist(), strict=True)])
    report = Report(limit=None)
    clipped, areas, good = judge_boxes(records, report, SIZES, np.ones(500, dtype=np.int64), np.ones(500, dtype=bool))
    told = {int(finding.object.split()[1]): finding.check for finding in report.findings}
    seen = set()
    for row in range(500):
        verdict, inside = slow_policy(int(images[row]), tuple(boxes[row].tolist()))
        key = (images[row], *boxes[row].tolist())
        if verdict in ("kept", "box-clipped") and key in seen:
            verdict, inside = "box-duplicate", []
        seen.add(key)
        assert told.get(row, "kept") == verdict
        assert good[row] == bool(inside)
        if inside:
            assert clipped[row].tolist() == inside
            assert areas[row] == pytest.approx((inside[2] - inside[0]) * (inside[3] - inside[1]))
    assert {"kept", *told.values()} >= {"kept", "box-clipped", "box-empty", "box-outside", "box-not-finite"}
    assert count_dropped(report.findings) == (~good).sum()


def test_duplicates_need_the_same_image_class_and_crowd_flag() -> None:
    box = (1.0, 1.0, 9.0, 9.0)
    records = records_of([(0, box), (1, box), (0, box), (0, box), (0, box)])
    records.iscrowd[3] = True
    labels, report = np.array([1, 1, 2, 1, 1]), Report()
    _, _, good = judge_boxes(records, report, SIZES, labels, np.ones(5, dtype=bool))
    assert good.tolist() == [True, True, True, True, False]
    assert [finding.object for finding in report.findings] == ["annotation 4"]


def test_areas_are_the_files_own_then_the_segments_then_the_boxes() -> None:
    square = "[[2, 1, 6, 1, 6, 4, 2, 4]]"
    records = Records(file=Path("f"), root=Path())
    for area, segmentation, box in [
        (7.0, "", (0, 0, 10, 10)),
        (UNKNOWN, square, (2, 1, 6, 4.5)),
        (UNKNOWN, "", (0, 0, 10, 5)),
        (-3.0, "", (0, 0, 10, 6)),
        (900.0, "", (50, 0, 70, 10)),  # clipped: the file's area is that of the whole
        (8.0, square, (55, 0, 70, 10)),  # clipped, but the segment is what it was
    ]:
        records.add_object(0, 0, box, 1, area=area, segmentation=segmentation)
    _, areas, _ = judge_boxes(records, Report(), SIZES, np.ones(6, dtype=np.int64), np.ones(6, dtype=bool))
    assert areas.tolist() == [7, 12, 50, 60, 100, 8]


def test_no_boxes_at_all() -> None:
    boxes, areas, good = judge_boxes(
        Records(file=Path("f"), root=Path()), Report(), SIZES, np.zeros(0, dtype=np.int64), np.zeros(0, dtype=bool)
    )
    assert boxes.shape == (0, 4)
    assert len(areas) == len(good) == 0
