"""How long COCO's figures take here and with pycocotools, measured in one run on the same detections.

    python benchmarks/evaluation.py --images 1000 --classes 20

Both start from what a program has after detecting: here an index and arrays, there lists of dictionaries (making
them is not counted). Rounds alternate; the table shows medians. Ends with an error if the figures differ.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from boxcycle.data.index import Index, Strings
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import Prediction, xywh
from boxcycle.evaluation.voc import voc_average_precision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    index, predictions = make_case(options.images, options.classes)
    truth, found = as_dictionaries(index, predictions)
    values: dict[str, Any] = {}
    ways: dict[str, Callable[..., Any]] = {
        "pycocotools": pycocotools,
        "boxcycle": lambda *_: np.array(list(coco_metrics(index, predictions).summary.values())),
        "boxcycle, VOC area": lambda *_: voc_average_precision(index, predictions).mean,
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            fresh = copy.deepcopy((truth, found))  # pycocotools writes into what it is given
            gc.collect()
            gc.disable()  # as timeit does: else each way pays for the objects that the other one keeps
            start = time.perf_counter()
            values[name] = way(*fresh)
            seconds[name].append(time.perf_counter() - start)
            gc.enable()
    np.testing.assert_allclose(values["boxcycle"], values["pycocotools"], rtol=0, atol=1e-8)
    print(f"{options.images} images, {len(index.boxes)} boxes, {len(found)} detections, {options.classes} classes")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; all twelve figures equal")
    reference = statistics.median(seconds["pycocotools"])
    for name, times in seconds.items():
        print(f"{name:20} {statistics.median(times):8.3f} s   {reference / statistics.median(times):6.1f} x")


def make_case(images: int, classes: int) -> tuple[Index, list[Prediction]]:
    """Seven objects and a hundred detections an image, most of them wrong: what an untuned detector gives."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(7, images)
    boxes = draw_boxes(rng, int(counts.sum()))
    index = Index(
        root=Path("nowhere"),
        class_names=tuple(f"class {k}" for k in range(classes)),
        category_ids=np.arange(1, classes + 1),
        image_ids=np.arange(1, images + 1),
        file_names=Strings(f"{i}.jpg" for i in range(images)),
        image_sizes=np.full((images, 2), 640, dtype=np.int32),
        annotated=np.ones(images, dtype=bool),
        box_offsets=np.concatenate([[0], np.cumsum(counts)]),
        boxes=boxes,
        labels=rng.integers(1, classes + 1, len(boxes)),
        box_ids=np.arange(len(boxes)),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        iscrowd=rng.random(len(boxes)) < 0.02,
        difficult=np.zeros(len(boxes), dtype=bool),
        segmentations=Strings("" for _ in boxes),
        tagged=np.zeros(images, dtype=bool),
        tag_offsets=np.zeros(images + 1, dtype=np.int64),
        tags=np.zeros(0, dtype=np.int64),
    )
    return index, [detect(rng, index, position) for position in range(images)]


def detect(rng: np.random.Generator, index: Index, position: int) -> Prediction:
    rows = index.boxes_of(position)
    near = np.repeat(index.boxes[rows], 4, axis=0)
    near = near + rng.normal(0, 0.1, near.shape) * np.tile(near[:, 2:] - near[:, :2], 2)
    near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
    boxes = np.concatenate([near, draw_boxes(rng, max(0, 100 - len(near)))])[:100]
    labels = rng.integers(1, index.num_classes + 1, len(boxes))
    labels[: len(near)] = np.repeat(index.labels[rows], 4)[:100]
    scores = np.sort(rng.random(len(boxes)))[::-1]
    return Prediction(int(index.image_ids[position]), boxes.astype(np.float32), labels, scores.astype(np.float32))


def draw_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corners = rng.uniform(0, 500, (count, 2))
    return np.concatenate([corners, corners + np.exp(rng.uniform(np.log(10), np.log(300), (count, 2)))], axis=1)


def as_dictionaries(index: Index, predictions: list[Prediction]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    images = np.repeat(index.image_ids, np.diff(index.box_offsets))
    columns = (images, index.labels, xywh(index.boxes), index.areas, index.iscrowd.astype(int))
    names = ("image_id", "category_id", "bbox", "area", "iscrowd")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    annotations = [dict(zip(names, row, strict=True), id=number) for number, row in enumerate(rows, start=1)]
    truth = {
        "images": [{"id": int(i)} for i in index.image_ids],
        "categories": [{"id": int(c)} for c in index.category_ids],
        "annotations": annotations,
    }
    found = [
        {"image_id": each.image_id, "category_id": label, "bbox": box, "score": score}
        for each in predictions
        for label, box, score in zip(each.labels.tolist(), xywh(each.boxes).tolist(), each.scores.tolist(), strict=True)
    ]
    return truth, found


def pycocotools(truth: dict[str, Any], found: list[dict[str, Any]]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        dataset = COCO()
        dataset.dataset = truth
        dataset.createIndex()
        evaluation = COCOeval(dataset, dataset.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats


if __name__ == "__main__":
    main()
