"""torchvision's two-stage detectors (Faster, Mask and Keypoint R-CNN) in named stages, as ``two_stage`` has them.

The stages call the detector's own modules in the order of its own ``forward``: the same random numbers give the same
losses and detections, bit for bit. Frame *image* is here what torchvision's transform makes: resized and normalised.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList as TorchvisionImageList
from torchvision.models.detection.roi_heads import (
    RoIHeads,
    fastrcnn_loss,
    keypointrcnn_inference,
    keypointrcnn_loss,
    maskrcnn_inference,
    maskrcnn_loss,
)
from torchvision.ops import MultiScaleRoIAlign

from boxcycle.models.two_stage import RoIs
from boxcycle.types import ImageList

TorchvisionTarget = Mapping[str, Any]  # boxes [N, 4], labels [N] and, as the detector wants, masks or keypoints


def check_detector(detector: object) -> None:
    """Raise ``TypeError`` with one sentence if this is no detector whose stages are known."""
    _must_run_as(detector, GeneralizedRCNN, "a torchvision detector with an RPN and RoI heads (Faster or Mask R-CNN)")
    heads: Any = detector.roi_heads  # type: ignore[attr-defined]
    _must_run_as(heads, RoIHeads, "torchvision's RoIHeads as its roi_heads")
    _must_run_as(heads.box_roi_pool, MultiScaleRoIAlign, "torchvision's MultiScaleRoIAlign as its box_roi_pool")
    _must_run_as(heads.box_predictor, FastRCNNPredictor, "torchvision's FastRCNNPredictor as its box_predictor")


def _must_run_as(part: object, kind: type, wanted: str) -> None:
    """An instance of a subclass with a ``forward`` of its own would be run without it."""
    if not isinstance(part, kind) or type(part).forward is not kind.forward:  # type: ignore[attr-defined]
        found = f"{type(part).__module__}.{type(part).__qualname__}"
        raise TypeError(f"expected a detector that is or has {wanted}, with its own forward; found {found}")


class Pyramid(NamedTuple):
    """Feature maps of all levels, and how the detector pools regions from them.

    ``every``: name -> [B, C, H_l, W_l], finest first; ``sizes``: each image's (height, width) without padding;
    ``pool``: the detector's own ``box_roi_pool``, which chooses the level of a region by its size.
    """

    every: dict[str, Tensor]
    sizes: list[tuple[int, int]]
    pool: MultiScaleRoIAlign

    @property
    def levels(self) -> dict[str, Tensor]:
        """The levels that regions are pooled from; the proposer may have a coarser one."""
        return {name: self.every[name] for name in self.every if name in self.pool.featmap_names}

    def detach(self) -> Pyramid:
        """The same maps, through which no gradient flows."""
        return self._replace(every={name: level.detach() for name, level in self.every.items()})

    def pooled(self, boxes: list[Tensor]) -> Tensor:
        """Features [R, C, h, w] of regions (boxes: a list of [R_i, 4], image frame)."""
        return self.pool(self.every, boxes, self.sizes)


class PyramidRegionHead(nn.Module):
    """Class logits of regions of a pyramid: copies of a detector's ``box_head`` and of its layer ``cls_score``.

    It always runs as in evaluation: batch norms with fixed statistics, no dropout. So a window's logits do not depend
    on the windows beside it, an empty batch is harmless, and nothing is drawn from torch's global generator.
    """

    def __init__(self, stage: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.stage, self.classifier = copy.deepcopy(stage), copy.deepcopy(classifier)
        self.requires_grad_(True).eval()

    def train(self, mode: bool = True) -> PyramidRegionHead:
        """Stay as in evaluation, whatever the ``mode`` of the model around it."""
        return super().train(False)

    def prepare(self, maps: Pyramid) -> Pyramid:
        """What :meth:`classify` wants of the maps: as they are."""
        return maps

    def classify(self, prepared: Pyramid, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions."""
        return self.classifier(self.stage(prepared.pooled(boxes)).flatten(1))

    def forward(self, maps: Pyramid, boxes: list[Tensor]) -> Tensor:
        """Logits [R, K+1] of regions."""
        return self.classify(self.prepare(maps), boxes)


class Sampled(NamedTuple):
    """The regions that teach the second stage; lists have one entry an image, regions in torchvision's order.

    ``boxes`` [R_i, 4], image frame; ``matched`` [R_i]: row of the target's box; ``labels`` [R_i], 0 background;
    ``wanted`` [R_i, 4]: encoded boxes.
    """

    boxes: list[Tensor]
    matched: list[Tensor]
    labels: list[Tensor]
    wanted: list[Tensor]

    def objects_first(self) -> tuple[RoIs, Tensor]:
        """The same regions in this package's order, the objects of an image first, and their rows [R] in torchvision's.

        Every region has the same share of a loss, as in torchvision's own.
        """
        orders = [torch.argsort((labels > 0).to(torch.int8), descending=True, stable=True) for labels in self.labels]
        starts = torch.tensor([0, *map(len, self.labels)]).cumsum(0).tolist()
        rows = torch.cat([order + start for order, start in zip(orders, starts[:-1], strict=True)])
        boxes = [regions[order] for regions, order in zip(self.boxes, orders, strict=True)]
        labels, matched, wanted = (torch.cat(values)[rows] for values in (self.labels, self.matched, self.wanted))
        share = torch.full_like(wanted[:, 0], 1 / max(len(rows), 1))
        return RoIs(boxes, labels, matched, wanted, labels > 0, share), rows


@dataclass(frozen=True)
class TorchvisionStages:
    """A view of a torchvision detector; it owns nothing. ``detector``: see :func:`check_detector`."""

    detector: GeneralizedRCNN

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return self.detector.roi_heads.box_predictor.cls_score.out_features - 1

    def region_head(self) -> PyramidRegionHead:
        """A new head that classifies regions as the detector's own does."""
        heads = self.detector.roi_heads
        return PyramidRegionHead(heads.box_head, heads.box_predictor.cls_score)

    def batch(
        self, images: list[Tensor], targets: list[TorchvisionTarget] | None = None
    ) -> tuple[ImageList, list[dict[str, Any]]]:
        """Resize, normalise and pad; the targets follow. Shapes: images [3, H_i, W_i] in [0, 1]."""
        moved, targets_moved = self.detector.transform(images, targets)
        return ImageList(moved.tensors, [(int(h), int(w)) for h, w in moved.image_sizes]), targets_moved or []

    def features(self, batch: ImageList) -> Pyramid:
        """The shared feature maps of a batch."""
        maps = self.detector.backbone(batch.tensors)
        levels = {"0": maps} if isinstance(maps, Tensor) else dict(maps)  # "0": torchvision's name of an only level
        return Pyramid(levels, batch.sizes, self.detector.roi_heads.box_roi_pool)

    def propose(
        self, maps: Pyramid, batch: ImageList, targets: list[dict[str, Any]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Proposals [P, 4] of each image, image frame; with targets, the proposer's losses too."""
        return self.detector.rpn(TorchvisionImageList(batch.tensors, batch.sizes), maps.every, targets)

    def sample(self, proposals: list[Tensor], targets: list[dict[str, Any]]) -> Sampled:
        """Draw the proposals that teach, with torch's global generator; annotated boxes are among the proposals."""
        return Sampled(*self.detector.roi_heads.select_training_samples(proposals, targets))

    def classify(self, maps: Pyramid, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits [R, K+1] and box deltas [R, 4 (K+1)] of the given regions."""
        heads = self.detector.roi_heads
        return heads.box_predictor(heads.box_head(maps.pooled(boxes)))

    def region_losses(
        self, maps: Pyramid, sampled: Sampled, logits: Tensor, deltas: Tensor, targets: list[dict[str, Any]]
    ) -> dict[str, Tensor]:
        """torchvision's losses of the second stage, under its names."""
        heads = self.detector.roi_heads
        classes, regression = fastrcnn_loss(logits, deltas, sampled.labels, sampled.wanted)
        losses = {"loss_classifier": classes, "loss_box_reg": regression}
        objects = [labels > 0 for labels in sampled.labels]
        boxes, matched = (
            [values[rows] for values, rows in zip(lists, objects, strict=True)]
            for lists in (sampled.boxes, sampled.matched)
        )
        if heads.has_mask():
            masks, labels = ([target[name] for target in targets] for name in ("masks", "labels"))
            losses["loss_mask"] = maskrcnn_loss(self._mask_logits(maps, boxes), boxes, masks, labels, matched)
        if heads.has_keypoint():
            points = [target["keypoints"] for target in targets]
            losses["loss_keypoint"] = keypointrcnn_loss(self._keypoint_logits(maps, boxes), boxes, points, matched)
        return losses

    def detect(
        self, maps: Pyramid, logits: Tensor, deltas: Tensor, proposals: list[Tensor], originals: list[tuple[int, int]]
    ) -> list[dict[str, Tensor]]:
        """torchvision's detections of each image, in the frame of the images of sizes ``originals`` (height, width)."""
        heads = self.detector.roi_heads
        boxes, scores, labels = heads.postprocess_detections(logits, deltas, proposals, maps.sizes)
        found = [
            {"boxes": one, "labels": two, "scores": three}
            for one, two, three in zip(boxes, labels, scores, strict=True)
        ]
        if heads.has_mask():
            masks = maskrcnn_inference(self._mask_logits(maps, boxes), labels)
            found = [its | {"masks": mask} for its, mask in zip(found, masks, strict=True)]
        if heads.has_keypoint():
            points, certainty = keypointrcnn_inference(self._keypoint_logits(maps, boxes), boxes)
            found = [
                its | {"keypoints": one, "keypoints_scores": two}
                for its, one, two in zip(found, points, certainty, strict=True)
            ]
        return self.detector.transform.postprocess(found, maps.sizes, originals)

    def _mask_logits(self, maps: Pyramid, boxes: list[Tensor]) -> Tensor:
        heads = self.detector.roi_heads
        return heads.mask_predictor(heads.mask_head(heads.mask_roi_pool(maps.every, boxes, maps.sizes)))

    def _keypoint_logits(self, maps: Pyramid, boxes: list[Tensor]) -> Tensor:
        heads = self.detector.roi_heads
        return heads.keypoint_predictor(heads.keypoint_head(heads.keypoint_roi_pool(maps.every, boxes, maps.sizes)))
