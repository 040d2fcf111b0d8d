"""Mean intersection over union of class masks, as VOC counts it: over the pixels of all images, background included."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.masks import decode
from boxcycle.evaluation.predictions import evaluation_mode

VOID = -1  # a pixel that does not count


class MeanIoU(NamedTuple):
    """IoU in percent of the background and each class (NaN where it is nowhere), their mean, and the images judged."""

    mean: float
    per_class: dict[str, float]
    images: int


def has_masks(index: Index) -> bool:
    """Whether any image of an index can be judged by its masks."""
    return any(_is_drawn(index, position) for position in range(len(index)))


def segmentation_metrics(
    model: nn.Module, dataset: DetectionDataset, *, batch_size: int = 4, device: torch.device | str = "cpu"
) -> MeanIoU:
    """Mean IoU of what ``model.segment(images, proposals)`` says of the images of a dataset that have masks.

    The model gives a probability for each class and pixel; a pixel is of its likeliest class, if that has more than one
    half, else background. Images in which an object has no segmentation are left out.
    """
    index, segment = dataset.index, cast("Callable[..., list[Tensor]]", model.segment)
    positions = [position for position in range(len(index)) if _is_drawn(index, position)]
    judged = torch.utils.data.Subset(dataset, positions)
    remaining = iter(positions)
    counts = np.zeros((index.num_classes + 1, index.num_classes + 1), dtype=np.int64)
    with evaluation_mode(model), torch.no_grad():
        for batch in DataLoader(judged, batch_size, collate_fn=list):
            images = [image.to(device) for image, _ in batch]
            given = [target["proposals"].to(device) for _, target in batch] if "proposals" in batch[0][1] else None
            for (_, target), masks in zip(batch, segment(images, given), strict=True):
                found = class_map(masks, target["original_size"])
                counts += confusion(truth_map(index, next(remaining)), found, index.num_classes)
    return mean_iou(counts, index.class_names, len(positions))


def class_map(masks: Tensor, size: tuple[int, int]) -> NDArray[np.int64]:
    """The class of each pixel of an image of ``size`` (height, width), 0 for background. Shapes: masks [K, h, w]."""
    highest, label = interpolate(masks[None].float().cpu(), size, mode="bilinear")[0].max(0)
    return torch.where(highest > 0.5, label + 1, 0).numpy()


def truth_map(index: Index, position: int) -> NDArray[np.int64]:
    """The annotated class of each pixel of image number ``position``; crowds and difficult objects are void.

    Small objects lie over large ones. Shapes: returns [H, W], original frame.
    """
    height, width = index.image_sizes[position].tolist()
    truth = np.zeros((height, width), dtype=np.int64)
    rows = index.boxes_of(position)
    for row in sorted(range(rows.start, rows.stop), key=lambda row: -index.areas[row]):
        void = index.iscrowd[row] or index.difficult[row]
        truth[decode(index.segmentations[row], height, width)] = VOID if void else index.labels[row]
    return truth


def confusion(truth: NDArray[np.int64], found: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
    """How many pixels of each true class were given each class, [K + 1, K + 1]; void ones do not count."""
    known = truth != VOID
    cells = truth[known] * (num_classes + 1) + found[known]
    return np.bincount(cells, minlength=(num_classes + 1) ** 2).reshape(num_classes + 1, num_classes + 1)


def mean_iou(counts: NDArray[np.int64], class_names: Iterable[str], images: int) -> MeanIoU:
    """The figures of summed :func:`confusion` counts."""
    right = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - right
    iou = np.where(union > 0, 100 * right / np.maximum(union, 1), np.nan)
    mean = float(np.nanmean(iou)) if (union > 0).any() else float("nan")
    return MeanIoU(mean, dict(zip(("background", *class_names), iou.tolist(), strict=True)), images)


def _is_drawn(index: Index, position: int) -> bool:
    rows = index.boxes_of(position)
    texts = [index.segmentations[row] for row in range(rows.start, rows.stop)]
    return bool(index.annotated[position]) and bool(texts) and all(texts)
