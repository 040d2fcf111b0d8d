"""LVIS's two fields of an image: which of its hundreds of classes the annotators looked for in it.

``neg_category_ids``: looked for, none there; ``not_exhaustive_category_ids``: there, but not every one has a box.
Gupta, Dollár and Girshick, "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from boxcycle.data.check import Report
from boxcycle.data.index import Index
from boxcycle.data.numbers import integers
from boxcycle.data.records import Records

ABSENT, INCOMPLETE = "neg_category_ids", "not_exhaustive_category_ids"


def read_verified(images: list[dict[str, Any]], categories: dict[int, int], records: Records, report: Report) -> None:
    """Fills the verified classes of ``records``; in an image without ``neg_category_ids`` every class is verified.

    ``categories`` gives the label of each category id.
    """
    records.partly_verified = [image.get(ABSENT) is not None for image in images]
    for position in np.flatnonzero(records.partly_verified).tolist():
        where = records.where_image(position)
        for key, found in ((ABSENT, records.absent), (INCOMPLETE, records.incomplete)):
            value = images[position].get(key)
            labels = [] if value is None else _labels(value, key, categories, where, report)
            found.extend((position, label) for label in labels)


def _labels(value: Any, key: str, categories: dict[int, int], where: tuple[str, str], report: Report) -> list[int]:
    if not isinstance(value, list):
        report.add("structure", *where, f"{key} must be a list of category ids; it is {str(value)[:40]!r}")
        return []
    ids, known = integers(value)
    labels = [categories.get(identity, 0) if is_id else 0 for identity, is_id in zip(ids.tolist(), known, strict=True)]
    if 0 in labels:
        strange = str(value[labels.index(0)])[:40]
        report.add("class-unknown", *where, f"{key} has {strange!r}, which is not in the categories")
    return [label for label in labels if label]


def verified_fields(index: Index, image: int) -> dict[str, list[int]]:
    """The two fields of the image at a position, as far as they say something."""
    if not index.partly_verified[image]:
        return {}
    there = np.zeros(index.num_classes + 1, dtype=bool)
    there[index.labels[index.boxes_of(image)]] = True
    unverified = index.unverified_of(image)
    absent, incomplete = (
        index.category_ids[rows].tolist() for rows in (~unverified & ~there[1:], unverified & there[1:])
    )
    return {ABSENT: absent} | ({INCOMPLETE: incomplete} if incomplete else {})
