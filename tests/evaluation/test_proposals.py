"""Class-agnostic figures: those of the official evaluation without categories, and a case counted by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boxcycle.data.index import Index, Strings
from boxcycle.data.one_class import one_class, with_boxes, without_any_box
from boxcycle.evaluation.predictions import Prediction, xywh
from boxcycle.evaluation.proposals import FIGURES, proposal_metrics


def index_of(boxes: list[np.ndarray], labels: list[list[int]]) -> Index:
    counts = [len(one) for one in boxes]
    total, images = sum(counts), len(boxes)
    every = np.concatenate(boxes).astype(np.float64)
    return Index(
        root=None,  # type: ignore[arg-type]
        class_names=("a", "b", "c"),
        category_ids=np.array([4, 7, 9]),
        image_ids=np.arange(images) + 10,
        file_names=Strings(f"{i}.jpg" for i in range(images)),
        image_sizes=np.full((images, 2), 200, dtype=np.int32),
        annotated=np.ones(images, dtype=bool),
        box_offsets=np.cumsum([0, *counts]).astype(np.int64),
        boxes=every,
        labels=np.array([label for one in labels for label in one], dtype=np.int64),
        box_ids=np.arange(total) + 1,
        areas=(every[:, 2:] - every[:, :2]).prod(1),
        iscrowd=np.zeros(total, dtype=bool),
        difficult=np.zeros(total, dtype=bool),
        segmentations=Strings("" for _ in range(total)),
        tagged=np.zeros(images, dtype=bool),
        tag_offsets=np.zeros(images + 1, dtype=np.int64),
        tags=np.zeros(0, dtype=np.int64),
    )


def drawn(seed: int) -> tuple[Index, list[Prediction]]:
    """Objects of three classes, found with noise and with labels that mean nothing."""
    rng = np.random.default_rng(seed)
    boxes, labels, found = [], [], []
    for image in range(6):
        count = int(rng.integers(1, 6))
        corner, side = rng.uniform(0, 120, (count, 2)), rng.uniform(20, 70, (count, 2))
        truth = np.concatenate([corner, corner + side], 1)
        places = rng.uniform(0, 100, (8, 2))
        wrong = np.concatenate([places, places + 40], 1)
        noisy = np.concatenate([truth + rng.normal(0, 4, truth.shape), wrong])
        boxes.append(truth)
        labels.append(rng.integers(1, 4, count).tolist())
        scores = rng.permutation(len(noisy)).astype(np.float32) / len(noisy)
        found.append(Prediction(image + 10, noisy.astype(np.float32), rng.integers(1, 4, len(noisy)), scores))
    return index_of(boxes, labels), found


def test_two_of_three_objects_are_found_and_labels_do_not_matter() -> None:
    truth = np.array([[10.0, 10, 50, 50], [60, 60, 100, 100], [110, 110, 150, 150]])
    index = index_of([truth], [[1, 2, 3]])
    boxes = np.array([[60, 60, 100, 100], [10, 10, 50, 50], [0, 150, 40, 190]], dtype=np.float32)
    found = Prediction(10, boxes, np.array([3, 3, 1]), np.array([0.9, 0.5, 0.7], dtype=np.float32))
    figures = proposal_metrics(index, [found])
    assert tuple(figures) == FIGURES
    assert figures["AR100"] == pytest.approx(200 / 3, abs=1e-6)
    assert figures["AR1"] == pytest.approx(100 / 3, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_official_evaluation_without_categories_says_the_same(seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    index, found = drawn(seed)
    images = [{"id": int(i), "height": 200, "width": 200} for i in index.image_ids]
    owners = np.repeat(index.image_ids, np.diff(index.box_offsets))
    annotations = [
        {"id": k + 1, "image_id": int(owners[k]), "category_id": int(index.category_ids[index.labels[k] - 1]),
         "bbox": xywh(index.boxes)[k].tolist(), "area": float(index.areas[k]), "iscrowd": 0}
        for k in range(len(index.boxes))
    ]  # fmt: skip
    truth = COCO()
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": i} for i in (4, 7, 9)]}
    truth.createIndex()
    results = [
        {"image_id": p.image_id, "category_id": 4, "bbox": box.tolist(), "score": float(score)}
        for p in found
        for box, score in zip(xywh(p.boxes), p.scores, strict=True)
    ]
    official = COCOeval(truth, truth.loadRes(results), "bbox")
    official.params.useCats = 0
    official.evaluate()
    official.accumulate()
    official.summarize()
    figures = proposal_metrics(index, found)
    for name, position in zip(FIGURES, (0, 1, 2, 6, 7, 8), strict=True):
        assert figures[name] == pytest.approx(100 * official.stats[position], abs=1e-6), name


def test_other_boxes_in_the_place_of_what_is_known() -> None:
    index, _ = drawn(0)
    alone = without_any_box(index)
    assert len(alone.boxes) == 0
    assert not alone.annotated.any()
    assert not len(alone.tags)
    offsets = np.array([0, 2, 2, 2, 3, 3, 3])
    mine = with_boxes(replace(index, difficult=np.ones_like(index.difficult)), offsets, np.array([[0, 0, 4, 5.0]] * 3))
    assert mine.annotated.tolist() == [True, False, False, True, False, False]
    assert mine.labels.tolist() == [1, 1, 1]
    assert mine.areas.tolist() == [20, 20, 20]
    assert len(mine.subset([3, 0]).boxes) == 3
    assert one_class(index).labels.tolist() == [1] * len(index.boxes)
    assert one_class(index).boxes is index.boxes
