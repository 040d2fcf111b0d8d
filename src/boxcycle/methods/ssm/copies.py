"""Copies of an annotated image with crops of candidates on them. Boxes are xyxy, in the frame of that image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from boxcycle.data.dataset import DetectionDataset
from boxcycle.methods.ssm.config import MiningConfig
from boxcycle.methods.ssm.pasting import draw_places, fitted, pack, paste, seeded, window_around

LARGEST_SIDE = 0.6  # of the target's; a crop that is larger is shrunk
LARGEST_PART = 0.4  # of a copy that several crops may cover


class Sample(NamedTuple):
    """An image as the detector sees it: pixels [3, H, W], boxes of its objects [N, 4] in that frame."""

    image: Tensor
    boxes: Tensor
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]


class Copy(NamedTuple):
    """A copy of the annotated image at a position, with crops ``placed`` on it: row -> place [4], in its frame.

    ``pixels`` [3, h, w] are all of its ``size`` (height, width), or a window with its ``corner`` [4] at (x, y, x, y).
    """

    target: int
    size: tuple[int, int]
    pixels: Tensor
    corner: Tensor
    placed: dict[int, Tensor]

    @property
    def part(self) -> float:
        """The window's part of the whole image's pixels."""
        return self.pixels.shape[1] * self.pixels.shape[2] / (self.size[0] * self.size[1])


def sample(dataset: DetectionDataset, position: int, device: torch.device | str) -> Sample:
    """The image at a position of a data set, on a device."""
    image, target = dataset[position]
    return Sample(image.to(device), target["boxes"].to(device), target["original_size"])


def lay_out(
    target: int, into: Sample, crops: Mapping[int, Tensor], seeds: Mapping[int, Sequence[int]], config: MiningConfig
) -> Iterator[Copy]:
    """As few copies of one target as its crops fit on; ``crops`` [3, h, w] and the ``seeds`` of their places by row.

    A crop that would have to be shrunk too far, or has no free place, is on none.
    """
    small = {row: fitted(crop, into.size, largest=LARGEST_SIDE, least=config.min_side) for row, crop in crops.items()}
    fits = {row: crop for row, crop in small.items() if crop is not None}
    places = [
        torch.from_numpy(draw_places((crop.shape[1], crop.shape[2]), into.size, seeded(*seeds[row]))).to(into.boxes)
        for row, crop in fits.items()
    ]
    order = list(fits)
    most = config.crops_of_a_copy
    for copy in pack(places, into.boxes, into.size, most=most, gap=config.gap, largest_part=LARGEST_PART):
        placed = {order[number]: place for number, place in copy.items()}
        canvas = paste(into.image, [fits[row] for row in placed], list(placed.values()))
        pixels, corner = window_of(canvas, placed, config.window)
        yield Copy(target, into.size, pixels, corner, placed)


def window_of(canvas: Tensor, placed: Mapping[int, Tensor], around: float | None) -> tuple[Tensor, Tensor]:
    """The part [3, h, w] of a canvas [3, H, W] in which its crops are looked for, and its corner [4].

    ``around``: as :func:`~boxcycle.methods.ssm.pasting.window_around` takes it; None: all of the canvas.
    """
    if around is None:
        return canvas, torch.zeros(4, device=canvas.device)
    x1, y1, x2, y2 = window_around([*placed.values()], (canvas.shape[1], canvas.shape[2]), around)
    return canvas[:, y1:y2, x1:x2], torch.tensor([x1, y1, x1, y1], device=canvas.device)
