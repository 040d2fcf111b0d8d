"""Writing YOLO: boxes and single polygons as fractions of the image, and what the format has no place for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boxcycle import yaml12
from boxcycle.data.check import Finding
from boxcycle.data.images import ids_from_names
from boxcycle.data.index import Index

CLOSE = 0.05  # pixels between a box and the extent of its polygon, which replaces it


def write(index: Index, folder: Path, split: str) -> list[Finding]:
    """Write ``labels/{split}`` and the split's line in ``data.yaml``; images belong into ``images/{split}``.

    Crowds are left out: a reader would take them for single objects. An image with a polygon has only lines of polygons
    (boxes as rectangles), since mixed files are read wrongly elsewhere. Returns what the format cannot hold.
    """
    for image, name in enumerate(index.file_names):
        if index.annotated[image]:
            file = (folder / "labels" / split / name).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in _lines(index, image)), encoding="utf-8")
    _write_config(index, folder / "data.yaml", split)
    return _losses(index, folder / "data.yaml", split)


def _lines(index: Index, image: int) -> list[str]:
    height, width = index.image_sizes[image].tolist()
    rows = [row for row in range(*index.boxes_of(image).indices(len(index.boxes))) if not index.iscrowd[row]]
    polygons = {row: polygon for row in rows if (polygon := _polygon(index, row))}
    lines = []
    for row in rows:
        x1, y1, x2, y2 = index.boxes[row].tolist()
        numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        if polygons:
            numbers = polygons.get(row) or [x1, y1, x2, y1, x2, y2, x1, y2]
        fractions = [number / (height if place % 2 else width) for place, number in enumerate(numbers)]
        lines.append(" ".join([str(index.labels[row] - 1), *(f"{fraction:.10g}" for fraction in fractions)]))
    return lines


def _polygon(index: Index, row: int) -> list[float] | None:
    """The object's polygon if it is a single one around its box."""
    parts: Any = json.loads(index.segmentations[row] or "null")
    if not isinstance(parts, list) or len(parts) != 1:
        return None
    points = np.asarray(parts[0], dtype=np.float64).reshape(-1, 2)
    extent = np.concatenate([points.min(0), points.max(0)])
    return parts[0] if np.abs(extent - index.boxes[row]).max() <= CLOSE else None


def _write_config(index: Index, file: Path, split: str) -> None:
    data = yaml12.load(file.read_text(encoding="utf-8")) if file.exists() else {}
    data[split] = f"images/{split}"
    data["names"] = dict(enumerate(index.class_names))
    if index.category_ids.tolist() != list(range(index.num_classes)):
        data["category_ids"] = index.category_ids.tolist()
    file.write_text(yaml12.dump(data), encoding="utf-8")


def _losses(index: Index, file: Path, split: str) -> list[Finding]:
    single = [bool(_polygon(index, row)) for row in range(len(index.boxes))]
    segments = sum(bool(text) and not kept for text, kept in zip(index.segmentations, single, strict=True))
    lost = {
        "crowd regions, which are left out": int(index.iscrowd.sum()),
        "'difficult' marks": int(index.difficult.sum()),
        "segmentations of several parts, as RLE or wider than their box (the boxes stay)": segments,
        "tags of images": int(index.tagged.sum()),
        "lists of an image's verified classes; all of its classes count as verified": int(index.partly_verified.sum()),
        "image ids": _changed(index.image_ids.tolist(), ids_from_names(list(index.file_names))),
        "annotation ids": _changed(index.box_ids.tolist(), range(1, len(index.boxes) + 1)),
    }
    if index.annotated.any():
        lost["images that are not annotated, which become images without objects"] = int((~index.annotated).sum())
    return [
        Finding("format-cannot-hold", "warning", str(file), f"split {split}", f"no place for {count:,} {what}", count)
        for what, count in lost.items()
        if count
    ]


def _changed(ids: Sequence[int], would_be: Sequence[int]) -> int:
    return sum(old != new for old, new in zip(ids, would_be, strict=True))
