"""The set loss of DETR: match queries and boxes one to one, then teach classes and boxes.

Every loss is the mean over the images of a loss of the image alone, divided by the number of the image's own boxes. The
papers divide by the number of boxes of the whole batch over all processes, so that there a box weighs the same in
every image; here an image does, and how images are spread over batches and processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot
from torchvision.ops import box_convert, generalized_box_iou_loss

from boxcycle.ops.boxes import covered_fraction
from boxcycle.ops.set_matching import box_costs, focal_cost, match
from boxcycle.types import Target


class SetLossConfig(BaseModel):
    """Weights of the set loss, which are those of the matching cost too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    classification: Literal["focal", "softmax"] = Field(
        "focal", description="focal: K classes apart; softmax: the focal loss of one distribution with background"
    )
    class_weight: float = Field(2.0, gt=0, description="weight of the classes")
    box_weight: float = Field(5.0, gt=0, description="weight of the L1 distance of boxes")
    giou_weight: float = Field(2.0, gt=0, description="weight of the generalised IoU of boxes")
    alpha: float = Field(0.25, gt=0, lt=1, description="part of objects in the focal loss")
    gamma: float = Field(2.0, ge=0, description="how fast the focal loss of what is known falls")


class Wanted(NamedTuple):
    """What one image teaches: ``boxes`` [N, 4] cxcywh as parts of the image, ``labels`` [N], ``weight`` [N], and
    ``ignore`` [I, 4] xyxy as parts of the image, regions in which nothing is background.
    """

    boxes: Tensor
    labels: Tensor
    weight: Tensor
    ignore: Tensor


class SetMatch(NamedTuple):
    """Which query of which layer and image learns which box; all [M] int64. ``box`` counts over the whole batch."""

    layer: Tensor
    image: Tensor
    query: Tensor
    box: Tensor


def wanted_of(target: Target, size: tuple[int, int]) -> Wanted:
    """A target (image frame) in the frame of the predictions; ``size`` is the image's (height, width)."""
    boxes, labels = target["boxes"], target["labels"]
    parts = boxes / boxes.new_tensor([size[1], size[0], size[1], size[0]])
    ignored = target["iscrowd"].bool() if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    weight = target["weight"].to(boxes) if "weight" in target else torch.ones_like(boxes[:, 0])
    kept = ~ignored
    return Wanted(box_convert(parts[kept], "xyxy", "cxcywh"), labels[kept], weight[kept], parts[ignored])


def foreground_probs(logits: Tensor, classification: str) -> Tensor:
    """Probabilities of the K classes. Shapes: logits [..., K], or with softmax [..., K+1]; returns [..., K]."""
    return logits.sigmoid() if classification == "focal" else logits.softmax(-1)[..., 1:]


def match_sets(logits: Tensor, boxes: Tensor, wanted: Sequence[Wanted], config: SetLossConfig) -> SetMatch:
    """The matching of least cost of every layer and image. [DETR Eq. 1]

    Shapes: logits [layers, B, Q, K or K+1], boxes [layers, B, Q, 4].
    """
    counts = [len(its.labels) for its in wanted]
    labels, all_boxes = torch.cat([its.labels for its in wanted]), torch.cat([its.boxes for its in wanted])
    with torch.no_grad():
        probs = foreground_probs(logits.detach(), config.classification)
        distance, overlap = box_costs(boxes.detach(), all_boxes)
        cost = config.class_weight * focal_cost(probs, labels, config.alpha, config.gamma)
        cost = (cost + config.box_weight * distance + config.giou_weight * overlap).cpu()  # one wait for a GPU
    rows, first = [], 0
    for image, count in enumerate(counts):
        for layer in range(len(cost)):
            query, box = match(cost[layer, image, :, first : first + count])
            rows.append(torch.stack([torch.full_like(box, layer), torch.full_like(box, image), query, box + first]))
        first += count
    return SetMatch(*torch.cat(rows, 1).to(boxes.device))


def set_losses(
    logits: Tensor, boxes: Tensor, wanted: Sequence[Wanted], matched: SetMatch, config: SetLossConfig
) -> dict[str, Tensor]:
    """Losses "class", "box" and "giou" of each layer, [layers]. [DETR Eq. 2] [Deformable DETR section A.4]

    Shapes: logits [layers, B, Q, K or K+1], boxes [layers, B, Q, 4] cxcywh as parts of the image.
    """
    layer, image, query, box = matched
    weight, labels = torch.cat([its.weight for its in wanted]), torch.cat([its.labels for its in wanted])
    share = 1 / (len(wanted) * boxes.new_tensor([max(len(its.labels), 1) for its in wanted]))  # [B]
    found, sought = boxes[layer, image, query], torch.cat([its.boxes for its in wanted])[box]
    each = share[image] * weight[box]
    distance = (found - sought).abs().sum(1) * each
    corners = (box_convert(one, "cxcywh", "xyxy") for one in (found, sought))
    overlap = generalized_box_iou_loss(*corners) * each
    by_label = torch.zeros(logits.shape[:3], dtype=torch.int64, device=logits.device)
    by_label[layer, image, query] = labels[box]
    by_weight = (~ignored_queries(boxes.detach(), wanted)).to(share)
    by_weight[layer, image, query] = weight[box]
    focal = focal_loss(logits, by_label, config) * by_weight * share[:, None]
    none = boxes.new_zeros(len(boxes))
    return {
        "class": focal.sum((1, 2)),
        "box": none.index_add(0, layer, distance),
        "giou": none.index_add(0, layer, overlap),
    }


def focal_loss(logits: Tensor, labels: Tensor, config: SetLossConfig) -> Tensor:
    """The focal loss of each query. [Focal loss Eq. 5]

    "focal" sums over K independent classes; "softmax" is that of the label's probability among K+1, which for K = 1 is
    the focal loss of a sigmoid of the two logits' difference.

    Shapes: logits [..., K], or with softmax [..., K+1]; labels [...] in 0..K, 0 background; returns [...].
    """
    alpha, gamma = config.alpha, config.gamma
    if config.classification == "softmax":
        log_prob = logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]
        balance = torch.where(labels > 0, alpha, 1 - alpha)
        return -balance * (1 - log_prob.exp()) ** gamma * log_prob
    is_class = one_hot(labels, logits.shape[-1] + 1)[..., 1:].bool()
    log_prob = logsigmoid(torch.where(is_class, logits, -logits))
    balance = torch.where(is_class, alpha, 1 - alpha)
    return (-balance * (1 - log_prob.exp()) ** gamma * log_prob).sum(-1)


def ignored_queries(boxes: Tensor, wanted: Sequence[Wanted]) -> Tensor:
    """Which queries' boxes lie at least half in an ignore region: they are not taught to be background.

    Shapes: boxes [layers, B, Q, 4] cxcywh as parts of the image; returns [layers, B, Q] bool.
    """
    ignored = torch.zeros(boxes.shape[:3], dtype=torch.bool, device=boxes.device)
    for number, its in enumerate(wanted):
        if len(its.ignore):
            corners = box_convert(boxes[:, number].flatten(0, 1), "cxcywh", "xyxy")
            inside = (covered_fraction(corners, its.ignore) >= 0.5).any(1)
            ignored[:, number] = inside.unflatten(0, (len(boxes), -1))
    return ignored
