"""Small data sets and predictions, drawn or written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxcycle.data.index import Index, Strings
from boxcycle.evaluation.predictions import Prediction

MakeIndex = Callable[..., Index]


@pytest.fixture(scope="session")
def make_index() -> MakeIndex:
    """``make_index([[(label, box), ...], ...], crowd={row}, difficult={row})``: an index from boxes written by hand."""

    def make(
        images: Sequence[Sequence[tuple[int, Sequence[float]]]],
        *,
        num_classes: int = 2,
        crowd: Sequence[int] = (),
        difficult: Sequence[int] = (),
        **changed: Any,
    ) -> Index:
        rows = [row for image in images for row in image]
        boxes = np.array([box for _, box in rows], dtype=np.float64).reshape(-1, 4)
        fields = {
            "root": Path("nowhere"),
            "class_names": tuple("abcdefghij"[:num_classes]),
            "category_ids": np.arange(num_classes) * 3 + 7,
            "image_ids": np.arange(len(images)) * 10 + 5,
            "file_names": Strings(f"{i}.jpg" for i in range(len(images))),
            "image_sizes": np.full((len(images), 2), 100, dtype=np.int32),
            "annotated": np.ones(len(images), dtype=bool),
            "box_offsets": np.cumsum([0, *map(len, images)]),
            "boxes": boxes,
            "labels": np.array([label for label, _ in rows], dtype=np.int64),
            "box_ids": np.arange(len(rows)),
            "areas": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            "iscrowd": np.isin(np.arange(len(rows)), crowd),
            "difficult": np.isin(np.arange(len(rows)), difficult),
            "segmentations": Strings("" for _ in rows),
            "tagged": np.zeros(len(images), dtype=bool),
            "tag_offsets": np.zeros(len(images) + 1, dtype=np.int64),
            "tags": np.zeros(0, dtype=np.int64),
        }
        return Index(**(fields | changed))

    return make


@pytest.fixture(scope="session")
def make_predictions() -> Callable[..., list[Prediction]]:
    """``make_predictions(index, [[(label, score, box), ...], ...])``: one list of detections for each image."""

    def make(index: Index, images: Sequence[Sequence[tuple[int, float, Sequence[float]]]]) -> list[Prediction]:
        return [
            Prediction(
                int(image_id),
                np.array([box for _, _, box in found], dtype=np.float32).reshape(-1, 4),
                np.array([label for label, _, _ in found], dtype=np.int64),
                np.array([score for _, score, _ in found], dtype=np.float32),
            )
            for image_id, found in zip(index.image_ids, images, strict=True)
        ]

    return make


@pytest.fixture(scope="session")
def draw_case(make_index: MakeIndex) -> Callable[..., tuple[Index, list[Prediction]]]:
    """``draw_case(seed, images=.., num_classes=..)``: random objects, crowds, difficult ones; noisy detections."""

    def draw(
        seed: int, *, images: int = 12, num_classes: int = 4, crowd: float = 0.1, difficult: float = 0.0
    ) -> tuple[Index, list[Prediction]]:
        rng = np.random.default_rng(seed)
        truth = [_draw_objects(rng, num_classes) for _ in range(images)]
        rows = sum(map(len, truth))
        index = make_index(
            truth,
            num_classes=num_classes,
            crowd=np.flatnonzero(rng.random(rows) < crowd),
            difficult=np.flatnonzero(rng.random(rows) < difficult),
            image_ids=rng.permutation(images) + 1,
        )
        return index, [_detect(rng, index, position) for position in range(images)]

    return draw


def _draw_objects(rng: np.random.Generator, num_classes: int) -> list[tuple[int, list[float]]]:
    count = int(rng.integers(0, 9))
    sides = np.exp(rng.uniform(np.log(8), np.log(250), (count, 2)))
    corners = rng.uniform(0, 300, (count, 2))
    labels = rng.integers(1, num_classes + 1, count)
    boxes = np.concatenate([corners, corners + sides], axis=1)
    return [(int(label), box.tolist()) for label, box in zip(labels, boxes, strict=True)]


def _detect(rng: np.random.Generator, index: Index, position: int) -> Prediction:
    rows = index.boxes_of(position)
    repeats = rng.integers(0, 4, rows.stop - rows.start)
    boxes = np.repeat(index.boxes[rows], repeats, axis=0)
    sides = boxes[:, 2:] - boxes[:, :2]
    boxes = boxes + rng.normal(0, 0.08, boxes.shape) * np.concatenate([sides, sides], axis=1)
    labels = np.repeat(index.labels[rows], repeats)
    wrong = rng.random(len(labels)) < 0.2
    labels[wrong] = rng.integers(1, index.num_classes + 1, wrong.sum())
    noise = rng.uniform(0, 200, (5, 2))
    boxes = np.concatenate([boxes, np.concatenate([noise, noise + rng.uniform(5, 100, (5, 2))], axis=1)])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.concatenate([labels, rng.integers(1, index.num_classes + 1, 5)])
    scores = np.round(rng.random(len(labels)), 1)  # many ties
    order = np.argsort(-scores, kind="stable")
    return Prediction(
        int(index.image_ids[position]),
        boxes[order].astype(np.float32),
        labels[order],
        scores[order].astype(np.float32),
    )
