"""The three labels that MTL-SSL makes from annotated boxes, and the windows that they are made for.

Lee, Na and Kim, "Multi-Task Self-Supervised Object Detection via Recycling of Bounding Box Annotations", CVPR 2019,
section 3.1.

Frame of every box: *image*. Shapes: N boxes, M windows, P proposals, K classes; class vectors have K+1 entries,
background first. Everything runs on the device of its input.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchvision.ops import box_area

from boxcycle.ops.boxes import whole_image

_ROUNDING = 1e-6  # parts of an area below it are float32 rounding, of which a square root would make 1e-3
_ROUNDS = 8  # of drawing windows before the boxes themselves stand in; the released code goes on for ever


def sample_windows(
    boxes: Tensor, image_size: tuple[int, int], count: int, min_size: float, generator: torch.Generator
) -> Tensor:
    """Random windows that each touch at least one box. [MTL-SSL section 3.1, multi-object labeling]

    The paper draws corners and sizes; we draw as the released code does (sizes, then centres, see
    :func:`windows_from_uniforms`), anew at every call. Where luck does not find enough windows (tiny boxes in a large
    image), boxes widened to ``min_size`` make up the rest.

    Shapes: boxes [N, 4]; returns [count, 4], or [0, 4] where the image has no box. ``min_size``: shortest side in
    pixels.
    """
    if not len(boxes):
        return boxes.new_zeros(0, 4)
    found = boxes.new_zeros(0, 4)
    for _ in range(_ROUNDS):
        uniforms = torch.rand(2 * count, 4, generator=generator, device=boxes.device)
        windows = windows_from_uniforms(uniforms, image_size, min_size)
        found = torch.cat([found, windows[_touches(windows, boxes)]])
        if len(found) >= count:
            return found[:count]
    rows = torch.randint(len(boxes), (count - len(found),), generator=generator, device=boxes.device)
    return torch.cat([found, _widen(boxes[rows], image_size, min_size)])


def windows_from_uniforms(uniforms: Tensor, image_size: tuple[int, int], min_size: float) -> Tensor:
    """Windows from numbers in [0, 1): sides in [min_size, image side], centres anywhere, clipped to the image.

    A side that clipping leaves shorter than ``min_size`` grows inwards from the border it touches. In an image smaller
    than ``min_size`` the image's own side is the shortest.

    Shapes: uniforms [M, 4] in the order (height, width, centre y, centre x); returns [M, 4] xyxy.
    """
    sides = uniforms.new_tensor(image_size)  # (height, width)
    shortest = sides.clamp(max=min_size)
    extent = shortest + uniforms[:, :2] * (sides - shortest)
    centre = uniforms[:, 2:] * sides
    low = (centre - extent / 2).clamp(min=0)
    high = (centre + extent / 2).minimum(sides)
    low = low.minimum(high - shortest).clamp(min=0)
    high = high.maximum(low + shortest)
    return torch.stack([low[:, 1], low[:, 0], high[:, 1], high[:, 0]], dim=1)


def multi_object_labels(
    windows: Tensor, boxes: Tensor, labels: Tensor, num_classes: int, *, square_root: bool = True
) -> Tensor:
    """What each window shows, as a distribution over background and classes. [MTL-SSL Algorithm 1]

    Class k counts with the square root of the part of the window that the union of its boxes covers, background with
    the square root of the part that no box covers; then the vector is normalised. Unions are exact for any number of
    boxes (the released code's are not from eleven on). Boxes of different classes that overlap count for both.
    ``square_root=False`` takes the parts themselves.

    Shapes: windows [M, 4], boxes [N, 4], labels [N]; returns [M, K+1], rows sum to 1. Boxes of label 0 (ignore regions
    of unknown class) do not count.
    """
    known = labels > 0
    parts = window_parts(windows, boxes[known], labels[known], num_classes)
    weights = parts.sqrt() if square_root else parts
    return weights / weights.sum(1, keepdim=True)


def window_parts(windows: Tensor, boxes: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """The part of each window's area that each class covers, and that nothing covers. [MTL-SSL Algorithm 1, lines 1-3]

    All box edges cut the plane into cells that a box covers wholly or not at all. The area of a union within a window
    is then a sum over covered cells of (cell height within the window) x (cell width within the window): a product of
    three matrices, exact, for all windows and classes at once.

    Shapes: windows [M, 4], boxes [N, 4], labels [N] in 1..K; returns [M, K+1] in [0, 1].
    """
    present, row = labels.unique(return_inverse=True)
    x_edges, y_edges = boxes[:, 0::2].flatten().unique(), boxes[:, 1::2].flatten().unique()
    across = _spans(boxes[:, 0], boxes[:, 2], x_edges)  # [N, X]
    down = _spans(boxes[:, 1], boxes[:, 3], y_edges)  # [N, Y]
    of_class = (row[:, None] == torch.arange(len(present), device=row.device)).to(boxes)  # [N, classes present]
    layers = torch.cat([of_class, torch.ones_like(boxes[:, :1])], dim=1)  # the last layer: any class
    covered = (torch.einsum("nl,ny,nx->lyx", layers, down, across) > 0).to(boxes)  # cells that a layer's union covers
    widths = _overlaps(windows[:, 0], windows[:, 2], x_edges)  # [M, X] parts of the window's width
    heights = _overlaps(windows[:, 1], windows[:, 3], y_edges)  # [M, Y]
    with torch.autocast(windows.device.type, enabled=False):  # areas of 8 or 11 bits would be wrong labels
        unions = torch.einsum("my,lyx,mx->ml", heights, covered, widths).clamp(0, 1)
    parts = windows.new_zeros(len(windows), num_classes + 1)
    parts[:, 0] = 1 - unions[:, -1]
    parts[:, present] = unions[:, :-1]
    return parts.where(parts > _ROUNDING, 0)


def closeness_labels(
    boxes: Tensor,
    labels: Tensor,
    image_size: tuple[int, int],
    num_classes: int,
    *,
    same_class: bool = False,
    reach: float | None = None,
) -> Tensor:
    """Which classes keep each box company, the nearer the more, as a distribution. [MTL-SSL Algorithm 2]

    Class k counts with 1 - d / D, d the distance from the box's centre to the nearest centre of class k, D the image's
    diagonal. The box's own class does not count (as in the released code; ``same_class=True`` counts its other boxes);
    a box without neighbours has all its weight on background.

    With ``reach``, an experiment of ours, class k counts with exp(-d / (reach s)), s the square root of the box's area,
    and background with 1 minus the nearest class: in 1 - d / D most classes of an image count nearly the same.

    Shapes: boxes [N, 4], labels [N]; returns [N, K+1], rows sum to 1.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    distance = (centres[:, None] - centres[None]).norm(dim=-1)  # [N, N]
    if reach is None:
        near = (1 - distance / math.hypot(*image_size)).clamp(min=0)
    else:
        near = (-distance / (reach * box_area(boxes).sqrt())[:, None]).exp()
    itself = torch.eye(len(boxes), dtype=torch.bool, device=boxes.device)
    stranger = ~itself if same_class else labels[:, None] != labels[None]
    near = near * (stranger & (labels > 0)[None])
    weights = near.new_zeros(len(boxes), num_classes + 1)
    weights.scatter_reduce_(1, labels.expand(len(boxes), -1), near, reduce="amax")
    weights[:, 0] = (weights.sum(1) == 0).to(weights) if reach is None else 1 - weights[:, 1:].amax(1)
    return weights / weights.sum(1, keepdim=True)


def foreground_mask(boxes: Tensor, image_size: tuple[int, int], grid_size: int, *, original: bool = False) -> Tensor:
    """Where objects are: 1 in the cells of a grid over the image whose centre lies in a box.
    [MTL-SSL section 3.1, foreground labeling]

    ``original=True`` marks cells as the released code does, which rounds outwards by up to one cell.

    Shapes: boxes [N, 4]; returns [grid_size, grid_size], rows from top to bottom.
    """
    rows, columns = _cells(boxes, image_size, grid_size, original)
    return (rows.to(boxes).T @ columns.to(boxes) > 0).to(boxes)


def foreground_of_masks(masks: Tensor, grid_size: int) -> Tensor:
    """Where objects are by their segmentations: 1 in the cells whose centre lies in a mask.

    An experiment of ours, for data with masks: a box of a thin or round object is half background.

    Shapes: masks [N, H, W] bool; returns [grid_size, grid_size], float32.
    """
    height, width = masks.shape[1:]
    centres = torch.arange(grid_size, device=masks.device) + 0.5
    rows, columns = ((centres * (side / grid_size)).long() for side in (height, width))
    return masks[:, rows[:, None], columns[None]].any(0).float()


def foreground_weights(boxes: Tensor, image_size: tuple[int, int], grid_size: int) -> Tensor:
    """The released code's weight of each cell: 1 over the cells of the smallest box there, over the mean of all.

    Shapes: boxes [N, 4]; returns [grid_size, grid_size] of mean 1.
    """
    rows, columns = _cells(boxes, image_size, grid_size, original=True)
    each = 1 / (rows.sum(1) * columns.sum(1)).clamp(min=1).to(boxes)  # [N]
    covering = (rows[:, :, None] & columns[:, None, :]) * each[:, None, None]
    floor = boxes.new_full((1, grid_size, grid_size), 1 / grid_size**2)
    weights = torch.cat([floor, covering]).amax(0)
    return weights / weights.mean()


def edge_distances(boxes: Tensor, image_size: tuple[int, int], grid_size: int) -> tuple[Tensor, Tensor]:
    """How far the edges of the box that a cell's centre lies in are away, and which box that is: the smallest.

    An experiment of ours, a task that helps to place boxes: the paper recycles boxes for what and where alone.

    Shapes: boxes [N, 4]; returns distances [4, grid_size, grid_size] in pixels (left, top, right, bottom) and owner
    [grid_size, grid_size] int64, -1 in no box.
    """
    height, width = image_size
    steps = (torch.arange(grid_size, device=boxes.device) + 0.5) / grid_size
    centres = torch.stack(torch.meshgrid(steps * width, steps * height, indexing="xy"))  # [2, grid, grid]
    low, high = centres - boxes[:, :2, None, None], boxes[:, 2:, None, None] - centres
    distances = torch.cat([low, high], dim=1)  # [N, 4, grid, grid]
    outside = (distances <= 0).any(1)
    areas = box_area(boxes)[:, None, None].expand_as(outside).masked_fill(outside, math.inf)
    nowhere = areas.new_full((1, grid_size, grid_size), math.inf)
    nothing = distances.new_zeros(1, 4, grid_size, grid_size)
    smallest, owner = torch.cat([areas, nowhere]).min(0)
    own = torch.cat([distances, nothing]).gather(0, owner.expand(1, 4, -1, -1))[0]
    return own, owner.masked_fill(smallest.isinf(), -1)


def refinement_windows(boxes: Tensor, image_size: tuple[int, int], count: int) -> Tensor:
    """Windows that grow from each box to the whole image in equal steps. [MTL-SSL section 3.3]

    Each edge of window i of 0..count-1 has gone i / (count - 1) of its way to the image's edge: window 0 is the box,
    the last the image.

    Shapes: boxes [P, 4]; returns [P, count, 4].
    """
    image = whole_image(image_size, boxes)
    steps = torch.linspace(0, 1, count, device=boxes.device, dtype=boxes.dtype)[:, None]  # [count, 1]
    return torch.lerp(boxes[:, None], image.expand(boxes.shape[0], count, 4), steps.expand(boxes.shape[0], -1, 4))


def _touches(windows: Tensor, boxes: Tensor) -> Tensor:
    low = windows[:, None, :2].maximum(boxes[None, :, :2])
    high = windows[:, None, 2:].minimum(boxes[None, :, 2:])
    return (high > low).all(-1).any(1)


def _widen(boxes: Tensor, image_size: tuple[int, int], min_size: float) -> Tensor:
    """Boxes of at least ``min_size`` a side, moved inside the image."""
    sides = boxes.new_tensor(image_size[::-1])  # (width, height), as x comes before y in a box
    extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=min_size).minimum(sides)
    low = ((boxes[:, :2] + boxes[:, 2:] - extent) / 2).clamp(min=0).minimum(sides - extent)
    return torch.cat([low, low + extent], dim=1)


def _spans(low: Tensor, high: Tensor, edges: Tensor) -> Tensor:
    """[N, cells] 1 where the interval [low, high) covers the cell between two neighbouring edges."""
    return ((low[:, None] <= edges[None, :-1]) & (edges[None, 1:] <= high[:, None])).to(low)


def _overlaps(low: Tensor, high: Tensor, edges: Tensor) -> Tensor:
    """[M, cells] the part of each interval [low, high) that lies in the cell between two neighbouring edges."""
    shared = high[:, None].minimum(edges[None, 1:]) - low[:, None].maximum(edges[None, :-1])
    return shared.clamp(min=0) / (high - low)[:, None]


def _cells(boxes: Tensor, image_size: tuple[int, int], grid_size: int, original: bool) -> tuple[Tensor, Tensor]:
    """Rows [N, grid] and columns [N, grid] of the grid that each box marks."""
    height, width = image_size
    cells = torch.arange(grid_size, device=boxes.device)
    scaled = boxes * boxes.new_tensor([grid_size / width, grid_size / height] * 2)
    if original:  # both ends inclusive; 0.99: the released code's create_pascal_tf_record.py
        low = scaled[:, :2].floor()
        high = (scaled[:, 2:] + 0.99).floor().clamp(max=grid_size - 1)
        inside = (low[..., None] <= cells) & (cells <= high[..., None])
    else:
        centres = cells + 0.5
        inside = (scaled[:, :2, None] <= centres) & (centres < scaled[:, 2:, None])
    return inside[:, 1], inside[:, 0]
