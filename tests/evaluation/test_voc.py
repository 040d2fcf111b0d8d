"""VOC's average precision: by hand, against a slow second implementation, invariances."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from boxcycle.data.index import Index
from boxcycle.evaluation.matching import Verdict, judge_image
from boxcycle.evaluation.predictions import Prediction
from boxcycle.evaluation.voc import voc_average_precision

WRONG, RIGHT, IGNORED = Verdict.WRONG, Verdict.RIGHT, Verdict.IGNORED


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def slow_average_precision(
    index: Index, predictions: list[Prediction], label: int, method: str, min_iou: float
) -> float:
    """One class: all its detections in one list by score, one at a time; then the curve, point by point."""
    found = [
        (float(score), position, box.astype(float))
        for position, prediction in enumerate(predictions)
        for box, detected, score in zip(*prediction[1:], strict=True)
        if detected == label
    ]
    found.sort(key=lambda detection: -detection[0])
    taken, right, wrong, curve = set(), 0, 0, []
    for _, position, box in found:
        rows = [r for r in range(*index.box_offsets[position : position + 2]) if index.labels[r] == label]
        overlaps = [slow_iou(box, index.boxes[r]) for r in rows]
        best = rows[int(np.argmax(overlaps))] if rows else None
        if rows and max(overlaps) >= min_iou:
            if index.difficult[best] or index.iscrowd[best]:
                continue
            right, wrong = (right, wrong + 1) if best in taken else (right + 1, wrong)
            taken.add(best)
        else:
            wrong += 1
        curve.append((right, right / (right + wrong)))
    sought = sum(
        index.labels[r] == label and not index.difficult[r] and not index.iscrowd[r] for r in range(len(index.labels))
    )
    if sought == 0:
        return math.nan
    steps = range(11) if method == "11point" else range(1, sought + 1)
    total = 0.0
    for step in steps:
        enough = 10 * sought + 1
        for reached, _ in curve:
            if (10 * reached >= step * sought) if method == "11point" else (reached >= step):
                enough = reached
                break
        total += max((precision for reached, precision in curve if reached >= enough), default=0.0)
    return 100 * total / len(steps)


@pytest.mark.parametrize("method", ["area", "11point"])
@pytest.mark.parametrize("seed", range(6))
def test_slow_implementation_agrees(draw_case, seed, method):
    index, predictions = draw_case(seed, images=15, difficult=0.2)
    min_iou = [0.5, 0.7][seed % 2]
    found = voc_average_precision(index, predictions, method=method, min_iou=min_iou)
    expected = [slow_average_precision(index, predictions, label, method, min_iou) for label in range(1, 5)]
    assert list(found.per_class.values()) == pytest.approx(expected, nan_ok=True, abs=1e-9)
    assert found.mean == pytest.approx(np.nanmean(expected))
    assert 0 < found.mean < 100


@pytest.fixture
def three_boxes(make_index, make_predictions):
    """Three objects, two found, with a false detection between them: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3."""
    index = make_index([[(1, [10, 10, 50, 50]), (1, [60, 60, 90, 90])], [(1, [0, 0, 40, 40])]], num_classes=1)
    found = [(1, 0.9, [10, 10, 50, 50]), (1, 0.8, [0, 60, 30, 90]), (1, 0.7, [60, 60, 90, 90])]
    return index, make_predictions(index, [found, []])


def test_by_hand(three_boxes):
    # area: 1/3 * 1 + 1/3 * 2/3; eleven points: 1 at 0, .1, .2, .3, then 2/3 at .4, .5, .6, then 0
    assert voc_average_precision(*three_boxes, method="area").mean == pytest.approx(100 * (1 / 3 + 2 / 9))
    assert voc_average_precision(*three_boxes, method="11point").mean == pytest.approx(100 * (4 + 3 * 2 / 3) / 11)


def test_recall_of_three_tenths_reaches_the_point_at_three_tenths(make_index, make_predictions):
    boxes = [[i * 10, 0, i * 10 + 8, 8] for i in range(10)]
    index = make_index([[(1, box) for box in boxes]], num_classes=1)
    predictions = make_predictions(index, [[(1, 0.9, box) for box in boxes[:3]]])
    assert voc_average_precision(index, predictions, method="11point").mean == pytest.approx(100 * 4 / 11)


def judge(make_index, make_predictions, truth, found, **marks):
    index = make_index([truth], **marks)
    return judge_image(index, 0, make_predictions(index, [found])[0]).tolist()


def test_a_second_detection_of_a_box_is_wrong_whatever_its_order(make_index, make_predictions):
    truth, better, worse = [(1, [0, 0, 10, 10])], (1, 0.9, [0, 0, 10, 8]), (1, 0.8, [0, 0, 10, 10])
    assert judge(make_index, make_predictions, truth, [better, worse]) == [RIGHT, WRONG]
    assert judge(make_index, make_predictions, truth, [worse, better]) == [WRONG, RIGHT]


def test_a_detection_goes_to_the_box_it_overlaps_most_even_if_that_is_taken(make_index, make_predictions):
    truth = [(1, [0, 0, 10, 10]), (1, [4, 0, 14, 10])]
    found = [(1, 0.9, [0, 0, 10, 10]), (1, 0.8, [1, 0, 11, 10])]  # the second overlaps the free box by 7/13
    assert judge(make_index, make_predictions, truth, found) == [RIGHT, WRONG]


def test_an_iou_of_exactly_the_threshold_is_enough(make_index, make_predictions):
    truth = [(1, [0, 0, 10, 10])]
    assert judge(make_index, make_predictions, truth, [(1, 0.9, [0, 0, 10, 5])]) == [RIGHT]
    assert judge(make_index, make_predictions, truth, [(1, 0.9, [0, 0, 10, 4.99])]) == [WRONG]


def test_boxes_are_continuous(make_index, make_predictions):
    """The IoU is 7.6 / 16; with one more pixel in each direction, as the kit counts, it would be 14.5 / 25."""
    assert judge(make_index, make_predictions, [(1, [0, 0, 4, 4])], [(1, 0.9, [0, 0, 4, 1.9])]) == [WRONG]


def test_detections_on_difficult_boxes_and_crowds_are_ignored_each_time(make_index, make_predictions):
    truth = [(1, [0, 0, 10, 10]), (1, [50, 50, 60, 60])]
    found = [(1, 0.9, [0, 0, 10, 10]), (1, 0.8, [0, 0, 10, 9]), (1, 0.7, [50, 50, 60, 60]), (2, 0.6, [0, 0, 10, 10])]
    for marks in ({"difficult": [0]}, {"crowd": [0]}):
        assert judge(make_index, make_predictions, truth, found, **marks) == [IGNORED, IGNORED, RIGHT, WRONG]


def test_difficult_boxes_need_not_be_found(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 10, 10]), (1, [50, 50, 60, 60])]], num_classes=1, difficult=[0])
    predictions = make_predictions(index, [[(1, 0.7, [50, 50, 60, 60])]])
    assert voc_average_precision(index, predictions).mean == pytest.approx(100)


@pytest.mark.parametrize("method", ["area", "11point"])
def test_nothing_to_find_and_nothing_found(make_index, make_predictions, method):
    index = make_index([[(1, [0, 0, 10, 10])], []])
    found = voc_average_precision(index, make_predictions(index, [[], [(2, 0.9, [0, 0, 5, 5])]]), method=method)
    assert (found.mean, found.per_class["a"]) == (0, 0)
    assert math.isnan(found.per_class["b"])
    empty = make_index([[], []])
    assert math.isnan(voc_average_precision(empty, make_predictions(empty, [[], []]), method=method).mean)


def test_images_that_nobody_annotated_are_left_out(three_boxes):
    index, predictions = three_boxes
    unlooked = replace(index, annotated=np.array([True, False]))
    assert voc_average_precision(unlooked, predictions).mean == pytest.approx(100 * (1 / 2 + 1 / 3))


def test_scale_does_not_matter(draw_case):
    index, predictions = draw_case(9)
    doubled = [found._replace(boxes=found.boxes * 2) for found in predictions]
    larger = replace(index, boxes=index.boxes * 2)
    assert voc_average_precision(larger, doubled) == voc_average_precision(index, predictions)
