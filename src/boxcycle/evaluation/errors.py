"""What is wrong with a detector: each wrong detection is an error of one kind, and each box not found is missed.

The kinds follow Hoiem, Chodpathumwan and Dai, "Diagnosing Error in Object Detectors" (ECCV 2012), section 2, whose
"confusion with other objects" is our classification; duplicates are a kind of their own, and the limits of overlap are
0.1 and 0.5, as in Bolya et al., "TIDE" (ECCV 2020), section 2.2. TIDE leaves out what is overlapped between the two
limits by another class ("both"): we count it as classification, so that every wrong detection has a kind.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from boxcycle.data.index import Index
from boxcycle.evaluation.images import above, best_min_score
from boxcycle.evaluation.matching import Match, Verdict, match_image, overlaps
from boxcycle.evaluation.predictions import Prediction, annotated_images
from boxcycle.ops.boxes import covered_fraction

LEAST_OVERLAP = 0.1  # below, a detection has nothing to do with an annotated box: both papers
IN_CROWD = 0.5  # part of a detection inside a crowd region from which it is not judged: COCO's threshold


class Kind(enum.IntEnum):
    """What a detection is. The errors are those from ``LOCALISATION`` to ``BACKGROUND``."""

    RIGHT = 0
    LOCALISATION = 1
    CLASSIFICATION = 2
    REDUNDANCY = 3
    BACKGROUND = 4
    IGNORED = 5


ERRORS = ("localisation", "classification", "redundancy", "background", "missed")


class ImageErrors(NamedTuple):
    """The errors in image number ``position``.

    ``found``: the detections that were judged; ``kinds`` [D]: the :class:`Kind` of each; ``missed``: rows of the
    index's boxes that no detection found.
    """

    position: int
    found: Prediction
    kinds: NDArray[np.int64]
    missed: NDArray[np.int64]

    @property
    def errors(self) -> int:
        """Wrong detections and missed boxes."""
        return int(((self.kinds != Kind.RIGHT) & (self.kinds != Kind.IGNORED)).sum()) + len(self.missed)

    @property
    def counts(self) -> dict[str, int]:
        """How many detections are right, and how many errors there are of each kind."""
        detections = {kind.name.lower(): int((self.kinds == kind).sum()) for kind in Kind if kind != Kind.IGNORED}
        return {**detections, "missed": len(self.missed)}


class ClassErrors(NamedTuple):
    """A class (or all): ``boxes`` that were sought, of which ``right`` were found and ``missed`` not; wrong detections.

    Wrong detections count for the class that they were given, missed boxes for their own.
    """

    name: str
    boxes: int
    right: int
    localisation: int
    classification: int
    redundancy: int
    background: int
    missed: int

    @property
    def errors(self) -> int:
        """Wrong detections and missed boxes."""
        return sum(self[3:])

    def minus(self, other: ClassErrors) -> dict[str, int]:
        """How many more (above 0) or fewer errors of each kind than ``other`` has."""
        return {name: getattr(self, name) - getattr(other, name) for name in ERRORS}


@dataclass(frozen=True)
class ErrorBreakdown:
    """The errors among the detections with a score of at least ``min_score``, by class and image."""

    min_score: float
    per_class: tuple[ClassErrors, ...]
    images: tuple[ImageErrors, ...]

    @property
    def total(self) -> ClassErrors:
        """All classes together."""
        sums = np.array([row[1:] for row in self.per_class], dtype=np.int64).reshape(-1, 7).sum(0)
        return ClassErrors("all", *sums.tolist())

    def minus(self, other: ErrorBreakdown) -> dict[str, dict[str, int]]:
        """For "all" and each class, how many more or fewer errors of each kind than ``other``, of the same data, has.

        Raises ``ValueError`` if the two are not of the same classes and boxes.
        """
        if [row[:2] for row in self.per_class] != [row[:2] for row in other.per_class]:
            raise ValueError("two breakdowns can be compared if they are of the same images and classes; these are not")
        pairs = zip((self.total, *self.per_class), (other.total, *other.per_class), strict=True)
        return {mine.name: mine.minus(theirs) for mine, theirs in pairs}

    def record(self) -> dict[str, Any]:
        """As it stands in ``eval.json``."""
        rows = [row._asdict() for row in (self.total, *self.per_class)]
        return {"min_score": self.min_score, "total": rows[0], "per_class": rows[1:]}


def error_breakdown(
    index: Index, predictions: Sequence[Prediction], *, min_score: float | None = None, min_iou: float = 0.5
) -> ErrorBreakdown:
    """Sort all errors by kind. [Hoiem 2012, section 2] [TIDE, section 2.2]

    Detections with a score of at least ``min_score`` are judged; None is the score of the best F1 of all classes
    together (:func:`best_min_score`). Of each image, best score first:

    * *right*: of the annotated boxes of its class it overlaps one most, by an IoU of at least ``min_iou``, and is the
      first to do so; the box is found. This is VOC's rule, :func:`match_image`.
    * *redundancy*: the same, but the box is taken by a better one.
    * The others are told by the box of any class that they overlap most (of equal ones, one of their own class):
      *localisation* if it is of their class, *classification* if it is of another, *background* if the IoU is below
      0.1.
    * *ignored*, neither right nor wrong: what overlaps a difficult box of its class as above, or lies by half in a
      crowd region of its class. Difficult boxes and crowd regions are not sought, and explain no other detection.
    * *missed*: every box that is sought and not found, also where an error of localisation or classification is near.

    Raises:
        ValueError: if predictions and images do not match one to one, or a label, box or score cannot be.
    """
    if min_score is None:
        min_score = best_min_score(index, predictions, min_iou=min_iou)
    pairs = annotated_images(index, predictions)
    images = tuple(_judge(index, position, above(found, min_score), min_iou) for position, found in pairs)
    return ErrorBreakdown(min_score, _by_class(index, images), images)


def _judge(index: Index, position: int, found: Prediction, min_iou: float) -> ImageErrors:
    rows = index.boxes_of(position)
    match = match_image(index, position, found, min_iou)
    kinds = np.array([Kind.BACKGROUND, Kind.RIGHT, Kind.IGNORED])[match.verdicts]
    wrong = match.verdicts == Verdict.WRONG
    kinds[wrong & (match.iou >= min_iou)] = Kind.REDUNDANCY
    others = np.flatnonzero(wrong & (match.iou < min_iou))
    kinds[others] = _kinds_of_others(index, rows, found, others)
    return ImageErrors(position, found, kinds, _missed(index, rows, match))


def _kinds_of_others(index: Index, rows: slice, found: Prediction, others: NDArray[np.int64]) -> NDArray[np.int64]:
    """The kinds of detections (numbers ``others``) that overlap no box of their class by enough."""
    boxes, labels = found.boxes[others], found.labels[others]
    same = labels[:, None] == index.labels[rows]
    overlap = overlaps(boxes, index.boxes[rows])
    overlap[:, index.difficult[rows] | index.iscrowd[rows]] = 0
    own, other = (np.where(mask, overlap, 0).max(1, initial=0) for mask in (same, ~same))
    kinds = np.where(own >= other, Kind.LOCALISATION, Kind.CLASSIFICATION)
    kinds[np.maximum(own, other) < LEAST_OVERLAP] = Kind.BACKGROUND
    inside = covered_fraction(torch.from_numpy(boxes).double(), torch.from_numpy(index.boxes[rows])).numpy()
    kinds[((inside >= IN_CROWD) & same & index.iscrowd[rows]).any(1)] = Kind.IGNORED
    return kinds


def _missed(index: Index, rows: slice, match: Match) -> NDArray[np.int64]:
    sought = ~index.difficult[rows] & ~index.iscrowd[rows]
    sought[match.nearest[match.verdicts == Verdict.RIGHT]] = False
    return rows.start + np.flatnonzero(sought)


def _by_class(index: Index, images: Sequence[ImageErrors]) -> tuple[ClassErrors, ...]:
    counts = np.zeros((index.num_classes + 1, len(Kind) + 1), dtype=np.int64)  # by label; the last column: missed
    for image in images:
        np.add.at(counts, (image.found.labels, image.kinds), 1)
        np.add.at(counts[:, -1], index.labels[image.missed], 1)
    counts = np.delete(counts, Kind.IGNORED, axis=1)[1:]
    return tuple(
        ClassErrors(name, row[Kind.RIGHT] + row[-1], *row)
        for name, row in zip(index.class_names, counts.tolist(), strict=True)
    )
