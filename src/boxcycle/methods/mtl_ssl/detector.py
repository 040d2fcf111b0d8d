"""A two-stage detector that learns three auxiliary tasks from its own boxes, and refines its classes with two of them.

Lee, Na and Kim, "Multi-Task Self-Supervised Object Detection via Recycling of Bounding Box Annotations", CVPR 2019.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torchvision.ops import roi_align

from boxcycle.methods.mtl_ssl import labels, losses
from boxcycle.methods.mtl_ssl.refinement import Refiner
from boxcycle.models.two_stage import RoIs, TwoStageDetector, accuracy, class_loss, thin
from boxcycle.ops.boxes import whole_image
from boxcycle.ops.randomness import image_generator
from boxcycle.types import Detections, ImageList, Target

# see ops.randomness: the draw of windows; apart from the detector's draws, which stay what they are without the tasks
WINDOW_STREAM = 2
FOREGROUND_GRID = 64  # cells a side: the released code


class TaskConfig(BaseModel):
    """The auxiliary tasks: their weights in the loss (0 switches a task off) and the choices that the paper leaves
    open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    multi_object: float = Field(1.0, ge=0, description="weight of task 1, lambda_m of Eq. 3")
    closeness: float = Field(0.3, ge=0, description="weight of task 2, lambda_c of Eq. 3")
    foreground: float = Field(1.0, ge=0, description="weight of task 3, lambda_f of Eq. 3")
    refinement: float = Field(
        1.0, ge=0, description="weight of the refinement loss, lambda_r of Eq. 4; 0: classes are not refined"
    )
    windows: int = Field(64, gt=0, description="windows of an image and step for task 1, Nt")
    min_window: float = Field(32.0, gt=0, description="shortest side of a window, pixels of the original image")
    refinement_windows: int = Field(5, ge=2, description="windows around a region for the refinement, Nr")
    refined: int = Field(
        32, gt=0, description="sampled regions of an image that teach the refinement (the paper: all of them)"
    )
    stop_gradient: bool = Field(
        False, description='the tasks do not teach the shared features (Table 6, "+Refinement")'
    )
    square_root: bool = Field(
        True, description="multi-object labels by square roots of areas (Algorithm 1); false: by areas"
    )
    same_class: bool = Field(
        False, description="closeness counts other boxes of the same class (the released code: false)"
    )
    closeness_background: bool = Field(
        True, description="closeness is learnt over K+1 classes (Eq. 2); false: over K, as the released code"
    )
    foreground_original: bool = Field(False, description="foreground cells, weights and tanh as the released code")
    refinement_leak: bool = Field(
        False, description="the refinement loss reaches the detector through x, as in the released code"
    )

    @model_validator(mode="after")
    def _refinement_has_inputs(self) -> TaskConfig:
        if self.refinement and not (self.multi_object or self.closeness):
            raise ValueError(
                "refinement needs multi_object or closeness above 0, by which it refines; or set refinement to 0"
            )
        return self


class MultiTaskDetector(nn.Module):
    """MTL-SSL on any two-stage detector. [MTL-SSL Eq. 3] [MTL-SSL Eq. 4]

    The window and closeness heads are copies of the detector's region head, weights included (replicate
    initialisation): build it from a
    pretrained backbone or from a trained detector. The losses are unweighted; ``loss_weights`` has Eq. 3's and 4's
    weights.
    """

    watched: dict[str, Tensor]
    # a module, or None where the task is off; Any, because a type checker cannot know which methods run then
    window_head: Any
    closeness_head: Any
    foreground_head: Any
    refiner: Any

    def __init__(self, detector: TwoStageDetector, config: TaskConfig | None = None) -> None:
        super().__init__()
        self.detector, self.config = detector, config or TaskConfig()
        tasks = self.config
        self.window_head = copy.deepcopy(detector.head.region) if tasks.multi_object else None
        self.closeness_head = copy.deepcopy(detector.head.region) if tasks.closeness else None
        self.foreground_head = _foreground_head(detector.backbone.trunk_channels) if tasks.foreground else None
        self.refiner = None
        if tasks.refinement:
            windows = tasks.refinement_windows if tasks.multi_object else 0
            self.refiner = Refiner(detector.num_classes, windows, bool(tasks.closeness), leak=tasks.refinement_leak)
        weights = {name: getattr(tasks, name) for name in ("multi_object", "closeness", "foreground", "refinement")}
        self.loss_weights = detector.loss_weights | {name: weight for name, weight in weights.items() if weight}
        self.watched = {}

    @property
    def num_classes(self) -> int:
        """K, without background."""
        return self.detector.num_classes

    def forward(
        self, images: list[Tensor], targets: list[Target] | None = None
    ) -> dict[str, Tensor] | list[Detections]:
        """:meth:`losses` in training, :meth:`predict` in evaluation."""
        if not self.training:
            return self.predict(images)
        if targets is None:
            raise ValueError("a detector in training mode needs targets; call predict(images), or eval() first")
        return self.losses(images, targets)

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The detector's losses and those of the tasks, keys as :attr:`loss_weights`.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in the image frame. Labels and windows are made here, from the
        augmented boxes.
        """
        detector, tasks = self.detector, self.config
        batch = detector.batch(images, targets)
        maps = detector.features(batch)
        proposals, terms = detector.propose(maps, batch, targets)
        rois = detector.sample(proposals, targets)
        logits, deltas = detector.classify(maps, rois.boxes)
        terms |= detector.region_losses(logits, deltas, rois)
        self.watched = {"class_accuracy": accuracy(logits, rois.labels)}
        shared = maps.detach() if tasks.stop_gradient else maps
        closeness = None
        if self.window_head is not None:
            terms["multi_object"] = self._multi_object(shared, batch, targets)
        if self.closeness_head is not None:
            terms["closeness"], closeness = self._closeness(shared, batch, rois, targets)
        if self.foreground_head is not None:
            terms["foreground"] = self._foreground(shared, batch, targets)
        if self.refiner is not None:
            terms["refinement"] = self._refinement(maps, batch, rois, logits, closeness)
        return terms

    def predict(self, images: list[Tensor]) -> list[Detections]:
        """Detections of each image, best first, image frame, classes refined. Shapes: images [3, H_i, W_i] in [0,
        1].
        """
        detector = self.detector
        batch = detector.batch(images)
        maps = detector.features(batch)
        proposals, _ = detector.propose(maps, batch)
        logits, deltas = detector.classify(maps, proposals)
        if self.refiner is not None:
            closeness = None
            if self.closeness_head is not None:
                counts = [boxes.shape[0] for boxes in proposals]
                closeness = image_means(self.closeness_head(maps, proposals).float(), counts)
            logits = self.refine(maps, batch, proposals, logits, closeness)
        return detector.detect(logits, deltas, proposals, batch.sizes)

    def refine(
        self, maps: Tensor, batch: ImageList, boxes: list[Tensor], logits: Tensor, closeness: Tensor | None
    ) -> Tensor:
        """Refined logits x' of regions. [MTL-SSL Eq. 1]

        Shapes: boxes: a list of [R_i, 4], image frame; logits [R, K+1]; closeness [B, K+1], the mean closeness logits
        of each image.
        """
        counts = [regions.shape[0] for regions in boxes]
        around = None if self.window_head is None else self._window_logits(maps, batch, boxes)
        return self.refiner(logits, around, None if closeness is None else per_region(closeness, counts))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named groups, so that the optimiser can clip the tasks' heads apart from the detector."""
        heads = {
            "multi_object": self.window_head,
            "closeness": self.closeness_head,
            "foreground": self.foreground_head,
            "refinement": self.refiner,
        }
        groups = [{"name": "detector", "params": _trainable(self.detector)}]
        return groups + [{"name": name, "params": _trainable(head)} for name, head in heads.items() if head is not None]

    def _multi_object(self, maps: Tensor, batch: ImageList, targets: list[Target]) -> Tensor:
        """Task 1: what do random windows show?"""
        windows, wanted = [], []
        for target, size in zip(targets, batch.sizes, strict=True):
            known = target["labels"] > 0
            boxes, classes = target["boxes"][known], target["labels"][known]
            scale = min(size) / min(target.get("original_size", size))
            generator = image_generator(target, WINDOW_STREAM, boxes.device)
            drawn = labels.sample_windows(boxes, size, self.config.windows, self.config.min_window * scale, generator)
            windows.append(drawn)
            wanted.append(
                labels.multi_object_labels(drawn, boxes, classes, self.num_classes, square_root=self.config.square_root)
            )
        logits = self.window_head(maps, windows).float()
        distribution = torch.cat(wanted)
        each = losses.multi_object_loss(logits, distribution)
        entropy = -torch.xlogy(distribution, distribution).sum(1)
        counts = [len(drawn) for drawn in windows]
        self.watched["multi_object_divergence"] = mean_of_means((each - entropy).detach(), counts)
        return mean_of_means(each, counts)

    def _closeness(
        self, maps: Tensor, batch: ImageList, rois: RoIs, targets: list[Target]
    ) -> tuple[Tensor, Tensor | None]:
        """Task 2: which classes are near each sampled object? Also each image's mean logits [B, K+1], without
        gradient, for the refinement.
        """
        counts = [len(boxes) for boxes in rois.boxes]
        wanted, objects, rest = [], [], []
        per_image = zip(
            rois.boxes, rois.labels.split(counts), rois.matched.split(counts), targets, batch.sizes, strict=True
        )
        for boxes, classes, matched, target, size in per_image:
            is_object = classes > 0
            near = labels.closeness_labels(
                target["boxes"], target["labels"], size, self.num_classes, same_class=self.config.same_class
            )
            wanted.append(near[matched[is_object]])
            objects.append(boxes[is_object])
            rest.append(boxes[~is_object])
        logits = self.closeness_head(maps, objects).float()
        each = losses.closeness_loss(logits, torch.cat(wanted), background=self.config.closeness_background)
        loss = mean_of_means(each, [len(boxes) for boxes in objects])
        if self.refiner is None:
            return loss, None
        with torch.no_grad():  # background regions count in the mean but teach nothing
            others = self.closeness_head(maps, rest).float()
            sums = image_sums(logits, objects) + image_sums(others, rest)
        return loss, sums / torch.as_tensor(counts, device=sums.device)[:, None].clamp(min=1)

    def _foreground(self, maps: Tensor, batch: ImageList, targets: list[Target]) -> Tensor:
        """Task 3: where are objects at all?"""
        original = self.config.foreground_original
        whole = [maps.new_tensor([[0, 0, width, height]]) for height, width in batch.sizes]
        # one bilinear sample at each cell's centre, of the image's part of the padded map
        scale, grid = 1 / self.detector.backbone.stride, FOREGROUND_GRID
        logits = roi_align(
            self.foreground_head(maps), whole, grid, spatial_scale=scale, sampling_ratio=1, aligned=True
        ).float()
        per_image = list(zip(targets, batch.sizes, strict=True))
        mask = torch.stack([labels.foreground_mask(t["boxes"], size, grid, original=original) for t, size in per_image])
        if not original:
            return losses.foreground_loss(logits, mask).mean()
        weights = torch.stack([labels.foreground_weights(t["boxes"], size, grid) for t, size in per_image])
        return losses.foreground_loss(logits.tanh(), mask, weights).mean()

    def _refinement(
        self, maps: Tensor, batch: ImageList, rois: RoIs, logits: Tensor, closeness: Tensor | None
    ) -> Tensor:
        """The refined classes of sampled regions, learnt by the refiner alone."""
        some, rows = thin(rois, self.config.refined)
        refined = self.refine(maps, batch, some.boxes, logits[rows], closeness)
        self.watched["refined_accuracy"] = accuracy(refined, some.labels)
        return class_loss(refined, some)

    @torch.no_grad()
    def _window_logits(self, maps: Tensor, batch: ImageList, boxes: list[Tensor]) -> Tensor:
        """Multi-object logits [R, Nr, K+1] of the windows around regions; the whole image, last of them all, is
        classified once an image.
        """
        count = self.config.refinement_windows
        grown = [
            labels.refinement_windows(regions, size, count)[:, :-1]
            for regions, size in zip(boxes, batch.sizes, strict=True)
        ]
        whole = [whole_image(size, maps)[None] for size in batch.sizes]
        stacked = [torch.cat([windows.flatten(0, 1), image]) for windows, image in zip(grown, whole, strict=True)]
        logits = self.window_head(maps, stacked).float().split([windows.shape[0] for windows in stacked])
        return torch.cat([_rejoin(rows, count) for rows in logits])


def image_sums(logits: Tensor, boxes: list[Tensor]) -> Tensor:
    """Sum of the rows of each image. Shapes: logits [R, K+1], boxes: a list of [R_i, 4]; returns [B, K+1], without
    gradient.
    """
    counts = [len(regions) for regions in boxes]
    return torch.stack([rows.sum(0) for rows in logits.detach().split(counts)])


def image_means(logits: Tensor, counts: list[int]) -> Tensor:
    """Mean of the rows of each image, 0 for an image without. Shapes: logits [R, K+1]; returns [B, K+1]."""
    return torch.stack([rows.sum(0) / torch.as_tensor(rows.shape[0]).clamp(min=1) for rows in logits.split(counts)])


def mean_of_means(values: Tensor, counts: list[int]) -> Tensor:
    """Mean over the images of the mean of each image's values, 0 for an image without. Shapes: values [R]; returns a
    scalar.
    """
    return image_means(values[:, None], counts).mean()


def per_region(rows: Tensor, counts: list[int]) -> Tensor:
    """Each image's row, once for each of its regions. Shapes: rows [B, D]; returns [R, D]."""
    return torch.cat([row.expand(count, -1) for row, count in zip(rows, counts, strict=True)])


def _rejoin(rows: Tensor, count: int) -> Tensor:
    """[R (Nr - 1) + 1, K+1], the whole image last, to [R, Nr, K+1]."""
    grown = rows[:-1].reshape(-1, count - 1, rows.shape[1])
    return torch.cat([grown, rows[-1:].expand(grown.shape[0], 1, -1)], dim=1)


def _foreground_head(channels: int) -> nn.Conv2d:
    """A 1x1 convolution to (background, foreground), its draw apart from the detector's."""
    head = nn.utils.skip_init(nn.Conv2d, channels, 2, kernel_size=1)
    nn.init.trunc_normal_(head.weight, std=0.01, a=-0.02, b=0.02, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(head.bias)
    return head


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
