"""The images of a split by what is known of them: drawn by a person, answered in part, mined, or nothing.

A pool forgets every annotation that nobody has paid for yet, so that nothing trained or mined from it can read one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from boxcycle.data.index import Index, Strings, offsets_of
from boxcycle.data.stratify import Positions
from boxcycle.types import HUMAN, MINED

SAME = 0.5  # IoU from which two regions are about the same thing


class Regions(NamedTuple):
    """N regions of images, named by the data set's image ids; boxes are xyxy, original frame.

    ``labels``: 1..K; 0 for "no object here" from a person, or of unknown class. ``weights`` multiply a box's losses.
    """

    image_ids: NDArray[np.int64]
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]

    def where(self, kept: NDArray[np.bool_]) -> Regions:
        """Those of the mask [N]."""
        return Regions(self.image_ids[kept], self.boxes[kept], self.labels[kept], self.weights[kept])


def regions(
    image_ids: Sequence[int] | NDArray[np.int64] = (),
    boxes: Sequence[Sequence[float]] | NDArray[np.float64] = (),
    labels: Sequence[int] | NDArray[np.int64] = (),
    weights: Sequence[float] | NDArray[np.float32] | None = None,
) -> Regions:
    """Regions from plain lists; without ``weights`` each has 1."""
    chosen = np.ones(len(labels)) if weights is None else np.asarray(weights)
    return Regions(
        np.asarray(image_ids, dtype=np.int64),
        np.asarray(boxes, dtype=np.float64).reshape(-1, 4),
        np.asarray(labels, dtype=np.int64),
        chosen.astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Pool:
    """A split while it is being labelled; every change gives a new pool.

    ``index`` has all images, and the boxes of those that were annotated from the start (``annotated``). ``answered``
    is what a person said since then, ``finished`` [I] which images they annotated wholly. ``pseudo`` and ``ignored``
    are disposable: they hold until they are replaced, and are written nowhere.
    """

    index: Index
    answered: Regions
    finished: NDArray[np.bool_]
    pseudo: Regions
    ignored: Regions

    @staticmethod
    def start(index: Index, labelled: Positions) -> Pool:
        """Only the images at the positions ``labelled`` are annotated; boxes and tags of the others are left out."""
        known = np.zeros(len(index), dtype=bool)
        known[labelled] = True
        bare = _without_boxes(index, known & index.annotated)
        return Pool(bare, regions(), np.zeros(len(index), dtype=bool), regions(), regions())

    @property
    def complete(self) -> NDArray[np.bool_]:
        """[I] Images of which every object is drawn: they may stand for what does not show a class."""
        return self.index.annotated | self.finished

    @property
    def unlabelled(self) -> Positions:
        """Positions of the images in which objects may still be unknown."""
        return np.flatnonzero(~self.complete)

    def with_human(self, answered: Regions, finished: Sequence[int] = ()) -> Pool:
        """More answers of a person (label 0: no object there), and the ids of images they annotated wholly by now."""
        ids = np.isin(self.index.image_ids, np.asarray(finished, dtype=np.int64))
        told = replace(self, answered=_together(self.answered, answered), finished=self.finished | ids)
        return told.with_pseudo(self.pseudo, self.ignored)

    def with_pseudo(self, pseudo: Regions, ignored: Regions | None = None) -> Pool:
        """Other pseudo boxes, and other regions that teach nothing, in place of those from before.

        A person's word wins: what overlaps an answered region by half (IoU), or lies in a complete image, is left out.
        """
        return replace(self, pseudo=self._unanswered(pseudo), ignored=self._unanswered(ignored or regions()))

    def _unanswered(self, given: Regions) -> Regions:
        open_ids = self.index.image_ids[self.unlabelled]
        return given.where(np.isin(given.image_ids, open_ids) & ~overlaps(given, self.answered))

    def human_boxes(self) -> Regions:
        """The boxes that a person drew or confirmed since the start."""
        return self.answered.where(self.answered.labels > 0)

    def known(self) -> Index:
        """All images with the boxes that a person is behind; ``annotated`` are the complete ones."""
        return _with_rows(replace(self.index, annotated=self.complete), self.human_boxes(), HUMAN)

    def training_index(self) -> Index:
        """What a detector may learn now: complete images, and others with a box that a person or the mining gave.

        Regions that teach nothing have label 0 and count as crowds.
        """
        index = _with_rows(self.known(), self.pseudo, MINED)
        teaches = self.complete | (np.diff(index.box_offsets) > 0)
        index = _with_rows(index, self.ignored._replace(labels=np.zeros_like(self.ignored.labels)), MINED)
        return index.subset(np.flatnonzero(teaches))


def overlaps(given: Regions, others: Regions) -> NDArray[np.bool_]:
    """[N] which of the given regions overlap one of the others, in the same image, by half (IoU)."""
    same_image = given.image_ids[:, None] == others.image_ids[None]
    iou = box_iou(torch.from_numpy(given.boxes), torch.from_numpy(others.boxes)).numpy()
    found: NDArray[np.bool_] = (same_image & (iou >= SAME)).any(1)
    return found


def _together(one: Regions, other: Regions) -> Regions:
    return Regions(
        np.concatenate([one.image_ids, other.image_ids]),
        np.concatenate([one.boxes, other.boxes]),
        np.concatenate([one.labels, other.labels]),
        np.concatenate([one.weights, other.weights]),
    )


def _without_boxes(index: Index, kept: NDArray[np.bool_]) -> Index:
    """The index with the boxes of the images ``kept`` [I] alone, and without tags."""
    return replace(
        index.only_boxes(np.repeat(kept, np.diff(index.box_offsets))),
        annotated=kept,
        tagged=np.zeros_like(index.tagged),
        tag_offsets=np.zeros_like(index.tag_offsets),
        tags=index.tags[:0],
        verified=None if index.verified is None else index.verified.where(kept),
    )


def _with_rows(index: Index, added: Regions, source: int) -> Index:
    """The index with more boxes, behind those that an image has; boxes of label 0 are crowds."""
    positions = {int(image_id): position for position, image_id in enumerate(index.image_ids)}
    image = np.array([positions[int(image_id)] for image_id in added.image_ids], dtype=np.int64)
    owner = np.concatenate([np.repeat(np.arange(len(index)), np.diff(index.box_offsets)), image])
    order = np.argsort(owner, kind="stable")
    count, more = len(index.boxes), len(added.boxes)
    sources = np.zeros(count, dtype=np.int64) if index.sources is None else index.sources
    weights = np.ones(count, dtype=np.float32) if index.weights is None else index.weights
    texts = [*index.segmentations, *[""] * more]
    next_id = int(index.box_ids.max(initial=0)) + 1
    return replace(
        index,
        box_offsets=offsets_of(np.bincount(owner, minlength=len(index))),
        boxes=np.concatenate([index.boxes, added.boxes])[order],
        labels=np.concatenate([index.labels, added.labels])[order],
        box_ids=np.concatenate([index.box_ids, np.arange(next_id, next_id + more)])[order],
        areas=np.concatenate([index.areas, (added.boxes[:, 2:] - added.boxes[:, :2]).prod(1)])[order],
        iscrowd=np.concatenate([index.iscrowd, added.labels == 0])[order],
        difficult=np.concatenate([index.difficult, np.zeros(more, dtype=bool)])[order],
        segmentations=Strings(texts[row] for row in order),
        sources=np.concatenate([sources, np.full(more, source)])[order],
        weights=np.concatenate([weights, added.weights])[order],
    )
