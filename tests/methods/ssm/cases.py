"""Candidates and detections for the tests of SSM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boxcycle.data.index import Index, Strings
from boxcycle.methods.ssm.labels import Candidates
from boxcycle.types import Detections


def detections(rows: Sequence[tuple[Sequence[float], Sequence[float]]], classes: int = 3) -> Detections:
    """Detections from (box, probabilities) pairs."""
    boxes = torch.tensor([list(box) for box, _ in rows], dtype=torch.float32).reshape(-1, 4)
    probs = torch.tensor([list(probs) for _, probs in rows], dtype=torch.float64).reshape(-1, classes + 1)
    scores, labels = probs[:, 1:].max(1) if len(rows) else (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    return Detections(boxes=boxes, labels=labels + 1, scores=scores, probs=probs)


def make(probs: Sequence[Sequence[float]], consistency: Sequence[float] | None = None) -> Candidates:
    """Candidate number i is in image i, which is how ties between them are settled."""
    count = len(probs)
    return Candidates(
        image_ids=torch.arange(count),
        boxes=torch.tensor([[0.0, 0, 10, 10]]).repeat(count, 1),
        probs=torch.tensor(probs, dtype=torch.float64).reshape(count, -1 if count else 4),
        consistency=torch.tensor(consistency or [float("nan")] * count, dtype=torch.float64),
        tests=torch.zeros(count, dtype=torch.int64),
        age=torch.zeros(count, dtype=torch.int64),
    )


COLOURS = ("red", "green", "blue")


class Blobs(torch.nn.Module):
    """Finds rectangles of one colour: class 1 red, 2 green, 3 blue. It is the surer the brighter the colour is.

    In an image with a light background it is less sure: how consistent a candidate is depends on where it is pasted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.scale = torch.nn.Parameter(torch.ones(()))

    def predict(self, images: list[Tensor]) -> list[Detections]:
        self.calls.append(len(images))
        return [detections(self.find(image)) for image in images]

    def find(self, image: Tensor) -> list[tuple[list[float], list[float]]]:
        light = float(image.amin(0).median())
        found = []
        for channel in range(3):
            parts = connected((image[channel] - image.mean(0)) > 0.15)
            for part in parts:
                ys, xs = part.nonzero().T
                box = [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]
                sure = float(image[channel][part].mean()) * (1 - light)
                rest = [(1 - sure) * share for share in (0.6, 0.4, 0.0)]
                probs = [rest[0], *rest[1:]]
                probs.insert(channel + 1, sure)
                found.append(([float(side) for side in box], probs))
        return sorted(found, key=lambda row: -max(row[1][1:]))


def connected(mask: Tensor) -> list[Tensor]:
    """The connected parts of a mask [H, W], by spreading the largest number of each."""
    numbers = (torch.arange(mask.numel()).reshape(mask.shape) + 1.0) * mask
    while True:
        spread = torch.nn.functional.max_pool2d(numbers[None], 3, 1, 1)[0] * mask
        if spread.equal(numbers):
            return [numbers == number for number in numbers.unique() if number]
        numbers = spread


def make_index(
    folder: Path, images: Sequence[Sequence[tuple]], *, light: Sequence[float] = (), size: int = 64
) -> Index:
    """Images of coloured rectangles: of each the objects (x1, y1, x2, y2, label, brightness), and how light it is."""
    for number, objects in enumerate(images):
        pixels = np.full((size, size + 16 * (number % 2), 3), int(255 * (light[number] if light else 0.0)), np.uint8)
        for x1, y1, x2, y2, label, brightness in objects:
            pixels[y1:y2, x1:x2] = 0
            pixels[y1:y2, x1:x2, label - 1] = int(255 * brightness)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    flat = np.array([row for objects in images for row in objects], dtype=np.float64).reshape(-1, 6)
    count, none = len(flat), np.zeros(0, dtype=np.int64)
    return Index(
        root=folder,
        class_names=COLOURS,
        category_ids=np.arange(1, 4),
        image_ids=np.arange(len(images)) + 10,
        file_names=Strings(f"{number}.png" for number in range(len(images))),
        image_sizes=np.array([(size, size + 16 * (number % 2)) for number in range(len(images))], dtype=np.int32),
        annotated=np.ones(len(images), dtype=bool),
        box_offsets=np.cumsum([0, *(len(objects) for objects in images)]),
        boxes=flat[:, :4],
        labels=flat[:, 4].astype(np.int64),
        box_ids=np.arange(count) + 1,
        areas=(flat[:, 2:4] - flat[:, :2]).prod(1),
        iscrowd=np.zeros(count, dtype=bool),
        difficult=np.zeros(count, dtype=bool),
        segmentations=Strings([""] * count),
        tagged=np.zeros(len(images), dtype=bool),
        tag_offsets=np.zeros(len(images) + 1, dtype=np.int64),
        tags=none,
    )
