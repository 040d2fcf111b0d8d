"""VOC's masks: PNG files in ``SegmentationObject``, objects numbered from 1, and ``SegmentationClass``; 255 is void."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from boxcycle.data.masks import decode, encode

VOID = 255
INSIDE = 0.8  # of a mask must lie in the box of its object; hand-drawn masks stick out a little
MARGIN = 2.0  # pixels


def object_masks(
    base: Path, stem: str, boxes: Sequence[Sequence[float]], labels: Sequence[int] | None
) -> list[str] | None:
    """The RLE of each object of an image ("" for one without a visible pixel), or None if the image has no mask file.

    VOC numbers masks in the order of the XML's objects. Files made by converters often do not, so the order is only
    believed if it fits the boxes about as well as the best assignment does; ``labels``, where classes are numbered as
    in ``classes.txt``, narrow that down. Shapes: boxes [N, 4] xyxy, original frame. Raises ``ValueError`` or
    ``OSError`` if a file is no picture of numbers.
    """
    file = base / "SegmentationObject" / f"{stem}.png"
    if not file.is_file():
        return None
    numbers = _read(file)
    masks = [numbers == number for number in np.unique(numbers) if number not in (0, VOID)]
    wanted = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    fits = np.array([_fit(mask, wanted) for mask in masks]).reshape(len(masks), len(wanted))
    in_order = _in_order([int(number) for number in np.unique(numbers) if number not in (0, VOID)], fits)
    class_file = base / "SegmentationClass" / f"{stem}.png"
    if labels is not None and class_file.is_file():
        fits = np.where(_same_class(masks, _read(class_file), np.asarray(labels)), fits, 0)
    pairs = _greedy(fits)
    if in_order and sum(fits[pair] for pair in in_order) >= 0.9 * sum(fits[pair] for pair in pairs):
        pairs = in_order
    found = {box: encode(masks[mask]) for mask, box in pairs}
    return [found.get(box, "") for box in range(len(wanted))]


def _read(file: Path) -> NDArray[np.int64]:
    with Image.open(file) as image:
        if image.mode not in ("P", "L", "I", "I;16"):
            raise ValueError(f"must be a palette or grey PNG of object numbers; its mode is {image.mode}")
        return np.asarray(image).astype(np.int64)


def _fit(mask: NDArray[np.bool_], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """How well the extent of a mask fits each box (IoU), 0 where much of the mask lies outside."""
    rows, columns = np.nonzero(mask)
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    shared = np.clip(np.minimum(high, boxes[:, 2:]) - np.maximum(low, boxes[:, :2]), 0, None).prod(1)
    union = (high - low).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(1) - shared
    x, y = columns[:, None] + 0.5, rows[:, None] + 0.5
    left, top, right, bottom = (boxes + [-MARGIN, -MARGIN, MARGIN, MARGIN]).T
    inside = ((x >= left) & (x <= right) & (y >= top) & (y <= bottom)).mean(0)
    return np.where(inside >= INSIDE, shared / np.maximum(union, 1), 0)


def _in_order(numbers: list[int], fits: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Mask number n with object n, if all of them fit."""
    if not numbers or max(numbers) > fits.shape[1]:
        return []
    pairs = [(mask, number - 1) for mask, number in enumerate(numbers)]
    return pairs if all(fits[pair] > 0 for pair in pairs) else []


def _same_class(
    masks: list[NDArray[np.bool_]], classes: NDArray[np.int64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    values = np.array([np.bincount(classes[mask]).argmax() if mask.shape == classes.shape else 0 for mask in masks])
    same = values[:, None] == labels
    return same | ~same.any(1, keepdims=True)


def _greedy(fits: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs (mask, box), best fit first, each mask and box at most once."""
    left, pairs = fits.copy(), []
    while left.size and left.max() > 0:
        mask, box = (int(position) for position in np.unravel_index(left.argmax(), left.shape))
        pairs.append((mask, box))
        left[mask], left[:, box] = 0, 0
    return pairs


def write_masks(
    base: Path, stem: str, segmentations: Sequence[str], labels: Sequence[int], size: tuple[int, int]
) -> int:
    """Write both PNG files of an image.

    Returns how many objects have pixels that a later one covers, or no number left below 255.
    """
    numbers, classes = np.zeros(size, dtype=np.uint8), np.zeros(size, dtype=np.uint8)
    hidden: set[int] = set()
    for number, (text, label) in enumerate(zip(segmentations, labels, strict=True), start=1):
        if not text:
            continue
        if number >= VOID or label >= VOID:
            hidden.add(number)
            continue
        mask = decode(text, *size)
        hidden.update(np.unique(numbers[mask]).tolist())
        numbers[mask], classes[mask] = number, label
    for folder, pixels in (("SegmentationObject", numbers), ("SegmentationClass", classes)):
        file = base / folder / f"{stem}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels, mode="P")
        image.putpalette(_palette())
        image.save(file)
    return len(hidden - {0})


def _palette() -> list[int]:
    """256 colours, of neighbours far apart: the bits of a number dealt to the high bits of red, green and blue."""
    numbers = np.arange(256)
    bits = (numbers[:, None] >> np.arange(8)) & 1  # [256, 8]
    colours = np.zeros((256, 3), dtype=np.int64)
    for place in range(8):
        colours[:, place % 3] |= bits[:, place] << (7 - place // 3)
    return colours.ravel().tolist()
