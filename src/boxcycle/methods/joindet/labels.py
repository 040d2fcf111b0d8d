"""The object priors that JoinDet makes for itself: regions of the attention map, confident queries, and their fusion.

Boxes are xyxy as parts of the un-augmented, un-padded image. Everything here runs on the CPU, an image at a time.
"""

from __future__ import annotations

import torch
from scipy import ndimage
from torch import Tensor
from torchvision.ops import box_iou, nms

REGION_SCORE = 1.0  # of a region prior; the paper gives it none


def foreground(attention: Tensor, valid: tuple[int, int] | None = None) -> Tensor:
    """Cells above the mean of the map. [JoinDet Eq. 2]

    ``valid``: (height, width) in cells of the part that is image; what is beyond is neither counted nor foreground.

    Shapes: attention [h, w]; returns [h, w] bool.
    """
    height, width = valid or attention.shape
    inside = attention[:height, :width]
    mask = torch.zeros_like(attention, dtype=torch.bool)
    mask[:height, :width] = inside > inside.mean()
    return mask


def region_priors(
    attention: Tensor,
    *,
    valid: tuple[int, int] | None = None,
    min_area: float = 0.01,
    max_regions: int | None = 10,
) -> Tensor:
    """The rectangle around each connected part of the foreground, largest part first. [JoinDet Eq. 2] [JoinDet Eq. 3]

    Cells are connected by their sides. Parts of less than ``min_area`` of the map are noise and are left out, as are
    all but the ``max_regions`` largest; 0 and None are the paper, which keeps all.

    Shapes: attention [h, w]; returns [N, 4].
    """
    height, width = valid or attention.shape
    parts, _ = ndimage.label(foreground(attention, valid).cpu().numpy())
    sizes = torch.bincount(torch.from_numpy(parts).flatten())[1:]
    kept = [
        row for row in sizes.argsort(descending=True, stable=True).tolist() if sizes[row] >= min_area * height * width
    ]
    around = ndimage.find_objects(parts)
    corners = [
        (columns.start / width, rows.start / height, columns.stop / width, rows.stop / height)
        for rows, columns in (around[row] for row in kept[:max_regions])
    ]
    return torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)


def instance_priors(
    boxes: Tensor, logits: Tensor, mask: Tensor, *, threshold: float = 0.5, valid: tuple[int, int] | None = None
) -> tuple[Tensor, Tensor]:
    """Queries that say foreground and lie on it. [JoinDet Eq. 4] [JoinDet Eq. 5] [JoinDet Eq. 6]

    A query says foreground where that logit is above background's, and lies on it where more than ``threshold`` of its
    box does. There is no suppression: near duplicates become one in Box Smooth.

    Shapes: boxes [Q, 4] xyxy, logits [Q, 2] background first, mask [h, w] bool; returns boxes [N, 4] inside the image
    and their scores [N].
    """
    clipped = boxes.clamp(0, 1)
    solid = (clipped[:, 2:] > clipped[:, :2]).all(1)
    kept = solid & (logits[:, 1] > logits[:, 0])
    kept &= foreground_share(clipped, mask, valid) > threshold
    return clipped[kept], logits.softmax(1)[kept, 1]


def foreground_share(boxes: Tensor, mask: Tensor, valid: tuple[int, int] | None = None) -> Tensor:
    """The part of each box's area that is foreground, N_t / N_a, exact for any size. [JoinDet Eq. 6]

    Shapes: boxes [Q, 4] inside the image, mask [h, w]; returns [Q], 0 for a box without area.
    """
    height, width = valid or mask.shape
    sides = boxes.new_tensor([width, height, width, height])
    x1, y1, x2, y2 = (boxes * sides).unbind(1)
    columns, rows = torch.arange(width).to(boxes), torch.arange(height).to(boxes)
    across = (torch.minimum(x2[:, None], columns + 1) - torch.maximum(x1[:, None], columns)).clamp(min=0)  # [Q, w]
    down = (torch.minimum(y2[:, None], rows + 1) - torch.maximum(y1[:, None], rows)).clamp(min=0)  # [Q, h]
    covered = ((down @ mask[:height, :width].to(boxes)) * across).sum(1)
    return covered / ((x2 - x1) * (y2 - y1)).clamp(min=1e-12)


def smooth_boxes(
    previous: Tensor,
    previous_scores: Tensor,
    current: Tensor,
    current_scores: Tensor,
    momentum: float = 0.45,
    iou_threshold: float = 0.55,
    max_boxes: int | None = 30,
) -> tuple[Tensor, Tensor]:
    """Box Smooth: priors of the last update and of this one that overlap become one. [JoinDet Eq. 7] [JoinDet Eq. 8]

    Boxes weigh their score times ``momentum`` (previous) or 1 - ``momentum`` (current). Heaviest first, each joins the
    cluster whose mean box so far it overlaps most, if by more than ``iou_threshold``, or opens one. A cluster's box is
    the weighted mean, its score the plain mean. Boxes without area or weight are left out; so momentum 1 keeps the
    previous priors and momentum 0 takes the current ones. At most ``max_boxes`` of the highest scores are kept: nothing
    else removes a prior.

    Shapes: previous [T, 4], current [U, 4], scores [T] and [U]; returns boxes [N, 4] and scores [N], best first.
    """
    boxes, scores = torch.cat([previous, current]).double(), torch.cat([previous_scores, current_scores]).double()
    share = torch.cat([torch.full((len(previous),), momentum), torch.full((len(current),), 1 - momentum)]).to(scores)
    weights = share * scores * (boxes[:, 2:] > boxes[:, :2]).all(1)
    clusters: list[list[int]] = []
    fused = boxes.new_zeros(0, 4)
    for row in weights.argsort(descending=True, stable=True).tolist():
        if weights[row] <= 0:
            break
        overlap = box_iou(boxes[row : row + 1], fused)[0]
        if len(overlap) and overlap.max() > iou_threshold:
            best = int(overlap.argmax())
            clusters[best].append(row)
            members = torch.tensor(clusters[best])
            fused[best] = (weights[members, None] * boxes[members]).sum(0) / weights[members].sum()
        else:
            clusters.append([row])
            fused = torch.cat([fused, boxes[row : row + 1]])
    means = torch.stack([scores[members].mean() for members in clusters]) if clusters else scores[:0]
    order = means.argsort(descending=True, stable=True)[:max_boxes]
    return fused[order].to(previous), means[order].to(previous_scores)


def suppress_boxes(
    previous: Tensor,
    previous_scores: Tensor,
    current: Tensor,
    current_scores: Tensor,
    iou_threshold: float = 0.55,
    max_boxes: int | None = 30,
) -> tuple[Tensor, Tensor]:
    """Suppression instead of Box Smooth: a previous prior stays where no current one overlaps it. [JoinDet Table 6]

    Every current box ranks before every previous one, then by score.

    Shapes: previous [T, 4], current [U, 4], scores [T] and [U]; returns boxes [N, 4] and scores [N].
    """
    boxes, scores = torch.cat([current, previous]), torch.cat([current_scores, previous_scores])
    ranks = scores + torch.cat([torch.ones_like(current_scores), torch.zeros_like(previous_scores)])
    kept = nms(boxes, ranks, iou_threshold)[:max_boxes]
    return boxes[kept], scores[kept]


def replace_boxes(boxes: Tensor, scores: Tensor, max_boxes: int | None = 30) -> tuple[Tensor, Tensor]:
    """No smoothing at all: the current priors, best first. [JoinDet Table 6]

    Shapes: boxes [U, 4], scores [U]; returns boxes [N, 4] and scores [N].
    """
    order = scores.argsort(descending=True, stable=True)[:max_boxes]
    return boxes[order], scores[order]


def random_boxes(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes drawn anywhere, sides from a tenth of the image to the whole: what UP-DETR's random crops come to.

    Returns boxes [N, 4] and scores [N], all :data:`REGION_SCORE`.
    """
    sides = 0.1 + 0.9 * torch.rand(count, 2, generator=generator)
    corners = torch.rand(count, 2, generator=generator) * (1 - sides)
    return torch.cat([corners, corners + sides], 1), torch.full((count,), REGION_SCORE)
