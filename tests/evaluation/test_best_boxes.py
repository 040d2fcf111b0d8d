"""Where the best boxes of tags lie."""

from collections.abc import Callable

import numpy as np
import pytest

from boxcycle.data.index import Index
from boxcycle.evaluation.best_boxes import best_box_places
from boxcycle.evaluation.corloc import corloc
from boxcycle.evaluation.predictions import Prediction

MakeIndex = Callable[..., Index]
OBJECTS = [(1, [10.0, 10, 50, 50]), (2, [60.0, 60, 90, 80])]


def found(image_id: int, rows: list[tuple[int, list[float]]]) -> Prediction:
    """Boxes by class, the first of a class the best."""
    return Prediction(
        image_id,
        np.array([box for _, box in rows], dtype=np.float32).reshape(-1, 4),
        np.array([label for label, _ in rows], dtype=np.int64),
        np.linspace(0.9, 0.5, len(rows), dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("box", "place"),
    [
        ([10, 10, 50, 50], "right"),
        ([10, 10, 50, 30], "right"),  # IoU one half
        ([10, 10, 50, 29], "part"),
        ([12, 12, 20, 20], "part"),
        ([0, 0, 70, 70], "too large"),
        ([60, 60, 90, 80], "other class"),
        ([62, 62, 70, 70], "other class"),
        ([0, 70, 20, 90], "elsewhere"),
        ([40, 40, 70, 70], "elsewhere"),  # a little of both
    ],
)
def test_each_place(make_index: MakeIndex, box: list[float], place: str) -> None:
    index = make_index([OBJECTS])
    places = best_box_places(index, [found(int(index.image_ids[0]), [(1, box), (2, OBJECTS[1][1])])])
    assert sum(places.values()) == 100
    assert places[place] == (100 if place == "right" else 50)


def test_the_best_box_of_the_class_counts_and_without_one_nothing_is_found(make_index: MakeIndex) -> None:
    index = make_index([OBJECTS])
    image = int(index.image_ids[0])
    places = best_box_places(index, [found(image, [(1, [0, 70, 20, 90]), (1, [10, 10, 50, 50])])])
    assert (places["elsewhere"], places["not found"], places["right"]) == (50, 50, 0)


def test_what_is_right_is_what_corloc_counts(make_index: MakeIndex) -> None:
    """With one tag an image the part that is right is CorLoc of the one class."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 60, (30, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(20, 40, (30, 2))], axis=1)
    index = make_index([[(1, box.tolist())] for box in boxes])
    predictions = [
        found(int(image_id), [(1, (box + rng.uniform(-8, 8, 4)).tolist())])
        for image_id, box in zip(index.image_ids, boxes, strict=True)
    ]
    assert best_box_places(index, predictions)["right"] == pytest.approx(corloc(index, predictions).per_class["a"])


def test_crowds_are_no_objects_and_without_tags_nothing_is_known(make_index: MakeIndex) -> None:
    index = make_index([[(1, [0.0, 0, 50, 50])]], crowd=[0])
    predictions = [found(int(index.image_ids[0]), [(1, [0, 0, 50, 50])])]
    assert all(np.isnan(value) for value in best_box_places(index, predictions).values())
