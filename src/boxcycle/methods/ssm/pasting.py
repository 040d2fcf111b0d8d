"""Crops of candidates, laid into other images. Boxes are xyxy, image frame; those of pasted crops in whole pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import box_area

from boxcycle.ops.boxes import covered_fraction

TRIES = 60  # places drawn for a crop before it is given up for an image
HIDDEN = 0.5  # a place that hides more than this part of an annotated box is refused
WINDOW_STEP = 64  # pixels: sides of windows are multiples of it, so that many have one size and go together


def seeded(*numbers: int) -> np.random.Generator:
    """A generator that depends on these numbers alone, so that no draw depends on order, batch or shard."""
    return np.random.default_rng([number % 2**64 for number in numbers])


def cut(image: Tensor, box: Tensor) -> Tensor:
    """The pixels [3, h, w] of a box [4], widened to whole pixels. Shapes: image [3, H, W]."""
    height, width = image.shape[1:]
    x1, y1 = (max(int(low), 0) for low in box[:2].floor())
    x2, y2 = min(int(box[2].ceil()), width), min(int(box[3].ceil()), height)
    return image[:, y1:y2, x1:x2]


def fitted(crop: Tensor, target_size: tuple[int, int], *, largest: float, least: float) -> Tensor | None:
    """The crop as it is, or shrunk as a whole so that no side exceeds ``largest`` of the target's.

    None if a side would then have less than ``least`` pixels. Shapes: crop [3, h, w]; ``target_size`` (height, width).
    """
    sides = crop.shape[1:]
    scale = min(1.0, *(largest * limit / side for side, limit in zip(sides, target_size, strict=True)))
    size = [int(side * scale) for side in sides] if scale < 1 else list(sides)
    if min(size) < least:
        return None
    return interpolate(crop[None], size, mode="bilinear", antialias=True)[0] if scale < 1 else crop


def draw_places(size: tuple[int, int], target_size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int64]:
    """Boxes [TRIES, 4] of a crop of (height, width) ``size``, anywhere inside the target, uniformly."""
    room = np.array(target_size, dtype=np.int64) - np.array(size, dtype=np.int64)  # at least 0: the crop is fitted
    low = rng.integers(0, room + 1, (TRIES, 2))[:, ::-1]
    return np.concatenate([low, low + size[::-1]], axis=1)


def choose_place(places: Tensor, boxes: Tensor, taken: Tensor, gap: float) -> Tensor | None:
    """The first place that hides no annotated box by more than half and keeps ``gap`` pixels from pasted ones; or None.

    Shapes: places [T, 4], boxes [N, 4] of the target, taken [M, 4]; returns [4].
    """
    hides = (covered_fraction(boxes, places) > HIDDEN).any(0)
    wide = taken + taken.new_tensor([-gap, -gap, gap, gap])
    touches = ((places[:, None, :2] < wide[None, :, 2:]) & (places[:, None, 2:] > wide[None, :, :2])).all(-1).any(1)
    free = (~hides & ~touches).nonzero().flatten()
    return places[free[0]] if len(free) else None


def pack(
    places: Sequence[Tensor],
    boxes: Tensor,
    target_size: tuple[int, int],
    *,
    most: int,
    gap: float,
    largest_part: float,
) -> list[dict[int, Tensor]]:
    """Spread crops over as few copies of a target as their places allow: for each copy, crop number -> its place [4].

    A copy takes at most ``most`` crops, which cover at most ``largest_part`` of it unless it is one alone. A crop that
    fits on no copy is in none. Shapes: places [T, 4] of each crop, boxes [N, 4] of the target.
    """
    copies, waiting = [], list(range(len(places)))
    while waiting:
        copy = _fill(waiting, places, boxes, most, gap, largest_part * target_size[0] * target_size[1])
        if not copy:
            break
        copies.append(copy)
        waiting = [number for number in waiting if number not in copy]
    return copies


def _fill(
    waiting: Sequence[int], places: Sequence[Tensor], boxes: Tensor, most: int, gap: float, largest_area: float
) -> dict[int, Tensor]:
    copy: dict[int, Tensor] = {}
    for number in waiting:
        taken = torch.stack([*copy.values()]) if copy else boxes.new_zeros(0, 4)
        area = float(box_area(taken).sum() + box_area(places[number][:1])[0])
        if copy and (len(copy) >= most or area > largest_area):
            continue
        place = choose_place(places[number], boxes, taken, gap)
        if place is not None:
            copy[number] = place
    return copy


def paste(target: Tensor, crops: Sequence[Tensor], places: Sequence[Tensor]) -> Tensor:
    """A copy of the target [3, H, W] with opaque crops at their places."""
    canvas = target.clone()
    for crop, place in zip(crops, places, strict=True):
        x1, y1, x2, y2 = place.int().tolist()
        canvas[:, y1:y2, x1:x2] = crop
    return canvas


def window_around(places: Sequence[Tensor], target_size: tuple[int, int], around: float) -> tuple[int, int, int, int]:
    """The part (x1, y1, x2, y2) of a target to detect in: ``around`` times the longer side of each pasted crop, its
    crop in the middle, moved inwards at the border.

    Each side is a multiple of 64 pixels, or the target's own.
    """
    boxes = torch.stack([*places])
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) * around / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = (centres - half).amin(0).tolist(), (centres + half).amax(0).tolist()
    spans = []
    for start, stop, limit in zip(low, high, target_size[::-1], strict=True):
        side = min(WINDOW_STEP * math.ceil((stop - start) / WINDOW_STEP), limit)
        begin = min(max(math.floor((start + stop - side) / 2), 0), limit - side)
        spans.append((begin, begin + side))
    (x1, x2), (y1, y2) = spans
    return x1, y1, x2, y2
