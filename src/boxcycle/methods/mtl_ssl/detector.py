"""A two-stage detector that learns three auxiliary tasks from its own boxes, and refines its classes with two of them.

Lee, Na and Kim, "Multi-Task Self-Supervised Object Detection via Recycling of Bounding Box Annotations", CVPR 2019.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.tasks import Tasks
from boxcycle.models.detector import Detector
from boxcycle.models.two_stage import TwoStageDetector
from boxcycle.types import Detections, Target


class MultiTaskDetector(Tasks, Detector):
    """MTL-SSL on any of the package's two-stage detectors. [MTL-SSL Eq. 3] [MTL-SSL Eq. 4]

    Build it from a pretrained backbone or from a trained detector: the tasks' heads copy the detector's.
    """

    def __init__(self, detector: TwoStageDetector, config: TaskConfig | None = None) -> None:
        head: Any = detector.head
        super().__init__(detector, head.region, detector.backbone.trunk_channels, detector.num_classes, config)
        self.loss_weights = detector.loss_weights | self.loss_weights

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The detector's losses and those of the tasks, keys as :attr:`loss_weights`.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in the image frame.
        """
        detector = self.detector
        batch = detector.batch(images, targets)
        maps = detector.features(batch)
        proposals, terms = detector.propose(maps, batch, targets)
        rois = detector.sample(proposals, targets)
        logits, deltas = detector.classify(maps, rois.boxes)
        terms |= detector.region_losses(logits, deltas, rois)
        return terms | self.task_losses(maps, batch, rois, logits, targets)

    def predict(self, images: list[Tensor]) -> list[Detections]:
        """Detections of each image, best first, image frame, classes refined.

        Shapes: images [3, H_i, W_i] in [0, 1].
        """
        detector = self.detector
        batch = detector.batch(images)
        maps = detector.features(batch)
        proposals, _ = detector.propose(maps, batch)
        logits, deltas = detector.classify(maps, proposals)
        if self.refiner is not None:
            logits = self.refined(maps, batch, proposals, logits)
        return detector.detect(logits, deltas, proposals, batch.sizes)
