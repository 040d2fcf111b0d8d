"""What SSM makes of a detector's own output: candidates, and how consistently they are found again elsewhere.

Phi, the class distribution of a candidate, has K+1 entries, background first; j* is its largest. Sums and logarithms
are taken in float64, since eq. 4 compares numbers that are equal up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from boxcycle.types import Detections

Form = Literal["matched", "max", "literal5", "literal6", "vote"]
UNCHANGED = 0.9  # IoU with a candidate of an earlier round from which its consistency may stand
SHIFT = 0.1  # change of phi up to which it may stand
TINY = 1e-12  # probabilities are kept this far from 0 and 1 before a logarithm


@dataclass(frozen=True, eq=False)
class Candidates:
    """D regions of unlabelled images, each with all that is known of it: sorting cannot part what belongs together.

    ``image_ids`` [D] int64, the data set's own; ``boxes`` [D, 4] xyxy, original frame; ``probs`` [D, K+1], background
    first; ``consistency`` [D] float64 in [0, 1], NaN where it was not measured; ``tests`` [D] int64: how many images it
    was measured in; ``age`` [D] int64: rounds since then.
    """

    image_ids: Tensor
    boxes: Tensor
    probs: Tensor
    consistency: Tensor
    tests: Tensor
    age: Tensor

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, rows: Any) -> Candidates:
        """The candidates of the given rows (a mask, or positions [D'])."""
        return Candidates(*(getattr(self, name)[rows] for name in FIELDS))

    @property
    def labels(self) -> Tensor:
        """j* of each candidate [D]: 0 where background is most likely."""
        return self.probs.argmax(1)

    def ranked(self, keys: Tensor) -> Tensor:
        """Rows [D] by rising ``keys`` [D] (NaN last), equal ones by image and box: never by the order they came in."""
        corners = self.boxes.T.double().numpy()
        return torch.from_numpy(np.lexsort((*corners[::-1], self.image_ids.numpy(), keys.double().numpy())))


FIELDS = ("image_ids", "boxes", "probs", "consistency", "tests", "age")


def unmeasured(image_id: int, boxes: Tensor, probs: Tensor) -> Candidates:
    """Candidates of one image whose consistency nobody measured. Shapes: boxes [D, 4], probs [D, K+1]."""
    zeros = torch.zeros(len(boxes), dtype=torch.int64)
    unknown = torch.full((len(boxes),), math.nan, dtype=torch.float64)
    return Candidates(torch.full_like(zeros, image_id), boxes.float(), probs.float(), unknown, zeros, zeros)


def joined(parts: Sequence[Candidates], num_classes: int) -> Candidates:
    """The candidates of several images, one after another; none, with K as told, of no parts."""
    empty = unmeasured(0, torch.zeros(0, 4), torch.zeros(0, num_classes + 1))
    return Candidates(*(torch.cat([getattr(part, name) for part in (empty, *parts)]) for name in FIELDS))


def reused(candidates: Candidates, previous: Candidates, keep_rounds: int) -> Candidates:
    """The candidates of one image with the consistency that unchanged ones had in an earlier round.

    Unchanged: same class, IoU of 0.9, phi within 0.1, measured at most ``keep_rounds`` rounds ago.
    """
    old = previous[torch.isin(previous.image_ids, candidates.image_ids)]
    old = old[(old.tests > 0) & (old.age < keep_rounds)]
    if not len(old):
        return candidates
    overlap = box_iou(candidates.boxes, old.boxes)
    shift = (candidates.probs.amax(1)[:, None] - old.probs.amax(1)[None]).abs()
    alike = (overlap >= UNCHANGED) & (candidates.labels[:, None] == old.labels[None]) & (shift <= SHIFT)
    match = overlap.where(alike, -1.0).argmax(1)
    return measured_as(candidates, alike.any(1), old.consistency[match], old.tests[match], old.age[match] + 1)


def measured_as(candidates: Candidates, rows: Tensor, consistency: Tensor, tests: Tensor, age: Tensor) -> Candidates:
    """Candidates of which ``rows`` [D] bool have other results; [D] each."""
    return replace(
        candidates,
        consistency=consistency.where(rows, candidates.consistency),
        tests=tests.where(rows, candidates.tests),
        age=age.where(rows, candidates.age),
    )


def binary_losses(probs: Tensor, positive: Tensor) -> Tensor:
    """The loss of each of m one-against-rest classifiers: -log phi where y is +1, -log(1 - phi) elsewhere.

    [SSM section 3.1] Shapes: probs [..., m], positive [..., m] bool; returns [..., m] float64.
    """
    probs = probs.double().clamp(TINY, 1 - TINY)
    return -torch.where(positive, probs, 1 - probs).log()


def consistency_score(
    pasted_boxes: Tensor,
    detections: Sequence[Detections],
    label: int,
    *,
    min_iou: float = 0.5,
    form: Form = "matched",
) -> Tensor:
    """How surely class ``label`` is found again where a candidate was pasted, a mean over images.

    [SSM Eq. 5] [SSM Eq. 6] Times the pace lambda it is eq. 5's f, as it stands eq. 6's s. The equations differ in print
    (eq. 5 tests the IoU, eq. 6 does not) and both divide by all proposals of an image, by which an image with many
    others would judge worse. So an image's own value is, by ``form``:

    * ``matched``: the mean probability of the class over the detections that overlap the pasted box by ``min_iou``;
    * ``max``: the largest of them;
    * ``literal5``: their sum over the number of all detections of the image, eq. 5 as printed;
    * ``literal6``: the mean over all detections, wherever they are, eq. 6 as printed;
    * ``vote``: the released code's: the image's best detection of the class, if it has more than 0.5 and overlaps by
      more than ``min_iou``; the score is the mean over the images that agree, and 0 unless they are more than half.

    An image without such detections counts as 0. Without any image the score is NaN: unknown, not low.

    Shapes: pasted_boxes [M, 4] xyxy, image frame, one for each pasted image; returns a float64 scalar in [0, 1].
    """
    values = torch.stack(
        [
            paste_value(box, found, label, min_iou=min_iou, form=form)
            for box, found in zip(pasted_boxes, detections, strict=True)
        ]
        or [torch.tensor(math.nan, dtype=torch.float64)]
    )
    return mean_of_votes(values) if form == "vote" else values.mean()


def paste_value(
    pasted_box: Tensor, found: Detections, label: int, *, min_iou: float = 0.5, form: Form = "matched"
) -> Tensor:
    """One pasted image's part of :func:`consistency_score`. Shapes: pasted_box [4]; returns a float64 scalar."""
    probs = found["probs"][:, label].double()
    if not len(probs):
        return probs.new_zeros(())
    overlap = box_iou(found["boxes"].double(), pasted_box[None].double())[:, 0]
    return _VALUES[form](probs, overlap, min_iou)


def mean_of_votes(values: Tensor) -> Tensor:
    """Mean of the images that agree, if they are more than half of all, else 0. Shapes: values [M]."""
    agree = values[values > 0]
    return agree.mean() if 2 * len(agree) > len(values) else values.new_zeros(())


def _matched(probs: Tensor, overlap: Tensor, min_iou: float) -> Tensor:
    match = overlap >= min_iou
    return probs[match].sum() / match.sum().clamp(min=1)


def _max(probs: Tensor, overlap: Tensor, min_iou: float) -> Tensor:
    return probs.where(overlap >= min_iou, 0).max()


def _literal5(probs: Tensor, overlap: Tensor, min_iou: float) -> Tensor:
    return probs[overlap >= min_iou].sum() / len(probs)


def _literal6(probs: Tensor, overlap: Tensor, min_iou: float) -> Tensor:
    return probs.mean()


def _vote(probs: Tensor, overlap: Tensor, min_iou: float) -> Tensor:
    best = probs.argmax()
    return probs[best] * ((probs[best] > 0.5) & (overlap[best] > min_iou))


_VALUES: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "matched": _matched,
    "max": _max,
    "literal5": _literal5,
    "literal6": _literal6,
    "vote": _vote,
}
