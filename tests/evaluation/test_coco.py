"""COCO's figures: by hand, against pycocotools, invariances and data that lacks something."""

from __future__ import annotations

import contextlib
import io
import math
import time
from dataclasses import replace

import numpy as np
import pytest

from boxcycle.data.index import Index
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import Prediction

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def oracle(index: Index, predictions: list[Prediction]) -> np.ndarray:
    """The twelve figures of pycocotools, in percent, NaN for its -1."""
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found = COCO(), []
    images = np.repeat(index.image_ids, np.diff(index.box_offsets))
    truth.dataset = {
        "images": [{"id": int(i)} for i in index.image_ids],
        "categories": [{"id": int(c)} for c in index.category_ids],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(images[row]),
                "category_id": int(index.category_ids[index.labels[row] - 1]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(index.areas[row]),
                "iscrowd": int(index.iscrowd[row]),
            }
            for row, (x1, y1, x2, y2) in enumerate(index.boxes.tolist())
        ],
    }
    for image_id, boxes, labels, scores in predictions:
        for (x1, y1, x2, y2), label, score in zip(boxes.tolist(), labels, scores.tolist(), strict=True):
            category = int(index.category_ids[label - 1])
            found.append(
                {"image_id": image_id, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, 100 * evaluation.stats)


@pytest.mark.parametrize("seed", range(8))
def test_pycocotools_agrees(draw_case, seed):
    index, predictions = draw_case(seed, images=15, crowd=0.0 if seed == 0 else 0.2)
    summary = coco_metrics(index, predictions).summary
    assert list(summary) == NAMES
    np.testing.assert_allclose(list(summary.values()), oracle(index, predictions), rtol=0, atol=1e-8)
    assert 0 < summary["AP"] < summary["AP50"] < 100


def test_pycocotools_agrees_with_more_than_a_hundred_detections_of_an_image(draw_case):
    index, predictions = draw_case(3, images=4)
    many = [
        found._replace(
            boxes=np.tile(found.boxes, (30, 1)) + np.float32(0.01),
            labels=np.tile(found.labels, 30),
            scores=np.tile(found.scores, 30),
        )
        for found in predictions
    ]
    assert min(len(found.scores) for found in many) > 100
    values = list(coco_metrics(index, many).summary.values())
    np.testing.assert_allclose(values, oracle(index, many), rtol=0, atol=1e-8)


def test_two_boxes_of_three_found_with_a_false_one_between(make_index, make_predictions):
    index = make_index([[(1, [10, 10, 50, 50]), (1, [60, 60, 90, 90])], [(1, [0, 0, 40, 40])]], num_classes=1)
    predictions = make_predictions(
        index, [[(1, 0.9, [10, 10, 50, 50]), (1, 0.8, [0, 60, 30, 90]), (1, 0.7, [60, 60, 90, 90])], []]
    )
    metrics = coco_metrics(index, predictions)
    # precision 1 up to recall 1/3 (34 of the 101 points), 2/3 up to recall 2/3 (the next 33), then 0
    assert metrics.summary["AP50"] == pytest.approx(100 * (34 + 33 * 2 / 3) / 101)
    assert metrics.summary["AP"] == pytest.approx(metrics.summary["AP50"])
    assert metrics.summary["AR100"] == pytest.approx(100 * 2 / 3)
    assert metrics.summary["AR1"] == pytest.approx(100 / 3)
    assert metrics.precision50[:, 0] == pytest.approx([100] * 34 + [200 / 3] * 33 + [0] * 34)


def test_table_of_classes(make_index, make_predictions):
    index = make_index([[(1, [10, 10, 50, 50]), (1, [60, 60, 90, 90]), (2, [0, 0, 9, 9])]], num_classes=3, crowd=[1])
    metrics = coco_metrics(index, make_predictions(index, [[(1, 0.9, [10, 10, 50, 50])]]))
    assert [(row.name, row.boxes) for row in metrics.per_class] == [("a", 1), ("b", 1), ("c", 0)]
    assert [row.ap50 for row in metrics.per_class[:2]] == pytest.approx([100, 0])
    assert math.isnan(metrics.per_class[2].ap)
    assert math.isnan(metrics.per_class[2].ap50)
    assert np.isnan(metrics.precision50[:, 2]).all()
    assert metrics.summary["AP50"] == pytest.approx(50)


def test_detections_in_a_crowd_are_neither_right_nor_wrong(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 90, 40]), (1, [10, 50, 50, 90])]], num_classes=1, crowd=[0])
    inside = [(1, 0.9, [5, 5, 25, 30]), (1, 0.8, [50, 5, 70, 30])]
    metrics = coco_metrics(index, make_predictions(index, [[*inside, (1, 0.5, [10, 50, 50, 90])]]))
    assert metrics.summary["AP"] == pytest.approx(100)


@pytest.mark.parametrize(("difficult", "expected"), [("ignore", 100.0), ("use", 100 * (51 + 50 * 2 / 3) / 101)])
def test_difficult_boxes_take_any_number_of_detections_when_ignored(make_index, make_predictions, difficult, expected):
    index = make_index([[(1, [0, 0, 40, 40]), (1, [50, 50, 90, 90])]], num_classes=1, difficult=[0])
    on_difficult = [(1, 0.9, [0, 0, 40, 40]), (1, 0.8, [0, 0, 40, 39])]
    predictions = make_predictions(index, [[*on_difficult, (1, 0.7, [50, 50, 90, 90])]])
    metrics = coco_metrics(index, predictions, difficult=difficult)
    assert metrics.summary["AP50"] == pytest.approx(expected)
    assert metrics.per_class[0].boxes == (1 if difficult == "ignore" else 2)


def test_a_small_detection_inside_a_large_difficult_box_is_wrong(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 80, 80]), (1, [85, 85, 99, 99])]], num_classes=1, difficult=[0])
    predictions = make_predictions(index, [[(1, 0.9, [10, 10, 20, 20]), (1, 0.7, [85, 85, 99, 99])]])
    assert coco_metrics(index, predictions).summary["AP50"] == pytest.approx(50)


def test_sizes_are_those_of_the_areas(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 60, 60])]], num_classes=1)
    predictions = make_predictions(index, [[(1, 0.9, [0, 0, 60, 60])]])
    assert coco_metrics(index, predictions).summary["APm"] == pytest.approx(100)
    of_segment = coco_metrics(replace(index, areas=np.array([900.0])), predictions).summary
    assert of_segment["APs"] == pytest.approx(100)
    assert math.isnan(of_segment["APl"])


def test_without_ground_truth_figures_are_nan(make_index, make_predictions):
    index = make_index([[], []])
    metrics = coco_metrics(index, make_predictions(index, [[(1, 0.9, [0, 0, 9, 9])], []]))
    assert all(math.isnan(value) for value in metrics.summary.values())
    assert metrics.warnings == ()
    assert all(math.isnan(value) for value in coco_metrics(make_index([]), []).summary.values())


def test_without_detections_figures_are_zero(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 60, 60]), (2, [0, 0, 9, 9])]])
    summary = coco_metrics(index, make_predictions(index, [[]])).summary
    assert summary["AP"] == summary["AP50"] == summary["AR100"] == 0
    assert math.isnan(summary["APl"])


def test_images_that_nobody_annotated_are_left_out(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 40, 40])], []], num_classes=1)
    predictions = make_predictions(index, [[(1, 0.5, [0, 0, 40, 40])], [(1, 0.9, [0, 0, 40, 40])]])
    assert coco_metrics(index, predictions).summary["AP"] == pytest.approx(50)
    unlooked = replace(index, annotated=np.array([True, False]))
    assert coco_metrics(unlooked, predictions).summary["AP"] == pytest.approx(100)
    assert coco_metrics(unlooked, predictions[:1]).summary["AP"] == pytest.approx(100)


def test_figures_do_not_depend_on_the_order_of_images_or_on_scale(draw_case):
    index, predictions = draw_case(11)
    values = list(coco_metrics(index, predictions).summary.values())
    order = np.random.default_rng(0).permutation(len(index))
    shuffled = coco_metrics(index.subset(order), predictions[::-1]).summary
    assert list(shuffled.values()) == pytest.approx(values, nan_ok=True)
    doubled = [found._replace(boxes=found.boxes * 2) for found in predictions]
    larger = coco_metrics(replace(index, boxes=index.boxes * 2, areas=index.areas * 4), doubled).summary
    regardless_of_size = [0, 1, 2, 6, 7, 8]
    assert np.array(list(larger.values()))[regardless_of_size] == pytest.approx(np.array(values)[regardless_of_size])


def perfect(index: Index, found: Prediction) -> Prediction:
    rows = index.boxes_of(index.image_ids.tolist().index(found.image_id))
    labels = index.labels[rows]
    return Prediction(found.image_id, index.boxes[rows].astype(np.float32), labels, np.ones(len(labels), np.float32))


def test_class_ids_that_disagree_are_pointed_out(draw_case):
    index, predictions = draw_case(5, num_classes=3, crowd=0)
    right = [perfect(index, found) for found in predictions]
    shifted = [found._replace(labels=found.labels % 3 + 1) for found in right]
    assert coco_metrics(index, right).warnings == ()
    (warning,) = coco_metrics(index, shifted).warnings
    assert "your class ids disagree" in warning
    elsewhere = [found._replace(boxes=found.boxes + 1000) for found in right]
    assert coco_metrics(index, elsewhere).warnings == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found[:-1], r"image 15 has no prediction \(1 of 2 images"),
        (lambda found: [*found, found[0]], "1 images are predicted more than once"),
        (lambda found: [*found, found[0]._replace(image_id=99)], "image 99 is predicted but not in the data set"),
        (lambda found: [found[0]._replace(labels=np.array([3])), found[1]], r"image 5 must be in 1..2; got 3"),
        (lambda found: [found[0]._replace(labels=np.array([0])), found[1]], r"image 5 must be in 1..2; got 0"),
        (lambda found: [found[0]._replace(scores=np.array([np.nan])), found[1]], "image 5 must be finite"),
        (lambda found: [found[0]._replace(boxes=np.zeros((2, 4))), found[1]], r"must be \[D, 4\].*got \[2, 4\]"),
    ],
)
def test_predictions_that_cannot_be(make_index, make_predictions, change, message):
    index = make_index([[(1, [0, 0, 40, 40])], []])
    predictions = make_predictions(index, [[(1, 0.5, [0, 0, 40, 40])], []])
    with pytest.raises(ValueError, match=message):
        coco_metrics(index, change(predictions))


def test_a_hundred_images_take_well_under_a_second_and_print_nothing(draw_case, capfd):
    index, predictions = draw_case(2, images=100, num_classes=8)
    coco_metrics(index, predictions)
    start = time.perf_counter()
    coco_metrics(index, predictions)
    assert time.perf_counter() - start < 0.5
    assert capfd.readouterr() == ("", "")
