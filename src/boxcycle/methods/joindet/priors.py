"""Where the priors come from: R_0 before training, and the updates that the detector makes of them while it learns.

An image is looked at alone, un-augmented, in evaluation mode, so that its priors depend on nothing but itself, the
weights and its priors before. Boxes are xyxy as parts of the un-augmented image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.ops import box_convert

from boxcycle.methods.joindet.eigen import eigen_maps
from boxcycle.methods.joindet.labels import (
    REGION_SCORE,
    foreground,
    instance_priors,
    region_priors,
    replace_boxes,
    smooth_boxes,
    suppress_boxes,
)
from boxcycle.models.deformable_detr import DeformableDETR
from boxcycle.models.feature_levels import level_of_stride_16

PADDING = 32  # pixels, whose multiples batches are padded to
ANYWHERE = -1.0  # a part of foreground that every box exceeds
Boxes = tuple[Tensor, Tensor]  # boxes [N, 4] and scores [N]


class PriorConfig(BaseModel):
    """What teaches the detector, and how it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first: Literal["regions", "proposals", "random"] = Field(
        "regions",
        description="R_0: regions of the frozen backbone's map; proposals (DETReg: selective search); random boxes",
    )
    first_scale: float = Field(
        1.0, gt=0, description="size at which images are looked at for R_0, as part of data.resize: more, finer regions"
    )
    every: int = Field(0, ge=0, description="steps between updates; 0: R_0 stays")
    current: Literal["both", "regions", "instances", "predictions"] = Field(
        "both",
        description="what an update finds: region and instance priors, one of them, or all that the detector calls "
        "foreground",
    )
    rule: Literal["smooth", "suppress", "replace"] = Field(
        "smooth", description="how it meets the priors before: Box Smooth; suppression, new ones first; not at all"
    )
    momentum: float = Field(0.45, ge=0, le=1, description="weight of the priors before in Box Smooth")
    iou: float = Field(0.55, gt=0, lt=1, description="overlap from which two priors become one")
    most: int = Field(30, gt=0, description="priors of an image")
    tau: float = Field(0.2, gt=-1, lt=1, description="cosine above which two tokens are alike")
    center: bool = Field(True, description="take the image's mean token off first (the paper: false)")
    corner_flip: bool = Field(False, description="foreground with three corners of the image is background")
    min_area: float = Field(0.01, ge=0, lt=1, description="smallest region, as a part of the map (the paper: 0)")
    regions: int = Field(10, gt=0, description="regions of an image, the largest ones (the paper: all)")
    on_foreground: float = Field(0.5, ge=0, lt=1, description="part of an instance that must lie on foreground")


class View(NamedTuple):
    """What one look at an image gave: ``attention`` [h, w], 0 where there is no map; ``density`` of the graph, NaN
    where there is no map; its ``regions`` and ``instances``; and the ``priors`` that come of them.
    """

    attention: Tensor
    density: float
    regions: Tensor
    instances: Boxes
    priors: Boxes


@torch.no_grad()
def first_view(detector: DeformableDETR, image: Tensor, config: PriorConfig) -> View:
    """R_0 of an image: the regions of the frozen backbone's map. [JoinDet Eq. 3]

    Shapes: image [3, H, W] in [0, 1].
    """
    batch = detector.batch([whole_strides(image, config.first_scale)])
    maps = detector.maps(batch.tensors)
    attention, density = _map_of(maps[level_of_stride_16(len(maps))], config)
    regions = region_priors(attention, min_area=config.min_area, max_regions=config.regions)
    scores = torch.full((len(regions),), REGION_SCORE)
    return View(attention, density, regions, (torch.zeros(0, 4), torch.zeros(0)), (regions, scores))


@torch.no_grad()
def next_view(detector: DeformableDETR, image: Tensor, previous: Boxes, config: PriorConfig) -> View:
    """R_n of an image: the regions of the encoder's map and the instances that lie on them, with R_{n-1}.

    Shapes: image [3, H, W] in [0, 1]. [JoinDet Eq. 7]
    """
    batch = detector.batch([whole_strides(image)])
    memory = detector.encode(batch)
    output = detector.decode(memory)
    attention, density = _map_of(memory.map(level_of_stride_16(len(memory.shapes)))[0], config)
    regions = region_priors(attention, min_area=config.min_area, max_regions=config.regions)
    boxes = box_convert(output.boxes[-1, 0], "cxcywh", "xyxy").cpu()
    share = ANYWHERE if config.current == "predictions" else config.on_foreground
    instances = instance_priors(boxes, output.logits[-1, 0].cpu(), foreground(attention), threshold=share)
    priors = _updated(previous, _current(regions, instances, config), config)
    return View(attention, density, regions, instances, priors)


def whole_strides(image: Tensor, scale: float = 1.0) -> Tensor:
    """An image, scaled, at the nearest size that needs no padding: padded cells would be a group of their own.

    Parts of the image stay the same parts. Shapes: image [3, H, W]; returns [3, 32 m, 32 n].
    """
    size = [max(round(scale * side / PADDING), 1) * PADDING for side in image.shape[-2:]]
    return interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def search_priors(
    proposals: NDArray[np.float32], size: tuple[int, int], most: int, generator: torch.Generator
) -> Boxes:
    """DETReg's priors of an image: the first boxes of selective search, in an order such as its own.

    Selective search ranks a box by its level in the hierarchy, coarse ones first, times a random number; ``proposals``
    [P, 4] (xyxy, original frame) are sorted by area instead, which is nearly the same. ``size``: (height, width).
    [Selective search section 4.3]
    """
    height, width = size
    boxes = torch.from_numpy(proposals[1:]) / torch.tensor([width, height, width, height])  # without the whole image
    ranks = torch.arange(1, len(boxes) + 1) * torch.rand(len(boxes), generator=generator)
    chosen = boxes[ranks.argsort(stable=True)[:most]]
    return chosen, torch.full((len(chosen),), REGION_SCORE)


def _map_of(features: Tensor, config: PriorConfig) -> tuple[Tensor, float]:
    """The attention map of one image and the density of its graph. Shapes: features [1, C, h, w]; returns [h, w]."""
    [found] = eigen_maps(features, config.tau, config.center, corner_flip=config.corner_flip)
    return found.attention.cpu(), float("nan") if found.degenerate else found.density


def _current(regions: Tensor, instances: Boxes, config: PriorConfig) -> Boxes:
    """P of an update, as Table 5 varies it."""
    scores = torch.full((len(regions),), REGION_SCORE)
    kept: Sequence[Boxes] = {
        "both": [(regions, scores), instances],
        "regions": [(regions, scores)],
        "instances": [instances],
        "predictions": [instances],
    }[config.current]
    return torch.cat([boxes for boxes, _ in kept]), torch.cat([score for _, score in kept])


def _updated(previous: Boxes, current: Boxes, config: PriorConfig) -> Boxes:
    """R_n by the rule of Table 6 that is chosen."""
    if config.rule == "replace":
        return replace_boxes(*current, config.most)
    if config.rule == "suppress":
        return suppress_boxes(*previous, *current, config.iou, config.most)
    return smooth_boxes(*previous, *current, config.momentum, config.iou, config.most)
