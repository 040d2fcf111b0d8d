"""Image by image: what was found, what was wrongly found and what was missed, above one score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from boxcycle.data.index import Index
from boxcycle.evaluation.matching import Verdict, judge_image
from boxcycle.evaluation.predictions import Prediction, annotated_images


class ImageScore(NamedTuple):
    """Counts of an image (number ``position``): detections right and wrong, annotated boxes missed."""

    position: int
    right: int
    wrong: int
    missed: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0 to 1; 1 where nothing was to be found and nothing was."""
        return 2 * self.right / (2 * self.right + self.wrong + self.missed) if sum(self[1:]) else 1.0


def score_images(
    index: Index, predictions: Sequence[Prediction], *, min_score: float, min_iou: float = 0.5
) -> list[ImageScore]:
    """Judge the detections with a score of at least ``min_score`` in each annotated image, by :func:`judge_image`."""
    return [
        _score(index, position, above(prediction, min_score), min_iou)
        for position, prediction in annotated_images(index, predictions)
    ]


def above(prediction: Prediction, min_score: float) -> Prediction:
    """The detections with a score of at least ``min_score``."""
    kept = prediction.scores >= min_score
    return Prediction(prediction.image_id, prediction.boxes[kept], prediction.labels[kept], prediction.scores[kept])


def best_min_score(index: Index, predictions: Sequence[Prediction], *, min_iou: float = 0.5) -> float:
    """The score above which detections of all images and classes together have the best F1; 0.5 where none is right."""
    pairs = annotated_images(index, predictions)
    verdicts = np.concatenate([np.zeros(0), *(judge_image(index, at, found, min_iou) for at, found in pairs)])
    scores = np.concatenate([np.zeros(0), *(found.scores for _, found in pairs)])
    order = np.argsort(-scores, kind="stable")
    ranked, scores = verdicts[order], scores[order]
    right, wrong = np.cumsum(ranked == Verdict.RIGHT), np.cumsum(ranked == Verdict.WRONG)
    if not len(right) or not right[-1]:
        return 0.5
    sought = sum(_sought(index, position) for position, _ in pairs)
    last_of_ties = np.append(np.diff(scores) != 0, True)
    f1 = np.where(last_of_ties, 2 * right / (right + wrong + sought), -1)
    return float(scores[f1.argmax()])


def _score(index: Index, position: int, found: Prediction, min_iou: float) -> ImageScore:
    verdicts = judge_image(index, position, found, min_iou)
    right, wrong = int((verdicts == Verdict.RIGHT).sum()), int((verdicts == Verdict.WRONG).sum())
    return ImageScore(position, right, wrong, _sought(index, position) - right)


def _sought(index: Index, position: int) -> int:
    rows = index.boxes_of(position)
    return int((~index.difficult[rows] & ~index.iscrowd[rows]).sum())
