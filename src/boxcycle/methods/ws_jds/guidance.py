"""What the branches of WS-JDS teach each other about one image, from one forward pass of both.

Shen, Ji, Wang, Wu and Cao, "Cyclic Guidance for Weakly Supervised Joint Detection and Segmentation", CVPR 2019.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from boxcycle.methods.ws_jds import crf, labels, losses
from boxcycle.methods.ws_jds.network import GuidanceConfig
from boxcycle.types import ImageList

FINE = 4  # pixels a cell of the maps that proposals are weighed on


class Scores(NamedTuple):
    """Of one image: X^s [R, K], the class distribution of each proposal [R, K], and the image's scores y [K]."""

    joint: Tensor
    classes: Tensor
    image: Tensor


class Seen(NamedTuple):
    """One image and what both branches make of it.

    ``image`` [3, H, W] in [0, 1]; ``tags`` [K] of 0 and 1; ``boxes`` [R, 4] xyxy, image frame; ``scores`` of the
    detection; ``logits`` [K, h, w] of the segmentation, a cell for ``stride`` pixels, without cells where there is
    none; ``maps`` [K, H, W]: localisation maps, 0 for classes without one, or None where nobody asks for them.
    """

    image: Tensor
    tags: Tensor
    boxes: Tensor
    scores: Scores
    logits: Tensor
    maps: Tensor | None
    stride: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.shape[-2], self.image.shape[-1]


def localise(scores: list[Scores], batch: ImageList, tags: list[Tensor], config: GuidanceConfig) -> list[Tensor]:
    """Localisation maps [K, H_i, W_i] of the classes that the tags name and the detection is sure of, 0 elsewhere.

    A class is sure where its image score reaches ``config.gate``. One backward pass serves a class of every image.
    """
    sure = [
        ((its > 0) & (s.image >= config.gate)).nonzero().flatten().tolist() for s, its in zip(scores, tags, strict=True)
    ]
    found = [batch.tensors.new_zeros(len(tags[0]), *size, dtype=torch.float32) for size in batch.sizes]
    for turn in range(max(len(its) for its in sure)):
        chosen = [i for i, its in enumerate(sure) if turn < len(its)]
        columns = torch.cat([scores[i].joint[:, sure[i][turn]] for i in chosen])
        maps = labels.localisation_map(columns, batch.tensors, weighted=config.weighted_maps)
        for i in chosen:
            height, width = batch.sizes[i]
            found[i][sure[i][turn]] = labels.normalised(maps[i, :height, :width].float())
    return found


def plain_loss(seen: Seen) -> Tensor:
    """The image loss without guidance. [WS-JDS Eq. 1]"""
    return losses.image_loss(seen.scores.image, seen.tags)


def guided_loss(seen: Seen, cells: Tensor, config: GuidanceConfig) -> Tensor:
    """The loss of proposals weighed on the cells of :func:`map_cells` or :func:`mask_cells`. [WS-JDS Eq. 3, Eq. 4]"""
    weights = labels.guidance(weigh(seen, cells, config), seen.scores.image.clamp(max=1), seen.tags)
    return losses.guided_loss(seen.scores.joint, weights, seen.tags, literal=config.literal)


def weigh(seen: Seen, cells: Tensor, config: GuidanceConfig) -> Tensor:
    """W of each proposal and present class in [-1, 1], 1 for absent classes.

    Shapes: cells [K, h, w] of the whole image; returns [R, K].
    """
    (down, across), (height, width) = cells.shape[1:], seen.size
    places = labels.grid_boxes(seen.boxes, (down / height, across / width), (down, across))
    present = (seen.tags > 0).nonzero().flatten()
    weights = torch.ones_like(seen.scores.joint)
    if len(present):
        found = labels.proposal_weights(cells[present], places, least=config.threshold)
        weights[:, present] = labels.normalise_weights(found)
    return weights


def map_cells(seen: Seen) -> Tensor:
    """Localisation maps as means over 4 x 4 pixels. Shapes: returns [K, H / 4, W / 4]."""
    assert seen.maps is not None, "seen with localisation maps"
    return avg_pool2d(seen.maps[None], FINE, ceil_mode=True)[0]


def mask_cells(seen: Seen) -> Tensor:
    """Masks S of the segmentation at a cell for every 4 x 4 pixels, a constant. Shapes: returns [K, H / 4, W / 4]."""
    height, width = seen.size
    return enlarged(seen.logits.detach().sigmoid(), seen.stride // FINE, (-(-height // FINE), -(-width // FINE)))


def enlarged(maps: Tensor, factor: int, size: tuple[int, ...], *, mode: str = "bilinear") -> Tensor:
    """Maps [K, h, w] at ``factor`` cells a cell, without what then lies beyond ``size``: the last cells of a map reach
    beyond an image whose sides are no multiples of the stride.
    """
    full = (maps.shape[1] * factor, maps.shape[2] * factor)
    return interpolate(maps[None], full, mode=mode)[0, :, : size[0], : size[1]]


def seeds(seen: Seen, config: GuidanceConfig) -> Tensor:
    """What the segmentation is to learn of the localisation maps: 1, 0, or -1 for nothing.

    Shapes: returns [K, h, w].
    """
    assert seen.maps is not None, "seen with localisation maps"
    cells = labels.normalised(avg_pool2d(seen.maps[None], seen.stride, ceil_mode=True)[0])
    known = seen.scores.image >= config.gate
    return labels.localisation_seeds(
        cells, seen.tags, known, foreground=config.foreground, background=config.background
    )


def boundary_loss(seen: Seen) -> Tensor:
    """Masks of the present classes against what the CRF makes of them; 0 without any."""
    present = seen.logits[seen.tags > 0]
    if not len(present):
        return 0 * seen.logits.sum()
    small = crf.shrunk(present)
    pixels = adaptive_avg_pool2d(255 * seen.image, (small.shape[1], small.shape[2]))
    return losses.boundary_loss(small, crf.boundary_targets(pixels, small.detach().sigmoid()))
