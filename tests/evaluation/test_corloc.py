"""CorLoc by hand: hits, misses, difficult boxes."""

from collections.abc import Callable

import numpy as np
import pytest

from boxcycle.data.index import Index
from boxcycle.evaluation.corloc import corloc
from boxcycle.evaluation.predictions import Prediction

MakeIndex = Callable[..., Index]

GT = {
    "im1": {"cat": [[10, 10, 59, 59]], "dog": [[100, 20, 149, 99]]},
    "im2": {"cat": [[0, 0, 29, 29], [50, 50, 99, 99]]},
    "im3": {"dog": [[5, 5, 44, 84]]},
    "im4": {"cat": [[20, 20, 39, 39]]},
}
TOP = {
    "im1": {"cat": [10, 10, 59, 34], "dog": [100, 20, 149, 98]},
    "im2": {"cat": [48, 52, 101, 99]},
    "im3": {"dog": [0, 40, 44, 130]},
    "im4": {"cat": [200, 200, 220, 220]},
}
LABEL = {"cat": 1, "dog": 2}


def half_open(box: list[float]) -> list[float]:
    """The last pixel counts in the example."""
    return [box[0], box[1], box[2] + 1, box[3] + 1]


def found(image_id: int, rows: list[tuple[int, list[float], float]]) -> Prediction:
    return Prediction(
        image_id,
        np.array([box for _, box, _ in rows], dtype=np.float32).reshape(-1, 4),
        np.array([label for label, _, _ in rows], dtype=np.int64),
        np.array([score for _, _, score in rows], dtype=np.float32),
    )


def test_worked_example(make_index: MakeIndex) -> None:
    images = [[(LABEL[name], half_open(box)) for name, boxes in its.items() for box in boxes] for its in GT.values()]
    last = sum(len(its) for its in images) - 1
    index = make_index(images, class_names=("cat", "dog"), difficult=[last])
    predictions = [
        found(int(image_id), [(LABEL[name], half_open(box), 0.5) for name, box in its.items()])
        for image_id, its in zip(index.image_ids, TOP.values(), strict=True)
    ]
    everything = corloc(index, predictions)
    assert everything.per_class == pytest.approx({"cat": 200 / 3, "dog": 50})
    assert everything.mean == pytest.approx(100 * 0.5833333)
    easy = corloc(index, predictions, difficult="skip")
    assert easy.per_class == pytest.approx({"cat": 100, "dog": 50})
    assert easy.mean == pytest.approx(75)


def test_only_the_best_box_of_the_class_counts(make_index: MakeIndex) -> None:
    index = make_index([[(1, [0, 0, 50, 50])]])
    right, wrong = [0, 0, 50, 50], [60, 60, 90, 90]
    image = int(index.image_ids[0])
    assert corloc(index, [found(image, [(1, right, 0.9), (1, wrong, 0.8), (2, wrong, 1.0)])]).mean == 100
    assert corloc(index, [found(image, [(1, right, 0.8), (1, wrong, 0.9)])]).mean == 0
    assert corloc(index, [found(image, [(2, right, 0.9)])]).mean == 0
    assert corloc(index, [found(image, [])]).mean == 0


def test_a_difficult_box_counts_as_a_hit_beside_an_easy_one(make_index: MakeIndex) -> None:
    index = make_index([[(1, [0, 0, 50, 50]), (1, [60, 60, 90, 90])]], difficult=[1])
    predictions = [found(int(index.image_ids[0]), [(1, [60, 60, 90, 90], 0.9)])]
    assert corloc(index, predictions).mean == corloc(index, predictions, difficult="skip").mean == 100


def test_crowds_and_classes_nowhere_do_not_count(make_index: MakeIndex) -> None:
    index = make_index([[(1, [0, 0, 50, 50])], [(2, [0, 0, 9, 9])]], crowd=[1])
    predictions = [found(int(image_id), [(1, [0, 0, 50, 50], 0.5)]) for image_id in index.image_ids]
    result = corloc(index, predictions)
    assert result.mean == result.per_class["a"] == 100
    assert np.isnan(result.per_class["b"])


def test_a_set_without_boxes_has_no_figure(make_index: MakeIndex) -> None:
    index = make_index([[]], annotated=np.array([False]))
    assert np.isnan(corloc(index, []).mean)
