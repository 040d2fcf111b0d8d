"""What the tests of the data room share: an index made by hand, with its image files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxcycle.data.index import Index, Strings

Box = tuple[float, float, float, float, int]


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., Index]:
    """``make_index(boxes)``: an image a list of (x1, y1, x2, y2, label); random pixels unless ``files=False``."""

    def make(
        boxes: Sequence[Sequence[Box]],
        *,
        size: tuple[int, int] | Sequence[tuple[int, int]] = (40, 60),
        num_classes: int = 3,
        segmentations: Sequence[str] | None = None,
        files: bool = True,
    ) -> Index:
        flat = np.asarray([box for image in boxes for box in image], dtype=np.float64).reshape(-1, 5)
        sizes = np.broadcast_to(np.asarray(size, dtype=np.int32), (len(boxes), 2)).copy()
        names = [f"{i:04d}.png" for i in range(len(boxes))]
        count, offsets = len(flat), np.cumsum([0, *(len(image) for image in boxes)])
        if files:
            for name, image_size, seed in zip(names, sizes, range(len(names)), strict=True):
                pixels = np.random.default_rng(seed).integers(0, 256, (*image_size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / name)
        return Index(
            root=tmp_path,
            class_names=tuple(f"class{k}" for k in range(1, num_classes + 1)),
            category_ids=np.arange(1, num_classes + 1),
            image_ids=np.arange(len(boxes)) + 100,
            file_names=Strings(names),
            image_sizes=sizes,
            annotated=np.ones(len(boxes), dtype=bool),
            box_offsets=offsets,
            boxes=flat[:, :4],
            labels=flat[:, 4].astype(np.int64),
            box_ids=np.arange(count) + 1,
            areas=(flat[:, 2] - flat[:, 0]) * (flat[:, 3] - flat[:, 1]),
            iscrowd=np.zeros(count, dtype=bool),
            difficult=np.zeros(count, dtype=bool),
            segmentations=Strings(segmentations or [""] * count),
            tagged=np.zeros(len(boxes), dtype=bool),
            tag_offsets=np.zeros(len(boxes) + 1, dtype=np.int64),
            tags=np.zeros(0, dtype=np.int64),
        )

    return make
