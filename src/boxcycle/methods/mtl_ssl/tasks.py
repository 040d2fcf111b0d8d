"""The three auxiliary tasks and the refinement, on the maps and the sampled regions of any two-stage detector.

Lee, Na and Kim, "Multi-Task Self-Supervised Object Detection via Recycling of Bounding Box Annotations", CVPR 2019.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from boxcycle.methods.mtl_ssl import labels, losses
from boxcycle.methods.mtl_ssl.cells import CellHead, edge_task, foreground_task
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.heads import MapHead, run_over_maps, task_head
from boxcycle.methods.mtl_ssl.refinement import Refiner
from boxcycle.models.faster_rcnn import RegionHead
from boxcycle.models.two_stage import RoIs, accuracy, class_loss, thin
from boxcycle.ops.boxes import whole_image
from boxcycle.ops.randomness import image_generator
from boxcycle.ops.unverified import unverified_rows, without_unverified
from boxcycle.types import ImageList, Target

# see ops.randomness: the draw of windows; apart from the detector's draws, which stay what they are without the tasks
WINDOW_STREAM = 2


class Tasks(nn.Module):
    """The heads of the tasks and their losses; subclasses say how a detector's stages and the tasks follow each other.

    The window and closeness heads are copies of ``region``, weights included (replicate initialisation): it should be
    pretrained, or trained. ``heads`` of the configuration says whether they copy all of it or share a last stage; a
    region head that runs over whole maps anyway is copied. ``channels`` are those of the maps. The losses are
    unweighted; ``loss_weights`` has Eq. 3's and 4's weights.
    """

    detector: Any
    loss_weights: dict[str, float]
    watched: dict[str, Tensor]
    # a module, or None where the task is off or it needs none; Any, because a type checker cannot know which methods
    # run then
    task_stage: Any
    window_head: Any
    closeness_head: Any
    foreground_head: Any
    edge_head: Any
    refiner: Any

    def __init__(self, detector: Any, region: Any, channels: int, num_classes: int, config: TaskConfig | None) -> None:
        super().__init__()
        self.detector, self.num_classes = detector, num_classes
        self.config = tasks = config or TaskConfig()
        own_stage = tasks.heads == "dense" and isinstance(region, RegionHead)
        self.task_stage = copy.deepcopy(region.stage) if own_stage and (tasks.multi_object or tasks.closeness) else None
        self.window_head = task_head(region, tasks.heads) if tasks.multi_object else None
        self.closeness_head = task_head(region, tasks.heads) if tasks.closeness else None
        self.foreground_head = CellHead(channels, outputs=2) if tasks.foreground else None
        self.edge_head = CellHead(channels, outputs=4) if tasks.edges else None
        self.refiner = None
        if tasks.refinement:
            windows = tasks.refinement_windows if tasks.multi_object else 0
            self.refiner = Refiner(num_classes, windows, bool(tasks.closeness), leak=tasks.refinement_leak)
        names = ("multi_object", "closeness", "foreground", "edges", "refinement")
        weights = {name: getattr(tasks, name) for name in names}
        self.loss_weights = {name: weight for name, weight in weights.items() if weight}
        self.watched = {}

    def task_losses(
        self, maps: Any, batch: ImageList, rois: RoIs, logits: Tensor, targets: list[Target]
    ) -> dict[str, Tensor]:
        """The losses of the tasks and of the refinement, keys as :attr:`loss_weights`.

        Shapes: maps as the detector's own; logits [R, K+1] of ``rois``; targets in the image frame. Labels and windows
        are made here, from the augmented boxes.
        """
        terms: dict[str, Tensor] = {}
        self.watched = {"class_accuracy": accuracy(logits, rois.labels)}
        shared = maps.detach() if self.config.stop_gradient else maps
        given = self.head_inputs(shared)
        windows = closeness = None
        if self.window_head is not None:
            windows = self.window_head.prepare(given)
            terms["multi_object"] = self._multi_object(windows, batch, targets)
        if self.closeness_head is not None:
            near = self.closeness_head.prepare(given)
            terms["closeness"], closeness = self._closeness(near, batch, rois, targets)
        if self.foreground_head is not None:
            terms["foreground"] = foreground_task(self.foreground_head(shared, batch), batch, targets, self.config)
        if self.edge_head is not None:
            terms["edges"] = edge_task(self.edge_head(shared, batch), batch, targets)
        if self.refiner is not None:
            terms["refinement"] = self._refinement(windows, batch, rois, logits, closeness)
        return terms

    def head_inputs(self, maps: Any) -> Any:
        """What the window and closeness heads are given: the maps, or a last stage's features of all their cells."""
        if isinstance(self.window_head, MapHead) or isinstance(self.closeness_head, MapHead):
            if self.task_stage is not None:
                return run_over_maps(self.task_stage, maps)
            region: Any = self.detector.head.region
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.stop_gradient):
                return run_over_maps(region.stage, maps)
        return maps

    def refined(self, maps: Any, batch: ImageList, boxes: list[Tensor], logits: Tensor) -> Tensor:
        """Logits [R, K+1] of all proposals of a batch, refined where some class is likely enough (``refine_above``).

        Shapes: maps as the detector's own; boxes: a list of [P, 4], image frame; logits [R, K+1], R proposals in all.
        """
        given, closeness = self.head_inputs(maps), None
        counts = [regions.shape[0] for regions in boxes]
        if self.closeness_head is not None:  # the mean is over all proposals, also those that are not refined
            closeness = image_means(self.closeness_head(given, boxes).float(), counts)
        windows = None if self.window_head is None else self.window_head.prepare(given)
        if not self.config.refine_above:
            return self.refine(windows, batch, boxes, logits, closeness)
        likely = logits.softmax(-1)[:, 1:].amax(1) >= self.config.refine_above  # [R]
        some = [regions[rows] for regions, rows in zip(boxes, likely.split(counts), strict=True)]
        refined = logits.clone()
        refined[likely] = self.refine(windows, batch, some, logits[likely], closeness)
        return refined

    def refine(
        self, windows: Any, batch: ImageList, boxes: list[Tensor], logits: Tensor, closeness: Tensor | None
    ) -> Tensor:
        """Refined logits x' of regions. [MTL-SSL Eq. 1]

        Shapes: windows: what the window head has prepared, None without it; boxes: a list of [R_i, 4], image frame;
        logits [R, K+1]; closeness [B, K+1], the mean closeness logits of each image.
        """
        counts = [regions.shape[0] for regions in boxes]
        around = None if windows is None else self._window_logits(windows, batch, boxes)
        return self.refiner(logits, around, None if closeness is None else per_region(closeness, counts))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Named groups, so that the optimiser can clip the tasks' heads apart from the detector."""
        heads = {
            "task_stage": self.task_stage,
            "multi_object": self.window_head,
            "closeness": self.closeness_head,
            "foreground": self.foreground_head,
            "edges": self.edge_head,
            "refinement": self.refiner,
        }
        groups = [{"name": "detector", "params": _trainable(self.detector)}]
        return groups + [{"name": name, "params": _trainable(head)} for name, head in heads.items() if head is not None]

    def _multi_object(self, prepared: Any, batch: ImageList, targets: list[Target]) -> Tensor:
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
        logits = self.window_head.classify(prepared, windows).float()
        distribution = torch.cat(wanted)
        counts = [len(drawn) for drawn in windows]
        told = without_unverified(logits, unverified_rows(targets, counts), known=distribution > 0)
        each = losses.multi_object_loss(told, distribution)
        entropy = -torch.xlogy(distribution, distribution).sum(1)
        self.watched["multi_object_divergence"] = mean_of_means((each - entropy).detach(), counts)
        return mean_of_means(each, counts)

    def _closeness(
        self, prepared: Any, batch: ImageList, rois: RoIs, targets: list[Target]
    ) -> tuple[Tensor, Tensor | None]:
        """Task 2: which classes are near each sampled object?

        Also each image's mean logits [B, K+1], without gradient, for the refinement.
        """
        counts = [len(boxes) for boxes in rois.boxes]
        wanted, objects, rest = [], [], []
        per_image = zip(
            rois.boxes, rois.labels.split(counts), rois.matched.split(counts), targets, batch.sizes, strict=True
        )
        for boxes, classes, matched, target, size in per_image:
            is_object = classes > 0
            near = labels.closeness_labels(
                target["boxes"],
                target["labels"],
                size,
                self.num_classes,
                same_class=self.config.same_class,
                reach=self.config.closeness_reach,
            )
            wanted.append(near[matched[is_object]])
            objects.append(boxes[is_object])
            rest.append(boxes[~is_object])
        logits = self.closeness_head.classify(prepared, objects).float()
        distribution, found = torch.cat(wanted), [len(boxes) for boxes in objects]
        told = without_unverified(logits, unverified_rows(targets, found), known=distribution > 0)
        each = losses.closeness_loss(told, distribution, background=self.config.closeness_background)
        loss = mean_of_means(each, found)
        if self.refiner is None:
            return loss, None
        with torch.no_grad():  # background regions count in the mean but teach nothing
            others = self.closeness_head.classify(prepared, rest).float()
            sums = image_sums(logits, objects) + image_sums(others, rest)
        return loss, sums / torch.as_tensor(counts, device=sums.device)[:, None].clamp(min=1)

    def _refinement(
        self, windows: Any, batch: ImageList, rois: RoIs, logits: Tensor, closeness: Tensor | None
    ) -> Tensor:
        """The refined classes of sampled regions, learnt by the refiner alone."""
        some, rows = thin(rois, self.config.refined)
        refined = self.refine(windows, batch, some.boxes, logits[rows], closeness)
        self.watched["refined_accuracy"] = accuracy(refined, some.labels)
        return class_loss(refined, some)

    @torch.no_grad()
    def _window_logits(self, prepared: Any, batch: ImageList, boxes: list[Tensor]) -> Tensor:
        """Multi-object logits [R, Nr, K+1] of the windows around regions.

        The whole image, the last window of every region, is classified once an image.
        """
        count = self.config.refinement_windows
        grown = [
            labels.refinement_windows(regions, size, count)[:, :-1]
            for regions, size in zip(boxes, batch.sizes, strict=True)
        ]
        whole = [whole_image(size, batch.tensors)[None] for size in batch.sizes]
        stacked = [torch.cat([windows.flatten(0, 1), image]) for windows, image in zip(grown, whole, strict=True)]
        logits = self.window_head.classify(prepared, stacked).float().split([windows.shape[0] for windows in stacked])
        return torch.cat([_rejoin(rows, count) for rows in logits])


def image_sums(logits: Tensor, boxes: list[Tensor]) -> Tensor:
    """Sum of the rows of each image, without gradient.

    Shapes: logits [R, K+1], boxes: a list of [R_i, 4]; returns [B, K+1].
    """
    counts = [len(regions) for regions in boxes]
    return torch.stack([rows.sum(0) for rows in logits.detach().split(counts)])


def image_means(logits: Tensor, counts: list[int]) -> Tensor:
    """Mean of the rows of each image, 0 for an image without. Shapes: logits [R, K+1]; returns [B, K+1]."""
    return torch.stack([rows.sum(0) / torch.as_tensor(rows.shape[0]).clamp(min=1) for rows in logits.split(counts)])


def mean_of_means(values: Tensor, counts: list[int]) -> Tensor:
    """Mean over the images of the mean of each image's values, 0 for an image without.

    Shapes: values [R]; returns a scalar.
    """
    return image_means(values[:, None], counts).mean()


def per_region(rows: Tensor, counts: list[int]) -> Tensor:
    """Each image's row, once for each of its regions. Shapes: rows [B, D]; returns [R, D]."""
    return torch.cat([row.expand(count, -1) for row, count in zip(rows, counts, strict=True)])


def _rejoin(rows: Tensor, count: int) -> Tensor:
    """[R (Nr - 1) + 1, K+1], the whole image last, to [R, Nr, K+1]."""
    grown = rows[:-1].reshape(-1, count - 1, rows.shape[1])
    return torch.cat([grown, rows[-1:].expand(grown.shape[0], 1, -1)], dim=1)


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
