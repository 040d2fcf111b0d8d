"""Average precision as Pascal VOC defines it: on 11 points until 2009, the area under the curve since."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.index import Index
from boxcycle.evaluation.matching import Verdict, judge_image
from boxcycle.evaluation.predictions import Prediction, annotated_images


class VocMetrics(NamedTuple):
    """Average precision in percent of each class (NaN without ground truth), and the mean over the others."""

    mean: float
    per_class: dict[str, float]


def voc_average_precision(
    index: Index,
    predictions: Sequence[Prediction],
    *,
    method: Literal["area", "11point"] = "area",
    min_iou: float = 0.5,
) -> VocMetrics:
    """VOC's average precision, in percent. [Everingham et al., The Pascal VOC Challenge, IJCV 2010, section 4.2]

    ``method``: "11point" is VOC2007's, "area" that of VOC2010 on. Difficult boxes (and crowd regions, which VOC does
    not have) are neither to be found nor held against a detector that finds them. :func:`judge_image` says what is
    right. Images that nobody annotated are left out.

    Raises:
        ValueError: if predictions and images do not match one to one, or a label, box or score cannot be.
    """
    pairs = annotated_images(index, predictions)
    verdicts = [judge_image(index, position, found, min_iou) for position, found in pairs]
    judged = _join(verdicts), _join([found.labels for _, found in pairs]), _join([found.scores for _, found in pairs])
    measure = _area if method == "area" else _eleven_points
    sought = _sought_of_each_class(index)
    per_class = {
        name: 100 * measure(*_right_and_seen(*judged, label), sought[label])
        for label, name in enumerate(index.class_names, start=1)
    }
    return VocMetrics(_mean(per_class.values()), per_class)


def _join(parts: list[NDArray]) -> NDArray:
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _sought_of_each_class(index: Index) -> NDArray[np.int64]:
    """[K + 1] how many boxes of each label have to be found."""
    annotated = np.repeat(index.annotated, np.diff(index.box_offsets))
    sought = annotated & ~index.difficult & ~index.iscrowd
    return np.bincount(index.labels[sought], minlength=index.num_classes + 1)


def _right_and_seen(
    verdicts: NDArray[np.int64], labels: NDArray[np.int64], scores: NDArray[np.float64], label: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[D] after each detection of the class, best first: how many were right so far, and how many were looked at."""
    chosen = (labels == label) & (verdicts != Verdict.IGNORED)
    ranked = verdicts[chosen][np.argsort(-scores[chosen], kind="stable")]
    return np.cumsum(ranked == Verdict.RIGHT), np.arange(1, len(ranked) + 1)


def _eleven_points(right: NDArray[np.int64], seen: NDArray[np.int64], sought: int) -> float:
    """Mean over recall 0, 0.1, ..., 1 of the best precision at that recall or above."""
    if not sought:
        return float("nan")
    precision = right / seen
    # in whole numbers: 3 of 10 boxes are a recall of 0.3, which three steps of 0.1 in floating point exceed
    reached = (precision[10 * right >= tenth * sought] for tenth in range(11))
    return float(np.mean([best.max(initial=0.0) for best in reached]))


def _area(right: NDArray[np.int64], seen: NDArray[np.int64], sought: int) -> float:
    """Area under precision over recall, after each precision is raised to the best one at that recall or above."""
    if not sought:
        return float("nan")
    envelope = np.maximum.accumulate((right / seen)[::-1])[::-1]
    return float((envelope * np.diff(right, prepend=0)).sum() / sought)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
