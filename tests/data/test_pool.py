"""The pool: what nobody paid for is forgotten, a person's word wins, pseudo boxes live until they are replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.pool import Pool, regions
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.ops.matching import IGNORED, assign
from boxcycle.types import MINED

MakeIndex = Callable[..., Index]
A, B, C = 101, 102, 103  # images 1..3; image 100 is labelled from the start


@pytest.fixture
def index(make_index: MakeIndex) -> Index:
    """Four images of 40 x 60; the first two objects overlap."""
    return make_index(
        [[(0, 0, 20, 20, 1), (30, 0, 50, 20, 2)], [(5, 5, 25, 25, 1)], [(10, 10, 30, 30, 3)], []],
    )


@pytest.fixture
def pool(index: Index) -> Pool:
    return Pool.start(index, np.array([0]))


def rows_of(index: Index, image_id: int) -> list[tuple[list[float], int, int, float, bool]]:
    """(box, label, source, weight, crowd) of each box of an image of a training index; empty if it is not in it."""
    assert index.sources is not None
    assert index.weights is not None
    found = []
    for position in np.flatnonzero(index.image_ids == image_id):
        for row in range(*index.boxes_of(position).indices(len(index.boxes))):
            box = index.boxes[row].tolist()
            found.append((box, index.labels[row], index.sources[row], index.weights[row], index.iscrowd[row]))
    return found


def test_what_nobody_paid_for_is_forgotten(index: Index, pool: Pool) -> None:
    assert pool.unlabelled.tolist() == [1, 2, 3]
    assert pool.index.boxes.tolist() == index.boxes[:2].tolist()
    assert pool.index.annotated.tolist() == [True, False, False, False]
    poisoned = replace(index, boxes=index.boxes.copy(), labels=index.labels.copy())
    poisoned.boxes[2:], poisoned.labels[2:] = 7.0, 2
    other = Pool.start(poisoned, np.array([0]))
    for name in ("boxes", "labels", "box_ids", "areas", "tags"):
        assert np.array_equal(getattr(other.index, name), getattr(pool.index, name))
    assert pool.training_index().image_ids.tolist() == [100]


def test_an_image_that_nobody_annotated_is_not_labelled_by_a_budget(index: Index) -> None:
    unknown = replace(index, annotated=np.array([False, True, True, True]))
    assert Pool.start(unknown, np.array([0, 1])).complete.tolist() == [False, True, False, False]


def test_answers_and_pseudo_boxes_in_the_training_index(pool: Pool) -> None:
    told = pool.with_human(regions([A, B], [[5, 5, 25, 25], [40, 0, 60, 20]], [1, 0]))
    mined = told.with_pseudo(
        regions([A, B], [[30, 0, 50, 20], [10, 10, 30, 30]], [2, 3], [0.5, 1.0]),
        ignored=regions([B, C], [[0, 30, 10, 40], [0, 0, 5, 5]], [0, 0]),
    )
    found = mined.training_index()
    assert found.image_ids.tolist() == [100, A, B]
    assert rows_of(found, A) == [
        ([5, 5, 25, 25], 1, 0, 1.0, False),
        ([30, 0, 50, 20], 2, MINED, 0.5, False),
    ]
    assert rows_of(found, B) == [
        ([10, 10, 30, 30], 3, MINED, 1.0, False),
        ([0, 30, 10, 40], 0, MINED, 1.0, True),
    ]
    assert rows_of(found, C) == []
    assert found.annotated.tolist() == [True, False, False]
    assert found.box_ids.tolist() == sorted(set(found.box_ids.tolist()))


def test_a_pseudo_box_trains_its_own_image_only(pool: Pool) -> None:
    """The released code writes pseudo boxes at the offset of other images."""
    boxes = [[float(image_id - 100), 0, 30, 30] for image_id in (C, A, B)]
    found = pool.with_pseudo(regions([C, A, B], boxes, [3, 1, 2])).training_index()
    for image_id, label in ((A, 1), (B, 2), (C, 3)):
        assert rows_of(found, image_id) == [([image_id - 100, 0, 30, 30], label, MINED, 1.0, False)]


def test_pseudo_boxes_are_replaced_and_not_kept(pool: Pool) -> None:
    first = pool.with_pseudo(regions([A], [[0, 0, 9, 9]], [1]))
    second = first.with_pseudo(regions([B], [[0, 0, 9, 9]], [1]))
    assert second.training_index().image_ids.tolist() == [100, B]
    assert first.training_index().image_ids.tolist() == [100, A]
    assert second.known().sources is not None
    assert not second.known().sources.any()  # what is exported has a person behind it


@pytest.mark.parametrize("label", [2, 0])
def test_a_person_wins(pool: Pool, label: int) -> None:
    pseudo = regions([A, A, B], [[5, 5, 25, 25], [30, 0, 50, 20], [5, 5, 25, 25]], [1, 1, 1])
    told = pool.with_human(regions([A], [[5, 5, 25, 24]], [label]))
    for order in (told.with_pseudo(pseudo, pseudo), pool.with_pseudo(pseudo, pseudo).with_human(told.answered)):
        assert order.pseudo.boxes[:, 0].tolist() == [30, 5]
        assert order.ignored.boxes[:, 0].tolist() == [30, 5]


def test_a_finished_image_is_complete_and_takes_no_pseudo_box(pool: Pool) -> None:
    done = pool.with_pseudo(regions([A], [[30, 0, 50, 20]], [1])).with_human(
        regions([A], [[5, 5, 25, 25]], [1]), finished=[A]
    )
    found = done.training_index()
    assert done.complete.tolist() == [True, True, False, False]
    assert rows_of(found, A) == [([5, 5, 25, 25], 1, 0, 1.0, False)]
    assert found.annotated.tolist() == [True, True]


def test_what_is_ignored_teaches_nothing_and_weights_reach_the_target(pool: Pool) -> None:
    mined = pool.with_pseudo(regions([A], [[0, 0, 20, 20]], [2], [0.25]), regions([A], [[30, 10, 50, 30]], [0]))
    dataset = DetectionDataset(mined.training_index(), make_transform(ResizeConfig(short=80, long=120), train=False))
    image, target = dataset[1]
    assert image.shape == (3, 80, 120)
    assert target["weight"].tolist() == [0.25, 1.0]
    assert target["source"].tolist() == [MINED, MINED]
    assert "image_labels" not in target
    candidates = torch.tensor([[2.0, 0, 40, 40], [62, 22, 98, 58], [0, 60, 20, 80]])
    found = assign(candidates, target, positive_iou=0.5, negative_iou=0.5)
    assert found.labels.tolist() == [2, IGNORED, 0]


def test_an_empty_pool(index: Index) -> None:
    whole = Pool.start(index, np.arange(4)).with_human(regions()).with_pseudo(regions())
    assert whole.unlabelled.tolist() == []
    assert whole.training_index().boxes.tolist() == index.boxes.tolist()
    assert len(Pool.start(index, np.zeros(0, dtype=np.int64)).training_index()) == 0
