"""Large-scale jitter: an image at a random size, of which at most one canvas is seen.

Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation", CVPR 2021.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from boxcycle.data.transforms import PER_BOX, Step, resize

VISIBLE = 0.1  # part of a box that must be left of it after the crop
SMALLEST = 4.0  # pixels of its shorter side


def large_scale_jitter(canvas: int, scales: tuple[float, float]) -> Step:
    """A random step of a :class:`~boxcycle.data.transforms.Transform`.

    The longer side becomes ``canvas`` pixels times a number drawn evenly from ``scales``; of what is larger than the
    canvas, a part of its size is cut out. Smaller images stay smaller: batches are padded anyway. Boxes of which little
    is left are dropped.
    """

    def jitter(image: tv_tensors.Image, target: dict[str, Any]) -> tuple[tv_tensors.Image, dict[str, Any]]:
        size = functional.get_size(image)
        low, high = scales
        factor = (low + (high - low) * float(torch.rand(()))) * canvas / max(size)
        sides = (max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
        image, target = resize(image, target, sides)
        seen = (min(sides[0], canvas), min(sides[1], canvas))
        top, left = (int(torch.randint(side - part + 1, ())) for side, part in zip(sides, seen, strict=True))
        return functional.crop(image, top, left, *seen), _cropped(target, top, left, seen)

    return jitter


def _cropped(target: dict[str, Any], top: int, left: int, size: tuple[int, int]) -> dict[str, Any]:
    before: Tensor = target["boxes"].as_subclass(Tensor)
    limit = before.new_tensor([size[1], size[0], size[1], size[0]])
    boxes = torch.minimum((before - before.new_tensor([left, top, left, top])).clamp(min=0), limit)
    sides = boxes[:, 2:] - boxes[:, :2]
    share = sides.prod(1) / (before[:, 2:] - before[:, :2]).prod(1)
    kept = (sides >= SMALLEST).all(1) & (share >= VISIBLE)
    cropped = target | {name: target[name][kept] for name in PER_BOX if name in target and name != "masks"}
    if "masks" in target:
        cropped["masks"] = functional.crop(target["masks"], top, left, *size)[kept]
    cropped["boxes"] = tv_tensors.BoundingBoxes(boxes[kept], format="XYXY", canvas_size=size)  # type: ignore[call-overload]
    return cropped
