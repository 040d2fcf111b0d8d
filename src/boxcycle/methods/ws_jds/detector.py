"""A detector and a segmenter that learn from image tags alone, and teach each other.

Shen, Ji, Wang, Wu and Cao, "Cyclic Guidance for Weakly Supervised Joint Detection and Segmentation", CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms

from boxcycle.data.index import Index
from boxcycle.data.proposals import ProposalConfig, open_proposals
from boxcycle.methods.ws_jds import labels, losses
from boxcycle.methods.ws_jds.guidance import (
    Scores,
    Seen,
    boundary_loss,
    enlarged,
    guided_loss,
    localise,
    map_cells,
    mask_cells,
    plain_loss,
    seeds,
)
from boxcycle.methods.ws_jds.network import DetectionBranch, GuidanceConfig, SegmentationBranch, WeakDetectorConfig
from boxcycle.methods.ws_jds.refinement import check, refined
from boxcycle.methods.ws_jds.views import check_tags, inside, instance_masks, sampled, searched, view
from boxcycle.models.backbone import build_backbone
from boxcycle.models.batch import pad_images
from boxcycle.types import Detections, ImageList, Target


class WeakDetector(nn.Module):
    """WS-JDS: WSDDN and a segmentation branch on one trunk, guided by each other. [WS-JDS section 3]

    Training reads the images, ``image_labels`` and ``proposals`` of the targets, and no box that somebody annotated.
    Where targets bring no proposals, they are searched in the image as it is given. ``guided_after``: calls of
    ``forward`` in training before guidance begins.
    """

    loss_weights: dict[str, float]
    watched: dict[str, Tensor]
    passes: Tensor
    segmenter: Any  # a module, or None where it is off

    def __init__(
        self,
        num_classes: int,
        config: WeakDetectorConfig | None = None,
        guidance: GuidanceConfig | None = None,
        proposals: ProposalConfig | None = None,
        *,
        guided_after: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.guidance = config or WeakDetectorConfig(), guidance or GuidanceConfig()
        self.proposal_config = proposals or ProposalConfig()
        self.num_classes, self.guided_after = num_classes, guided_after
        backbone = build_backbone(
            self.config.backbone, weights=self.config.weights, frozen=self.config.frozen, stride=self.config.stride
        )
        if self.config.frozen is None:
            backbone.trunk.requires_grad_(False)
        self.detection = DetectionBranch(backbone, self.config, num_classes)
        del backbone.head  # it belongs to the branch now; one owner for each weight
        self.backbone = backbone
        check(self.config.crf)
        self.loss_weights, self.watched, self.segmenter = {"detection": 1.0}, {}, None
        if self.guidance.segmentation:
            self.segmenter = SegmentationBranch(backbone.trunk_channels, self.config, num_classes)
            self.loss_weights |= {"segmentation": self.guidance.segmentation, "boundary": self.guidance.boundary}
        if self.guidance.variant == "both":
            self.loss_weights["mask_detection"] = self.guidance.mask_detection
        self.register_buffer("passes", torch.zeros((), dtype=torch.int64))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Detection and segmentation, whose gradients ``fit.clip=group`` clips apart.

        While the trunk is frozen, only guidance then tells the detection of one variant from another's.
        """
        segmentation = list(self.segmenter.parameters()) if self.segmenter is not None else []
        others = {id(parameter) for parameter in segmentation}
        detection = [parameter for parameter in self.parameters() if id(parameter) not in others]
        groups = [{"name": "detection", "params": detection}, {"name": "segmentation", "params": segmentation}]
        return [group for group in groups if group["params"]]

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """:meth:`losses` in training; :meth:`predict` in evaluation, with the proposals of the targets if any."""
        if not self.training:
            return self.predict(images, [target["proposals"] for target in targets] if targets else None)
        if targets is None:
            raise ValueError("a detector in training mode needs targets; call predict(images), or eval() first")
        found = self.losses(images, targets)
        self.passes += 1
        return found

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The unweighted losses of a batch, keys as :attr:`loss_weights`, each a mean over the images.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets with ``image_labels`` [K].
        """
        guided = int(self.passes) >= self.guided_after
        seen = self._see(images, targets, maps=guided and self.guidance.variant in ("to_segmentation", "both"))
        self.watched = {"present_score": _mean([each.scores.image[each.tags > 0] for each in seen])}
        self.watched["guided"] = torch.tensor(float(guided))
        found = self._detection(seen, guided)
        if self.segmenter is not None:
            found["segmentation"] = self._segmentation(seen, guided)
            found["boundary"] = _mean_of([boundary_loss(each) if guided else 0 * each.logits.sum() for each in seen])
        return found

    @torch.no_grad()
    def predict(self, images: list[Tensor], proposals: Sequence[Tensor] | None = None) -> list[Detections]:
        """Detections of each image, best first, image frame; scores are averaged over scales and flips.

        Shapes: images [3, H_i, W_i] in [0, 1], proposals [P_i, 4], image frame; without, they are searched.
        """
        boxes = self._checked(images, proposals)
        joint, classes = ([torch.zeros_like(b[:, :1]).repeat(1, self.num_classes) for b in boxes] for _ in range(2))
        views = [
            (scale, mirrored) for scale in self.config.scales for mirrored in (False, True)[: 1 + self.config.flip]
        ]
        for scale, mirrored in views:
            seen = [view(image, regions, scale, mirrored) for image, regions in zip(images, boxes, strict=True)]
            batch = pad_images([image for image, _ in seen], self.backbone.mean, self.backbone.std)
            scores = self._scores(self.backbone.trunk(batch.tensors), [regions for _, regions in seen])
            for position, each in enumerate(scores):
                joint[position] += each.joint / len(views)
                classes[position] += each.classes / len(views)
        return [self._detect(*each) for each in zip(joint, classes, boxes, strict=True)]

    @torch.no_grad()
    def segment(self, images: list[Tensor], proposals: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Masks S [K, H_i, W_i] of each image in [0, 1], 0 for the classes that the detection does not see in it.

        A class is seen where its image score is at least one half; with ``config.crf`` a CRF brings its mask to the
        edges of the image. Raises ``ValueError`` without a segmentation branch.
        """
        if self.segmenter is None:
            raise ValueError("this detector has no segmentation branch: it was trained with guidance.segmentation=0")
        boxes = self._checked(images, proposals)
        batch = pad_images(images, self.backbone.mean, self.backbone.std)
        features = self.backbone.trunk(batch.tensors)
        seen = [scores.image >= 0.5 for scores in self._scores(features, boxes)]
        masks = [
            enlarged(logits.sigmoid(), self.backbone.stride, size)
            for logits, size in zip(self._logits(features, batch), batch.sizes, strict=True)
        ]
        for image, mask, there in zip(images, masks, seen, strict=True):
            mask[~there] = 0
            mask[there] = refined(image, mask[there], self.config.crf)
        return masks

    def masks(self, images: list[Tensor], found: list[Detections]) -> list[Tensor]:
        """The mask of each detection, [D, H_i, W_i] bool: its class's cells inside its box."""
        segmented = self.segment(images)
        return [instance_masks(maps, its) for maps, its in zip(segmented, found, strict=True)]

    @torch.enable_grad()
    def explain(self, images: list[Tensor], targets: list[Target]) -> list[Seen]:
        """What both branches make of tagged images, localisation maps included; needs no training mode."""
        return self._see(images, targets, maps=True)

    def proposals_of(self, index: Index) -> Sequence[Any]:
        """The proposals of each image of an index, [P, 4], original frame: made, or read from the cache."""
        return open_proposals(index, self.proposal_config)

    # --- losses

    def _see(self, images: list[Tensor], targets: list[Target], *, maps: bool) -> list[Seen]:
        """One forward pass of both branches over a batch of training, with localisation maps or without."""
        tags = [check_tags(target, self.num_classes).to(images[0]) for target in targets]
        boxes = self._sampled(images, targets)
        batch = pad_images(images, self.backbone.mean, self.backbone.std)
        batch.tensors.requires_grad_(maps)
        features = self.backbone.trunk(batch.tensors)
        scores = self._scores(features, boxes)
        logits = self._logits(features, batch)
        found: list[Any] = [None] * len(images)
        if maps:
            found = localise(scores, batch, tags, self.guidance)
        strides = [self.backbone.stride] * len(images)
        return [Seen(*each) for each in zip(images, tags, boxes, scores, logits, found, strides, strict=True)]

    def _detection(self, seen: list[Seen], guided: bool) -> dict[str, Tensor]:
        """The image loss, or the guided one; with both guidances, one term for the maps and one for the masks."""
        variant = self.guidance.variant
        if not guided or variant not in ("to_detection", "both"):
            plain = _mean_of([plain_loss(each) for each in seen])
            return {name: plain for name in ("detection", "mask_detection") if name in self.loss_weights}
        by_masks = _mean_of([guided_loss(each, mask_cells(each), self.guidance) for each in seen])
        if variant == "to_detection":
            return {"detection": by_masks}
        by_maps = _mean_of([guided_loss(each, map_cells(each), self.guidance) for each in seen])
        return {"detection": by_maps, "mask_detection": by_masks}

    def _segmentation(self, seen: list[Seen], guided: bool) -> Tensor:
        """The loss of the seeds; in the variants without them that of the tags alone."""
        if self.guidance.variant in ("parallel", "to_detection"):
            return _mean_of([losses.pooled_loss(each.logits, each.tags) for each in seen])
        if not guided:
            return _mean_of([0 * each.logits.sum() for each in seen])
        found = [seeds(each, self.guidance) for each in seen]
        self._watch_seeds(seen, found)
        return _mean_of([losses.seed_loss(each.logits, its) for each, its in zip(seen, found, strict=True)])

    def _watch_seeds(self, seen: list[Seen], found: list[Tensor]) -> None:
        """The parts of the present classes that pass the gate, and of their cells that are seeds."""
        cells = torch.cat([its[each.tags > 0].flatten() for each, its in zip(seen, found, strict=True)])
        passed = [(each.scores.image[each.tags > 0] >= self.guidance.gate).float() for each in seen]
        self.watched["passed_gate"] = _mean(passed)
        for name, value in (("seeds_foreground", 1), ("seeds_background", 0)):
            self.watched[name] = _mean([(cells == value).float()])

    # --- the network

    def _scores(self, features: Tensor, boxes: list[Tensor]) -> list[Scores]:
        class_logits, detection_logits = self.detection(features, boxes)
        counts = [len(regions) for regions in boxes]
        found = []
        for one, two in zip(class_logits.float().split(counts), detection_logits.float().split(counts), strict=True):
            joint = labels.wsddn_scores(one, two)
            found.append(Scores(joint, one.softmax(1), joint.sum(0)))
        return found

    def _logits(self, features: Tensor, batch: ImageList) -> list[Tensor]:
        """Segmentation logits [K, h_i, w_i] of each image, without the padding; no cells without that branch."""
        if self.segmenter is None:
            return [features.new_zeros(self.num_classes, 0, 0)] * len(batch.sizes)
        stride = self.backbone.stride
        logits = self.segmenter(features).float()
        return [maps[:, : -(-h // stride), : -(-w // stride)] for maps, (h, w) in zip(logits, batch.sizes, strict=True)]

    def _sampled(self, images: list[Tensor], targets: list[Target]) -> list[Tensor]:
        """The proposals that teach in this step."""
        given = [target["proposals"] for target in targets] if all("proposals" in t for t in targets) else None
        pairs = zip(self._checked(images, given), targets, strict=True)
        return [sampled(regions, target, self.config.sampled) for regions, target in pairs]

    def _checked(self, images: list[Tensor], proposals: Sequence[Tensor] | None) -> list[Tensor]:
        """Proposals inside their images; the whole image where there is none."""
        if proposals is None:
            proposals = [searched(image, self.proposal_config) for image in images]
        return [inside(regions.to(image), image) for regions, image in zip(proposals, images, strict=True)]

    def _detect(self, joint: Tensor, classes: Tensor, boxes: Tensor) -> Detections:
        row, column = (joint >= self.config.score_threshold).nonzero(as_tuple=True)
        scores = joint[row, column].clamp(0, 1)
        keep = batched_nms(boxes[row], scores, column, self.config.nms_iou)[: self.config.detections]
        probs = torch.cat([torch.zeros_like(classes[:, :1]), classes], dim=1)  # no background: tags do not teach one
        return Detections(boxes=boxes[row[keep]], labels=column[keep] + 1, scores=scores[keep], probs=probs[row[keep]])


def _mean_of(terms: list[Tensor]) -> Tensor:
    return torch.stack(terms).mean()


def _mean(values: list[Tensor]) -> Tensor:
    """A number to watch: the mean of all values, 0 without any."""
    together = torch.cat([its.detach().flatten() for its in values])
    return together.mean() if len(together) else together.sum()
