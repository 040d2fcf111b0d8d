"""What happens to an image and its target between the file and the model: a resize, then a random flip.

The resize depends on the image alone, so its result may be kept (``DetectionDataset(cache=True)``); what is random
comes after it and is drawn anew each time. Boxes and masks ride along as ``tv_tensors``: torchvision moves them with
the pixels. The way back, from the model's frame to the image file's, is :func:`to_original` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

Step = Callable[[tv_tensors.Image, dict[str, Any]], tuple[tv_tensors.Image, dict[str, Any]]]

# what a target says of each box, beside the box
PER_BOX = ("labels", "area", "iscrowd", "difficult", "source", "weight", "masks")
SIZES = {"paper": (600, 1024), "small": (320, 544), "tiny": (192, 320)}  # preset: short, long


class ResizeConfig(BaseModel):
    """The size that a model sees, and how often it sees the mirror image; the name of a preset stands for its sizes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short: int = Field(default=600, ge=1, description="pixels of the shorter side (the paper: 600)")
    long: int = Field(default=1024, ge=1, description="the longer side is at most this, and then the shorter is less")
    flip: float = Field(default=0.5, ge=0, le=1, description="probability of a horizontal flip, in training only")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in SIZES:
            raise ValueError(f"no preset '{value}'; there is {', '.join(SIZES)}")
        return dict(zip(("short", "long"), SIZES[value], strict=True))

    @model_validator(mode="after")
    def _long_is_longer(self) -> ResizeConfig:
        if self.long < self.short:
            raise ValueError(f"long ({self.long}) must be at least short ({self.short})")
        return self


@dataclass(frozen=True)
class Transform:
    """``fixed`` depends on the image alone; ``random`` draws from torch's global generator, seeded for each sample.

    A ``random`` step of one's own that drops boxes must drop the rest of their rows too:
    ``v2.SanitizeBoundingBoxes(labels_getter=per_box)``.
    """

    fixed: Step | None = None
    random: Step | None = None


def make_transform(config: ResizeConfig, *, train: bool) -> Transform:
    """The resize of ``config``, followed by its random flip if ``train``."""

    def fixed(image: tv_tensors.Image, target: dict[str, Any]) -> tuple[tv_tensors.Image, dict[str, Any]]:
        return resize(image, target, resized_size(functional.get_size(image), config.short, config.long))

    return Transform(fixed, v2.RandomHorizontalFlip(config.flip) if train and config.flip else None)


def resized_size(size: tuple[int, int] | list[int], short: int, long: int) -> tuple[int, int]:
    """(height, width) with the shorter side ``short`` pixels, unless the longer one would then exceed ``long``."""
    height, width = size
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize(
    image: tv_tensors.Image, target: dict[str, Any], size: tuple[int, int]
) -> tuple[tv_tensors.Image, dict[str, Any]]:
    """Image (bilinear, antialiased), boxes, proposals, masks (nearest) and areas at (height, width) ``size``.

    Both axes have their own exact ratio new / old, since whole pixels rarely keep the aspect ratio.
    """
    height, width = functional.get_size(image)
    resized = dict(target)
    for key in ("boxes", "masks", "proposals"):
        if key in target:
            resized[key] = functional.resize(target[key], list(size))
    if "area" in target:
        resized["area"] = target["area"] * (size[0] / height * (size[1] / width))
    return functional.resize(image, list(size), antialias=True), resized


def per_box(inputs: Any) -> tuple[Tensor, ...]:
    """The fields of ``inputs`` = (image, target) with one row for each box: a ``labels_getter`` for torchvision.

    ``SanitizeBoundingBoxes`` left to itself shortens boxes and labels only: area, iscrowd and difficult would then
    belong to other boxes.
    """
    target = inputs[1]
    return tuple(target[key] for key in PER_BOX if key in target and key != "masks")  # masks it finds by their type


def to_original(boxes: Tensor, image_size: tuple[int, int], original_size: tuple[int, int]) -> Tensor:
    """Boxes of a model's output in the pixels of the image file, clipped to it.

    Shapes: boxes [N, 4] xyxy, image frame; returns [N, 4] xyxy, original frame. Sizes are (height, width).
    """
    y_ratio, x_ratio = original_size[0] / image_size[0], original_size[1] / image_size[1]
    scaled = boxes * boxes.new_tensor([x_ratio, y_ratio, x_ratio, y_ratio])
    height, width = original_size
    return torch.minimum(scaled.clamp(min=0), boxes.new_tensor([width, height, width, height]))
