"""COCO's twelve figures and a table of classes, through faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster, mask
from numpy.typing import NDArray

from boxcycle.data.index import Index
from boxcycle.evaluation.predictions import Prediction, annotated_images, xywh

Difficult = Literal["ignore", "use"]
Pairs = list[tuple[int, Prediction]]  # position of an image in the index, and what was found in it

_AREAS = {"all": 0, "small": 1, "medium": 2, "large": 3}  # positions in the evaluator's arrays
_MOST = {1: 0, 10: 1, 100: 2}  # at most so many detections an image: positions in the evaluator's arrays


class ClassMetrics(NamedTuple):
    """A row of the class table: AP and AP50 in percent (NaN without ground truth), and how many boxes were sought."""

    name: str
    ap: float
    ap50: float
    boxes: int


@dataclass(frozen=True)
class CocoMetrics:
    """What :func:`coco_metrics` finds; all figures in percent.

    ``summary``: AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl, NaN where there is no ground truth.
    ``precision50`` [101, K]: the precision at IoU 0.5 where recall is 0, 1, ..., 100 percent, NaN for a class without
    ground truth. ``warnings``: sentences to show.
    """

    summary: dict[str, float]
    per_class: tuple[ClassMetrics, ...]
    precision50: NDArray[np.float64]
    warnings: tuple[str, ...] = ()


def coco_metrics(index: Index, predictions: Sequence[Prediction], *, difficult: Difficult = "ignore") -> CocoMetrics:
    """COCO's figures for boxes, as the official evaluation defines them.

    A detection on a crowd region (measured by the part of the detection that lies in it) is neither right nor wrong.
    ``difficult``: with "ignore", so is one on a box that VOC marks as difficult, measured by the ordinary IoU; with
    "use" such boxes count. Images that nobody annotated are left out. Sizes (APs, APm, APl) are those of
    ``index.areas``.

    Raises:
        ValueError: if predictions and images do not match one to one, or a label, box or score cannot be.
    """
    pairs = annotated_images(index, predictions)
    precision, recall = _evaluate(index, pairs, difficult)
    summary = _summary(precision, recall)
    boxes = np.bincount(index.labels[_sought(index, difficult)], minlength=index.num_classes + 1)[1:]
    per_class = (
        ClassMetrics(name, _mean(precision[:, :, k, 0, -1]), _mean(precision[0, :, k, 0, -1]), int(boxes[k]))
        for k, name in enumerate(index.class_names)
    )
    curves = precision[0, :, :, 0, -1]
    warnings = _warn_of_ids(index, pairs, difficult, summary["AP50"])
    return CocoMetrics(summary, tuple(per_class), np.where(curves < 0, np.nan, 100 * curves), warnings)


def _summary(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    """The twelve figures. Shapes: precision [T, 101, K, A, M], recall [T, K, A, M]; T: IoU .5 to .95; -1: undefined."""
    ap = {name: _mean(precision[..., area, -1]) for name, area in _AREAS.items()}
    ar = {name: _mean(recall[..., area, -1]) for name, area in _AREAS.items()}
    return {
        "AP": ap["all"],
        "AP50": _mean(precision[0, ..., 0, -1]),
        "AP75": _mean(precision[5, ..., 0, -1]),
        "APs": ap["small"],
        "APm": ap["medium"],
        "APl": ap["large"],
        **{f"AR{most}": _mean(recall[..., 0, position]) for most, position in _MOST.items()},
        "ARs": ar["small"],
        "ARm": ar["medium"],
        "ARl": ar["large"],
    }


def _mean(values: NDArray[np.float64]) -> float:
    defined = values[values > -1]
    return float(100 * defined.mean()) if defined.size else float("nan")


class _Evaluator(COCOeval_faster):  # type: ignore[misc]
    """COCO's evaluation in which a difficult box is ignored as VOC does it: any number of matches by the ordinary IoU.

    COCO itself has no such box. Its field ``ignore`` is overwritten by ``iscrowd``, and a crowd is matched by the part
    of the detection inside it, so that a small false detection on a large difficult box would go free.
    """

    def computeIoU(self, imgId: int, catId: int) -> Any:
        truth = self.gt_dataset.get_instances([imgId], [catId], True)[0][0]
        found = self.dt_dataset.get_instances([imgId], [catId], True)[0][0]
        found = sorted(found, key=lambda detection: -detection["score"])[: self.params.maxDets[-1]]
        as_crowd = [int(box["iscrowd"] and not box["difficult"]) for box in truth]
        return mask.iou([box["bbox"] for box in found], [box["bbox"] for box in truth], as_crowd)


def _evaluate(index: Index, pairs: Pairs, difficult: Difficult) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision [T, 101, K, A, M] and recall [T, K, A, M]; the evaluator's category ids are labels."""
    truth = [row for position, found in pairs for row in _truth_rows(index, position, found.image_id, difficult)]
    found = [row for _, prediction in pairs for row in _found_rows(prediction)]
    evaluator = _Evaluator(_dataset(index, pairs, truth), _dataset(index, pairs, found), iouType="bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    return np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"])


def _dataset(index: Index, pairs: Pairs, annotations: list[dict[str, Any]]) -> COCO:
    for number, annotation in enumerate(annotations, start=1):  # id 0 would mean "unmatched" to the evaluator
        annotation["id"] = number
    dataset = COCO()
    dataset.dataset = {
        "images": [{"id": found.image_id} for _, found in pairs],
        "categories": [{"id": label} for label in range(1, index.num_classes + 1)],
        "annotations": annotations,
    }
    dataset.createIndex()
    return dataset


def _truth_rows(index: Index, position: int, image_id: int, difficult: Difficult) -> list[dict[str, Any]]:
    rows = index.boxes_of(position)
    hard = index.difficult[rows] & ~index.iscrowd[rows] & (difficult == "ignore")
    columns = (index.labels[rows], xywh(index.boxes[rows]), index.areas[rows], index.iscrowd[rows] | hard, hard)
    return _rows(image_id, ("category_id", "bbox", "area", "iscrowd", "difficult"), columns)


def _found_rows(prediction: Prediction) -> list[dict[str, Any]]:
    boxes = xywh(prediction.boxes)
    columns = (prediction.labels, boxes, boxes[:, 2] * boxes[:, 3], prediction.scores.astype(np.float64))
    return _rows(prediction.image_id, ("category_id", "bbox", "area", "score"), columns)


def _rows(image_id: int, names: tuple[str, ...], columns: tuple[NDArray[Any], ...]) -> list[dict[str, Any]]:
    values = zip(*(column.tolist() for column in columns), strict=True)
    return [dict(zip(names, row, strict=True), image_id=image_id) for row in values]


def _sought(index: Index, difficult: Difficult) -> NDArray[np.bool_]:
    """[N] True for the boxes that have to be found."""
    sought = ~index.iscrowd & np.repeat(index.annotated, np.diff(index.box_offsets))
    return sought & ~index.difficult if difficult == "ignore" else sought


def _warn_of_ids(index: Index, pairs: Pairs, difficult: Difficult, ap50: float) -> tuple[str, ...]:
    """A sentence if the boxes are right and the classes wrong: mostly ids counted from 0 here and from 1 there."""
    if not ap50 < 1 or index.num_classes < 2:
        return ()
    one_class = replace(index, class_names=("object",), labels=np.ones_like(index.labels))
    relabelled = [(position, found._replace(labels=np.ones_like(found.labels))) for position, found in pairs]
    precision, _ = _evaluate(one_class, relabelled, difficult)
    regardless = _mean(precision[0, ..., 0, -1])
    if not regardless >= 20:
        return ()
    return (
        f"AP50 is {ap50:.1f}, but {regardless:.1f} when classes are not looked at: your class ids disagree "
        "(compare the class names and their order in the training data, the checkpoint and this data set)",
    )
