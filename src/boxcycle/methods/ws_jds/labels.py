"""What WS-JDS teaches itself from the tags of an image: localisation maps, their seeds, and weights for proposals.

Shen, Ji, Wang, Wu and Cao, "Cyclic Guidance for Weakly Supervised Joint Detection and Segmentation", CVPR 2019.

Frame of every box: the *map grid* (whole cells, half-open). Shapes: R proposals, K classes, H and W cells of a map.
Everything runs on the device of its input, and nothing here is given a box that somebody annotated.
"""

from __future__ import annotations

import torch
from torch import Tensor

IGNORED = -1  # a cell that teaches nothing


def wsddn_scores(class_logits: Tensor, detection_logits: Tensor) -> Tensor:
    """How much each proposal speaks for each class, X^s; its sum over the proposals is the image's score y.
    [WS-JDS section 3, object detection branch]

    The first softmax runs over the classes of a proposal, the second over the proposals of the image.

    Shapes: [R, K] and [R, K] of one image; returns [R, K], columns sum to a number in (0, 1).
    """
    return class_logits.softmax(1) * detection_logits.softmax(0)


def localisation_map(scores: Tensor, images: Tensor, *, weighted: bool = True) -> Tensor:
    """Where in its image a class is seen: the gradient of its score, by absolute value, the strongest colour.
    [WS-JDS section 3, cyclic guidance learning]

    ``scores``: those of the proposals for one class of each image, in any shape. With ``weighted`` each is seeded by
    its own value, so that the best proposals speak loudest (the released code); without, all by 1 (the paper). Images
    do not share scores, so one call serves one class of every image of a batch. Parameters receive no gradient.

    Shapes: images [..., 3, H, W]; returns [..., H, W], the highest value of each map 1, all 0 where there is no
    gradient.
    """
    seeds = scores.detach() if weighted else torch.ones_like(scores)
    (gradient,) = torch.autograd.grad(scores, images, grad_outputs=seeds, retain_graph=True)
    return normalised(gradient.detach().abs().amax(-3))


def normalised(maps: Tensor) -> Tensor:
    """Each map over its highest value; a map of zeros stays. Shapes: [..., H, W], not negative."""
    highest = maps.amax((-2, -1), keepdim=True)
    return torch.where(highest > 0, maps / highest.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)


def localisation_seeds(maps: Tensor, tags: Tensor, known: Tensor, *, foreground: float, background: float) -> Tensor:
    """What the segmentation is to learn in each cell: 1 the class, 0 not the class, -1 nothing.
    [WS-JDS section 3, cyclic guidance learning]

    A present class is learnt where its map is at least ``foreground``, and unlearnt where it is at most ``background``;
    if it has no map (``known`` is False, or the map is all 0) it is learnt nowhere. An absent class is unlearnt
    everywhere.

    Shapes: maps [K, H, W] in [0, 1], tags [K] of 0 and 1, known [K] bool; returns [K, H, W] int64.
    """
    seeds = torch.full_like(maps, IGNORED, dtype=torch.int64)
    usable = (known & (maps.amax((1, 2)) > 0))[:, None, None]
    seeds = seeds.masked_fill(usable & (maps <= background), 0)
    seeds = seeds.masked_fill(usable & (maps >= foreground), 1)
    return seeds.masked_fill((tags == 0)[:, None, None], 0)


def threshold_map(masks: Tensor, least: float = 0.1) -> Tensor:
    """T: the cells of at least a part of the map's highest value, the paper's a tenth; none of a map without a
    positive one. [WS-JDS section 3, cyclic guidance learning]

    Shapes: [K, H, W]; returns [K, H, W] bool.
    """
    highest = masks.amax((1, 2), keepdim=True)
    return (masks >= least * highest) & (highest > 0)


def grid_boxes(boxes: Tensor, scale: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Boxes in whole cells of a map: each edge rounded (half a cell up) and kept on the map.

    Shapes: boxes [R, 4] xyxy, image frame; scale: cells a pixel (down, across); size: cells (down, across); returns
    [R, 4] int64, empty where a box is smaller than half a cell.
    """
    scaled = boxes.double() * boxes.new_tensor([scale[1], scale[0]] * 2, dtype=torch.float64)
    return _on_map((scaled + 0.5).floor().long(), size)


def proposal_weights(masks: Tensor, proposals: Tensor, context: float = 1.8, least: float = 0.1) -> Tensor:
    """W: how much more of the class a proposal has inside than around it. [WS-JDS Eq. 3]

    Cells of :func:`threshold_map` (from ``least`` on) in the box over the square root of its area, minus the same of
    its context: the box grown by ``context`` about its centre, without the box. A context that lies off the map counts
    0. Sums come from integral images, for all proposals and classes at once.

    Shapes: masks [K, H, W], proposals [R, 4] int64, map grid; returns [R, K], NaN for an empty box.
    """
    inner = _on_map(proposals, masks.shape[1:])
    outer = _on_map(_grown(proposals, context), masks.shape[1:])
    table = _integral(threshold_map(masks, least))
    inside, around = _sums(table, inner), _sums(table, outer)
    area, outer_area = _areas(inner), _areas(outer)
    context_area = outer_area - area
    weights = inside / area.clamp(min=1).sqrt()[:, None]
    weights -= (around - inside) / context_area.clamp(min=1).sqrt()[:, None]
    return weights.masked_fill((area == 0)[:, None], torch.nan)


def normalise_weights(weights: Tensor) -> Tensor:
    """W brought to [-1, 1], class by class, as in the released code.

    Positive values are divided by the highest, negative ones by the size of the lowest. An empty box (NaN) has -1. A
    class without a positive value has 1 everywhere: its map tells nothing.

    Shapes: [R, K]; returns [R, K].
    """
    highest = weights.nan_to_num(nan=0.0).clamp(min=0).amax(0)
    lowest = weights.nan_to_num(nan=0.0).clamp(max=0).amin(0)
    scaled = torch.where(weights > 0, weights / highest.where(highest > 0, 1), weights / -lowest.where(lowest < 0, -1))
    return scaled.nan_to_num(nan=-1.0).masked_fill(highest == 0, 1.0)


def guidance(weights: Tensor, image_scores: Tensor, tags: Tensor) -> Tensor:
    """W as the loss takes it: the surer the image score y, the more it guides, y W + (1 - y); absent classes have 1.

    Shapes: normalised weights [R, K], image_scores [K] in [0, 1], tags [K]; returns [R, K] in [-1, 1], a constant.
    """
    sure = image_scores.detach()
    return (sure * weights + (1 - sure)).masked_fill(tags == 0, 1.0)


def instance_mask(mask: Tensor, box: Tensor) -> Tensor:
    """The mask of a detection: its class's cells of more than one half, inside its box.

    Two boxes of a class that overlap share cells: nothing tells the instances apart.

    Shapes: mask [H, W], box [4] in whole cells; returns [H, W] bool.
    """
    x1, y1, x2, y2 = box.tolist()
    inside = torch.zeros_like(mask, dtype=torch.bool)
    inside[y1:y2, x1:x2] = True
    return inside & (mask > 0.5)


def _grown(boxes: Tensor, factor: float) -> Tensor:
    """Boxes of ``factor`` times the sides about the same centre, edges rounded (half a cell up)."""
    corners = boxes.double()
    centre, half = (corners[:, :2] + corners[:, 2:]) / 2, (corners[:, 2:] - corners[:, :2]) / 2 * factor
    return (torch.cat([centre - half, centre + half], dim=1) + 0.5).floor().long()


def _on_map(boxes: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return boxes.clamp(min=0).minimum(boxes.new_tensor([size[1], size[0]] * 2))


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).to(torch.float32)


def _integral(cells: Tensor) -> Tensor:
    """Sums of all cells above and left of each corner. Shapes: [K, H, W] bool; returns [H + 1, W + 1, K]."""
    exact = torch.float32 if cells.shape[1] * cells.shape[2] < 2**24 else torch.float64  # float32 counts no further
    table = torch.zeros(cells.shape[1] + 1, cells.shape[2] + 1, len(cells), dtype=exact, device=cells.device)
    torch.cumsum(cells.permute(1, 2, 0).to(exact), 0, out=table[1:, 1:])
    table[1:, 1:] = table[1:, 1:].cumsum(1)
    return table


def _sums(table: Tensor, boxes: Tensor) -> Tensor:
    """How many cells of each class lie in each box. Shapes: table [H + 1, W + 1, K], boxes [R, 4]; returns [R, K]."""
    rows, across = table.flatten(0, 1), table.shape[1]
    x1, y1, x2, y2 = boxes.unbind(1)

    def corner(y: Tensor, x: Tensor) -> Tensor:
        return rows.index_select(0, y * across + x)

    return corner(y2, x2) - corner(y1, x2) - corner(y2, x1) + corner(y1, x1)
