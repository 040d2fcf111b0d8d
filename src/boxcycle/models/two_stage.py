"""A two-stage detector in named stages: features, propose, sample, classify, detect.

The stages are methods, so that a method of the package can stand between them (refine the class logits, classify other
windows of the same maps). Every loss is the mean over the images of a loss of the image alone; together with each
image's own random seed that makes the loss of a batch the mean of the losses of its parts, however the parts are spread
over processes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, clip_boxes_to_image

from boxcycle.models.backbone import Backbone
from boxcycle.models.batch import pad_images
from boxcycle.models.detector import Detector
from boxcycle.models.proposals import RegionProposer
from boxcycle.ops.matching import assign, sample_balanced, says_where
from boxcycle.ops.randomness import image_generator
from boxcycle.ops.unverified import unverified_rows, without_unverified
from boxcycle.types import Detections, ImageList, Target, check_target

PROPOSAL_STREAM = 1  # see ops.randomness: the draw of proposals to learn from


class RegionConfig(BaseModel):
    """How proposals become training samples, and class distributions become detections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampled: int = Field(128, gt=0, description="proposals of an image that teach the second stage (the paper: 256)")
    positive_fraction: float = Field(0.25, gt=0, le=1, description="at most this part of them are objects")
    positive_iou: float = Field(
        0.5, gt=0, le=1, description="IoU with a box from which a proposal is an object, else background"
    )
    append_boxes: bool = Field(
        True, description="add the annotated boxes to the proposals in training (the paper: false)"
    )
    score_threshold: float = Field(0.01, ge=0, lt=1, description="detections below are dropped")
    nms_iou: float = Field(
        0.5, gt=0, le=1, description="IoU of the final suppression (the paper: 0.4 on VOC, 0.6 on COCO)"
    )
    detections: int = Field(100, gt=0, description="detections kept of an image")


class RoIs(NamedTuple):
    """The regions of a batch that teach the second stage; lists have one entry an image, R in all.

    ``boxes`` [R_i, 4] xyxy, image frame; ``labels`` [R] int64, 0 background; ``matched`` [R] int64: the row of the
    target's box that an object learns; ``wanted`` [R, 4]: its encoded box; ``located`` [R] bool: whether it learns that
    or the class alone; ``share`` [R]: the part of the loss that a region carries, 1 / (B R_i), times its box's weight;
    ``unverified`` [R, K+1]: the classes that nobody looked for in a region's image, None where there are none.
    """

    boxes: list[Tensor]
    labels: Tensor
    matched: Tensor
    wanted: Tensor
    located: Tensor
    share: Tensor
    unverified: Tensor | None = None


class TwoStageDetector(Detector):
    """Region proposals, then a class and a box for each. Subclasses say what the region head is.

    ``head(maps, boxes)`` takes the feature maps and a list of boxes [R_i, 4] (image frame) and gives class logits [R,
    K+1] and class-wise box deltas [R, K, 4]. ``head.region(maps, boxes)`` gives the logits alone, in two steps that a
    method may take apart: ``prepare(maps)`` is what all regions share, ``classify(prepared, boxes)`` the rest. A copy
    of it (``copy.deepcopy``) classifies other windows of the same maps.
    """

    def __init__(
        self, backbone: Backbone, proposer: RegionProposer, head: nn.Module, num_classes: int, config: RegionConfig
    ) -> None:
        super().__init__()
        self.backbone, self.proposer, self.head = backbone, proposer, head
        self.num_classes, self.config = num_classes, config
        self.coder = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))  # Faster R-CNN's box code
        self.loss_weights = {"rpn_objectness": 1.0, "rpn_box": 1.0, "class": 1.0, "box": 1.0}
        self.watched = {}

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The unweighted losses of a batch, keys as :attr:`loss_weights`.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in the image frame.
        """
        batch = self.batch(images, targets)
        maps = self.features(batch)
        proposals, losses = self.propose(maps, batch, targets)
        rois = self.sample(proposals, targets)
        logits, deltas = self.classify(maps, rois.boxes)
        losses |= self.region_losses(logits, deltas, rois)
        self.watched = {"class_accuracy": accuracy(logits, rois.labels)}
        return losses

    def predict(self, images: list[Tensor]) -> list[Detections]:
        """Detections of each image, best first, image frame. Shapes: images [3, H_i, W_i] in [0, 1]."""
        batch = self.batch(images)
        maps = self.features(batch)
        proposals, _ = self.propose(maps, batch)
        logits, deltas = self.classify(maps, proposals)
        return self.detect(logits, deltas, proposals, batch.sizes)

    def batch(self, images: list[Tensor], targets: list[Target] | None = None) -> ImageList:
        """Check the targets, normalise the images and pad them to one size, a multiple of 32."""
        batch = pad_images(images, self.backbone.mean, self.backbone.std)
        for size, target in zip(batch.sizes, targets or [], strict=targets is not None):
            check_target(target, size, self.num_classes)
        return batch

    def features(self, batch: ImageList) -> Tensor:
        """The shared feature maps [B, C, H/16, W/16] of a batch."""
        return self.backbone.trunk(batch.tensors)

    def propose(
        self, maps: Tensor, batch: ImageList, targets: list[Target] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals [P, 4] of each image, best first, image frame; with targets, the proposer's losses too."""
        proposals, logits, deltas, anchors = self.proposer(maps, batch)
        if targets is None:
            return proposals, {}
        return proposals, self.proposer.losses(logits.float(), deltas.float(), anchors, targets)

    def sample(self, proposals: list[Tensor], targets: list[Target]) -> RoIs:
        """Draw the proposals that teach, objects and background in balance."""
        boxes, labels, matched, wanted, located, share = [], [], [], [], [], []
        for candidates, target in zip(proposals, targets, strict=True):
            if self.config.append_boxes:
                candidates = torch.cat([candidates, target["boxes"]])
            threshold = self.config.positive_iou
            assignment = assign(candidates, target, positive_iou=threshold, negative_iou=threshold)
            generator = image_generator(target, PROPOSAL_STREAM, candidates.device)
            rows = sample_balanced(assignment.labels, self.config.sampled, self.config.positive_fraction, generator)
            boxes.append(candidates[rows])
            labels.append(assignment.labels[rows])
            matched.append(assignment.matched[rows])
            wanted.append(self._encode(boxes[-1], labels[-1], matched[-1], target))
            located.append((labels[-1] > 0) & says_where(target, matched[-1]))
            share.append(_weights(labels[-1], matched[-1], target) / (len(targets) * max(len(rows), 1)))
        unverified = unverified_rows(targets, [len(regions) for regions in boxes])
        return RoIs(
            boxes,
            torch.cat(labels),
            torch.cat(matched),
            torch.cat(wanted),
            torch.cat(located),
            torch.cat(share),
            unverified,
        )

    def _encode(self, boxes: Tensor, labels: Tensor, matched: Tensor, target: Target) -> Tensor:
        wanted = torch.zeros_like(boxes)
        objects = labels > 0
        wanted[objects] = self.coder.encode_single(target["boxes"][matched[objects]], boxes[objects])
        return wanted

    def classify(self, maps: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [R, K+1] and box deltas [R, K, 4] of the given regions."""
        logits, deltas = self.head(maps, boxes)
        return logits.float(), deltas.float()

    def region_losses(self, logits: Tensor, deltas: Tensor, rois: RoIs) -> dict[str, Tensor]:
        """Cross entropy of the classes, smooth L1 of the objects' boxes for their own class."""
        rows = rois.located.nonzero().flatten()
        regression = smooth_l1_loss(
            deltas[rows, rois.labels[rows] - 1], rois.wanted[rows], beta=1 / 9, reduction="none"
        ).sum(1)
        return {"class": class_loss(logits, rois), "box": (regression * rois.share[rows]).sum()}

    def detect(
        self, logits: Tensor, deltas: Tensor, boxes: list[Tensor], sizes: list[tuple[int, int]]
    ) -> list[Detections]:
        """Decode, clip, suppress and rank: class logits and box deltas of regions into detections of each image."""
        counts = [regions.shape[0] for regions in boxes]
        per_image = zip(logits.softmax(-1).split(counts), deltas.split(counts), boxes, sizes, strict=True)
        return [self._detect(*image) for image in per_image]

    def _detect(self, probs: Tensor, deltas: Tensor, regions: Tensor, size: tuple[int, int]) -> Detections:
        region, column = (probs[:, 1:] >= self.config.score_threshold).nonzero(as_tuple=True)
        scores, labels = probs[region, column + 1], column + 1
        boxes = clip_boxes_to_image(self.coder.decode_single(deltas[region, column], regions[region]), size)
        solid = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1).nonzero().flatten()
        kept = batched_nms(boxes[solid], scores[solid], labels[solid], self.config.nms_iou)[: self.config.detections]
        keep = solid[kept]
        return Detections(boxes=boxes[keep], labels=labels[keep], scores=scores[keep], probs=probs[region[keep]])


def thin(rois: RoIs, limit: int) -> tuple[RoIs, Tensor]:
    """At most ``limit`` regions of each image, and their rows [R']; shares grow so that images weigh as before.

    Rows are evenly spread: objects come first among an image's sampled regions, and keep their part.
    """
    kept, rows, growth, start = [], [], [], 0
    for boxes in rois.boxes:
        count = min(len(boxes), limit)
        chosen = torch.arange(count, device=boxes.device) * len(boxes) // max(count, 1)
        kept.append(boxes[chosen])
        rows.append(chosen + start)
        growth.append(rois.share.new_full((count,), len(boxes) / max(count, 1)))
        start += len(boxes)
    row = torch.cat(rows)
    share = rois.share[row] * torch.cat(growth)
    unverified = None if rois.unverified is None else rois.unverified[row]
    return RoIs(kept, rois.labels[row], rois.matched[row], rois.wanted[row], rois.located[row], share, unverified), row


def class_loss(logits: Tensor, rois: RoIs) -> Tensor:
    """Cross entropy of regions, each with its share.

    A background region is not told that it shows none of its image's unverified classes. An object is of its class
    and of no other, so there all of them learn.

    Shapes: logits [R, K+1]; returns a scalar.
    """
    logits = without_unverified(logits, rois.unverified, known=(rois.labels > 0)[:, None])
    return (cross_entropy(logits, rois.labels, reduction="none") * rois.share).sum()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Part of the objects among the regions whose most likely foreground class is right; a number to watch."""
    objects = labels > 0
    right = logits.detach()[objects, 1:].argmax(1) + 1 == labels[objects]
    return right.float().sum() / objects.sum().clamp(min=1)


def _weights(labels: Tensor, matched: Tensor, target: Target) -> Tensor:
    """Weight [R] of each region: its box's where it is an object, 1 elsewhere."""
    ones = torch.ones(len(labels), device=labels.device)
    if "weight" not in target or not len(target["weight"]):
        return ones
    return torch.where(labels > 0, target["weight"][matched].to(ones), ones)
