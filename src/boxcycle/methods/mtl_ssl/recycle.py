"""`boxcycle.recycle`: MTL-SSL on a detector of torchvision's, trained in a loop written for torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from boxcycle.config import load_config
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.tasks import Tasks
from boxcycle.models.torchvision_stages import TorchvisionStages, TorchvisionTarget, check_detector
from boxcycle.types import Target, check_target


def recycle(detector: GeneralizedRCNN, **tasks: float | bool) -> RecycledDetector:
    """Let a torchvision detector learn MTL-SSL's tasks beside its own, and refine its classes.

    ``detector``: Faster, Mask or Keypoint R-CNN of torchvision; it is used, not copied, and stays usable by itself.
    The tasks' heads start as copies of its box head, so it should be pretrained. ``tasks``: fields of
    :class:`TaskConfig`, such as ``windows=32``. Raises ``TypeError`` for a detector of another kind,
    ``ValueError`` for a field that does not exist or cannot have its value.
    """
    given = [f"{name}={str(value).lower()}" for name, value in tasks.items()]  # a text, as `key=value` is typed
    return RecycledDetector(detector, load_config(TaskConfig, overrides=given))


class RecycledDetector(Tasks):
    """What :func:`recycle` makes: called as the detector is, in training and in evaluation.

    ``detector`` is the plain detector: what it learnt here, it keeps. ``refines = False`` predicts with its own
    classes. Weights are those of ``state_dict()``; the names of the detector's have "detector." before them.

    The windows that are drawn are seeded by ``draws``, a count of the images seen, or by the target's own ``seed``:
    torch's global generator is left to the detector, whose draws are what they are without the tasks.
    """

    draws: Tensor

    def __init__(self, detector: GeneralizedRCNN, config: TaskConfig | None = None) -> None:
        check_detector(detector)
        stages = TorchvisionStages(detector)
        super().__init__(detector, stages.region_head(), detector.backbone.out_channels, stages.num_classes, config)
        self.refines = True
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.training = detector.training
        self.to(next(detector.parameters()).device)

    def forward(
        self, images: list[Tensor], targets: Sequence[TorchvisionTarget] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """:meth:`losses` in training, :meth:`predict` in evaluation."""
        if not self.training:
            return self.predict(images)
        if targets is None:
            raise ValueError("a detector in training mode needs targets; call eval() first to predict")
        return self.losses(images, list(targets))

    def losses(self, images: list[Tensor], targets: list[TorchvisionTarget]) -> dict[str, Tensor]:
        """In training mode, torchvision's losses and those of the tasks, already multiplied by their weights: sum them.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in their frame, with torchvision's keys.
        """
        self._check(images, targets)
        stages = TorchvisionStages(self.detector)
        batch, moved = stages.batch(images, targets)
        maps = stages.features(batch)
        proposals, proposer_losses = stages.propose(maps, batch, moved)
        sampled = stages.sample(proposals, moved)
        logits, deltas = stages.classify(maps, sampled.boxes)
        terms = stages.region_losses(maps, sampled, logits, deltas, moved) | proposer_losses
        rois, rows = sampled.objects_first()
        own = self.task_losses(maps, batch, rois, logits.float()[rows], self._seeded(moved, images))
        return terms | {f"loss_{name}": self.loss_weights[name] * value for name, value in own.items()}

    def predict(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        """In evaluation mode, torchvision's detections, classes refined, in the frame of the given images.

        Shapes: images [3, H_i, W_i] in [0, 1].
        """
        stages = TorchvisionStages(self.detector)
        batch, _ = stages.batch(images)
        maps = stages.features(batch)
        proposals, _ = stages.propose(maps, batch)
        logits, deltas = stages.classify(maps, proposals)
        if self.refines and self.refiner is not None:
            logits = self.refined(maps, batch, proposals, logits.float())
        return stages.detect(maps, logits, deltas, proposals, [_size(image) for image in images])

    def _seeded(self, targets: list[dict[str, Any]], images: list[Tensor]) -> list[Target]:
        """What the tasks learn from: boxes in the image frame, each image with a seed of its own."""
        first = int(self.draws)
        self.draws += len(images)
        return [
            Target(
                boxes=target["boxes"].float(),
                labels=target["labels"],
                original_size=_size(image),
                seed=int(target.get("seed", first + number)),
            )
            for number, (target, image) in enumerate(zip(targets, images, strict=True))
        ]

    def _check(self, images: list[Tensor], targets: list[TorchvisionTarget]) -> None:
        """Raise ``ValueError`` with one sentence for targets that the detector cannot learn from."""
        heads = self.detector.roi_heads
        needed = ["boxes", "labels", *(["masks"] * heads.has_mask()), *(["keypoints"] * heads.has_keypoint())]
        if len(images) != len(targets):
            raise ValueError(f"expected one target for each image; got {len(images)} images and {len(targets)} targets")
        for number, (image, target) in enumerate(zip(images, targets, strict=True)):
            lacking = [name for name in needed if not isinstance(target.get(name), Tensor)]
            if lacking:
                raise ValueError(f"targets[{number}] must have the tensors {', '.join(needed)}; it lacks {lacking}")
            try:
                check_target(_named(target), _size(image), self.num_classes)
            except ValueError as error:
                raise ValueError(f"targets[{number}]: {error}") from None
            shape = (len(target["boxes"]), *_size(image))
            if "masks" in needed and target["masks"].shape != shape:
                raise ValueError(f"masks of targets[{number}] must be {shape}; got {tuple(target['masks'].shape)}")


def _size(image: Tensor) -> tuple[int, int]:
    return int(image.shape[-2]), int(image.shape[-1])


def _named(target: TorchvisionTarget) -> Target:
    """Boxes, labels and, where there is one, the id by which an error names the image."""
    its = Target(boxes=target["boxes"], labels=target["labels"])
    if "image_id" in target:
        its["image_id"] = getattr(target["image_id"], "item", lambda: target["image_id"])()
    return its
