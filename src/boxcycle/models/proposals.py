"""The region proposal network: anchors, objectness, proposals and their losses. [Faster R-CNN, section 3.1]"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss
from torchvision.models.detection._utils import BoxCoder, _topk_min
from torchvision.models.detection.image_list import ImageList as TorchvisionImageList
from torchvision.models.detection.rpn import AnchorGenerator, RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

from boxcycle.ops.matching import assign, sample_balanced, says_where
from boxcycle.ops.randomness import image_generator
from boxcycle.types import ImageList, Target

ANCHOR_STREAM = 0  # see ops.randomness: the draw of anchors


class RegionProposer(nn.Module):
    """Scores every anchor of a feature map and proposes the best boxes.

    Anchors are square roots of areas ``sizes`` (pixels, image frame) in the aspect ratios ``ratios`` (height over
    width), centred on the corner of each cell, as in torchvision and in the released code of MTL-SSL. ``count``
    proposals are kept of the ``candidates`` best scored, after non-maximum suppression at ``nms_iou``; of each image
    ``sampled`` anchors teach.
    """

    def __init__(
        self,
        channels: int,
        sizes: tuple[float, ...],
        ratios: tuple[float, ...],
        *,
        candidates: int,
        count: int,
        nms_iou: float,
        sampled: int,
    ) -> None:
        super().__init__()
        self.anchors = AnchorGenerator((sizes,), (ratios,))
        self.head = RPNHead(channels, len(sizes) * len(ratios))
        self.coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.candidates, self.count, self.nms_iou, self.sampled = candidates, count, nms_iou, sampled

    def forward(self, maps: Tensor, images: ImageList) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
        """Propose boxes for each image.

        Shapes: maps [B, C, H, W]. Returns the proposals (a list of [P, 4], xyxy, image frame, without gradient, best
        first) and what the losses need: objectness logits [B, A], deltas [B, A, 4] and anchors [A, 4] (shared by the
        images of a batch).
        """
        objectness, deltas = (outputs[0] for outputs in self.head([maps]))
        anchors = self.anchors(TorchvisionImageList(images.tensors, images.sizes), [maps])[0]  # [A, 4]
        # [B, anchors per cell * D, H, W] -> [B, A, D], cells in row-major order, the anchors of a cell together: the
        # generator's order
        logits = objectness.permute(0, 2, 3, 1).flatten(1)
        deltas = deltas.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        with torch.no_grad():
            proposals = [
                self._best(scores, shifts, anchors, size)
                for scores, shifts, size in zip(logits, deltas, images.sizes, strict=True)
            ]
        return proposals, logits, deltas, anchors

    def _best(self, scores: Tensor, deltas: Tensor, anchors: Tensor, size: tuple[int, int]) -> Tensor:
        count = _topk_min(scores, self.candidates, 0)  # a plain `min` would be a constant in an export
        scores, top = scores.float().topk(count)
        boxes = self.coder.decode_single(deltas[top].float(), anchors[top])
        boxes = clip_boxes_to_image(boxes, size)
        large = remove_small_boxes(boxes, min_size=1.0)  # one pixel: an anchor in the padding is clipped to nothing
        boxes, scores = boxes[large], scores[large]
        keep = batched_nms(boxes, scores, torch.zeros_like(large), self.nms_iou)[: self.count]
        return boxes[keep]

    def losses(self, logits: Tensor, deltas: Tensor, anchors: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        """Objectness cross entropy and box regression of sampled anchors, means over images of each image's mean.

        Anchors of IoU >= 0.7 with a box, and the best of each box, are objects; below 0.3 background. That is also
        said of objects without a box whose class is unverified: objectness knows no classes.
        """
        objectness, regression = [], []
        for image_logits, image_deltas, target in zip(logits, deltas, targets, strict=True):
            assignment = assign(anchors, target, positive_iou=0.7, negative_iou=0.3, best_for_each_box=True)
            generator = image_generator(target, ANCHOR_STREAM, anchors.device)
            rows = sample_balanced(assignment.labels, self.sampled, 0.5, generator)
            is_object = assignment.labels[rows] > 0
            positive = rows[is_object & says_where(target, assignment.matched[rows])]
            wanted = self.coder.encode_single(target["boxes"][assignment.matched[positive]], anchors[positive])
            count = max(len(rows), 1)
            objectness.append(
                binary_cross_entropy_with_logits(image_logits[rows], is_object.to(image_logits), reduction="sum")
                / count
            )
            # beta 1/9: torchvision's detectors
            regression.append(smooth_l1_loss(image_deltas[positive], wanted, beta=1 / 9, reduction="sum") / count)
        return {"rpn_objectness": torch.stack(objectness).mean(), "rpn_box": torch.stack(regression).mean()}
