"""Images of 64 pixels with their targets, on which a detector of three classes can be tested in a moment."""

from __future__ import annotations

import torch
from torch import Tensor

from boxcycle.types import Target


def image(height: int, width: int, seed: int) -> Tensor:
    """Noise, [3, height, width] in [0, 1]."""
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def target(boxes: list[list[float]], labels: list[int], seed: int = 0, unverified: list[int] | None = None) -> Target:
    """The least that a target has, from plain lists; ``unverified``: labels, None: it does not have the field."""
    made = Target(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        seed=seed,
    )
    if unverified is not None:
        made["unverified"] = torch.tensor([label in unverified for label in (1, 2, 3)])
    return made


def partly_verified(first: list[int] | None, second: list[int] | None, third: list[int] | None) -> list[Target]:
    """The targets of TARGETS, with the labels that are unverified in each."""
    return [
        target([[4, 5, 40, 50], [30, 8, 62, 60]], [1, 3], 11, first),
        target([], [], 12, second),
        target([[0, 0, 33, 33]], [2], 13, third),
    ]


IMAGES = [image(64, 64, seed) for seed in range(3)]
TARGETS = partly_verified(None, None, None)
EMPTY = [target([], [], seed) for seed in range(3)]


def rectangles(first_width: int = 64) -> tuple[list[Tensor], list[Target]]:
    """Four images, 64 pixels high, the others 80 wide: objects are bright rectangles, a colour for each class."""
    generator = torch.Generator().manual_seed(0)
    placed: list[list[tuple[list[int], int]]] = [
        [([6, 8, 34, 40], 1)],
        [([30, 20, 70, 50], 2), ([4, 4, 24, 20], 3)],
        [([10, 30, 50, 60], 3)],
        [([40, 6, 60, 58], 1)],
    ]
    images, targets = [], []
    for number, objects in enumerate(placed):
        picture = torch.rand(3, 64, first_width if number == 0 else 80, generator=generator) * 0.2
        for (x1, y1, x2, y2), label in objects:
            picture[label - 1, y1:y2, x1:x2] += 0.8
        images.append(picture)
        targets.append(target([box for box, _ in objects], [label for _, label in objects], seed=number))
    return images, targets
