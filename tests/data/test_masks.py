from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as oracle

from boxcycle.data.check import DataError
from boxcycle.data.masks import decode, encode, extent, fault

SQUARE = [[2, 1, 6, 1, 6, 4, 2, 4]]  # x 2..6, y 1..4


def test_a_polygon_covers_its_pixels() -> None:
    mask = decode(json.dumps(SQUARE), 5, 8)
    assert mask.dtype == bool
    assert np.argwhere(mask).min(0).tolist() == [1, 2]
    assert np.argwhere(mask).max(0).tolist() == [3, 5]
    assert mask.sum() == 12


def test_several_polygons_are_one_mask() -> None:
    both = decode(json.dumps([*SQUARE, [0, 0, 2, 0, 2, 2, 0, 2]]), 5, 8)
    assert both.sum() == 12 + 4
    assert both[0, 0]
    assert both[3, 5]


def test_plain_run_lengths_go_down_the_columns() -> None:
    mask = decode('{"size": [2, 3], "counts": [1, 3, 2]}', 2, 3)
    assert mask.tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools before numpy 2
@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (40, 60)])
def test_encoding_is_undone_and_reads_as_coco_does(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.3
    text = encode(mask)
    assert (decode(text, *shape) == mask).all()
    assert (oracle.decode(json.loads(text)) == mask).all()


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools before numpy 2
def test_polygons_are_drawn_as_coco_draws_them() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        polygons = [rng.uniform(-5, 45, 2 * rng.integers(3, 9)).round(2).tolist() for _ in range(rng.integers(1, 3))]
        expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, 30, 40)))
        assert (decode(json.dumps(polygons), 30, 40) == expected).all()


def test_extents() -> None:
    assert extent(json.dumps(SQUARE), 5, 8) == (2, 1, 6, 4)
    assert extent(encode(decode(json.dumps(SQUARE), 5, 8)), 5, 8) == (2, 1, 6, 4)
    assert extent(encode(np.zeros((5, 8), dtype=bool)), 5, 8) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("all", "neither a list of polygons nor"),
        ({"size": [5, 8]}, "neither a list of polygons nor"),
        ([], "has no polygon"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, "6"]], "finite pixel coordinates"),
        ([[1, 2, 3, 4, 5, math.inf]], "finite pixel coordinates"),
        ([[1, 2, 3, 4, 5, 1e9]], "finite pixel coordinates"),
        ([[1, 2, math.nan, 4, 5, 6]], "finite pixel coordinates"),
        ([[math.nan, 2, 3, 4, 5, 10**400]], "finite pixel coordinates"),
        ({"size": [8, 5], "counts": [40]}, r"must be \[5, 8\] \(height, width\), as the image; it is \[8, 5\]"),
        ({"size": [5, 8], "counts": [-1, 41]}, "non-negative integers"),
        ({"size": [5, 8], "counts": [39]}, "must add up to 40, the pixels of the image; they add up to 39"),
        ({"size": [5, 8], "counts": "garbage"}, r"RLE of an image of 5 x 8 \(height x width\) is malformed"),
    ],
)
def test_malformed_segmentations_are_refused_in_a_sentence(value: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        decode(json.dumps(value), 5, 8)


def test_a_sound_segmentation_has_no_fault() -> None:
    assert fault(SQUARE, 5, 8) is None
    assert fault({"size": [5, 8], "counts": [40]}, 5, 8) is None
