"""A small data set on disk, and run folders on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxcycle.data.index import Index, Strings
from boxcycle.engine.metrics import MetricsFile
from boxcycle.evaluation.predictions import Prediction, write_predictions

SIZES = ((60, 90), (80, 50), (64, 64), (40, 120))  # (height, width)
BOXES = (  # of each image: label and box
    [(1, [5, 5, 45, 35]), (2, [50, 20, 80, 50])],
    [(1, [10, 10, 40, 60])],
    [],
    [(2, [0, 0, 30, 30]), (2, [60, 5, 100, 35]), (1, [100, 10, 118, 38])],
)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Four images with six boxes, the last one difficult, of two classes whose names need escaping."""
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        pixels = rng.integers(100, 160, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{number}.png")
    rows = [row for image in BOXES for row in image]
    boxes = np.array([box for _, box in rows], dtype=np.float64)
    return Index(
        root=images,
        class_names=("<b>cat</b>", "dog & fox"),
        category_ids=np.array([3, 8]),
        image_ids=np.array([11, 12, 13, 14]),
        file_names=Strings(f"{number}.png" for number in range(4)),
        image_sizes=np.array(SIZES, dtype=np.int32),
        annotated=np.ones(4, dtype=bool),
        box_offsets=np.cumsum([0, *map(len, BOXES)]),
        boxes=boxes,
        labels=np.array([label for label, _ in rows]),
        box_ids=np.arange(6),
        areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
        iscrowd=np.zeros(6, dtype=bool),
        difficult=np.array([False] * 5 + [True]),
        segmentations=Strings([""] * 6),
        tagged=np.zeros(4, dtype=bool),
        tag_offsets=np.zeros(5, dtype=np.int64),
        tags=np.zeros(0, dtype=np.int64),
    )


@pytest.fixture
def detect(index: Index) -> Callable[..., list[Prediction]]:
    """``detect(missed={(image, box)})``: every annotated box is found with score 0.9, but for those that are missed."""

    def make(missed: set[tuple[int, int]] = frozenset()) -> list[Prediction]:  # type: ignore[assignment]
        found = []
        for number, rows in enumerate(BOXES):
            kept = [row for box, row in enumerate(rows) if (number, box) not in missed]
            found.append(
                Prediction(
                    int(index.image_ids[number]),
                    np.array([box for _, box in kept], dtype=np.float32).reshape(-1, 4),
                    np.array([label for label, _ in kept], dtype=np.int64),
                    np.full(len(kept), 0.9, dtype=np.float32),
                )
            )
        return found

    return make


@pytest.fixture
def make_run(tmp_path: Path, index: Index) -> Callable[..., Path]:
    """``make_run(name, predictions)``: a run folder with all files that a report reads."""

    def make(name: str, predictions: list[Prediction]) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        write_predictions(folder / "predictions.json", index, predictions)
        metrics = MetricsFile(folder / "metrics.csv", 0)
        for step in range(10, 60, 10):
            row = {"loss": 5.0 / step, "class": 2.0 / step, "class_accuracy": 0.5, "images_per_second": step / 10}
            metrics.add(step, row)
        metrics.add(50, {"AP": 40.0, "AP50": 60.0, "APl": float("nan")})
        (folder / "config.yaml").write_text("fit:\n  steps: 50\n")
        (folder / "env.json").write_text('{"python": "3.12"}\n')
        return folder

    return make
