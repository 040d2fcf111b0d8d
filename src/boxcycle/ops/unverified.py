"""Classes that nobody looked for in an image: no loss teaches that they are absent from it.

With hundreds of classes annotators look in each image for some of them (LVIS, Open Images). What has no box of another
class may well be of that class, so that class leaves the softmax.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from boxcycle.types import Target


def unverified_rows(targets: Sequence[Target], counts: Sequence[int]) -> Tensor | None:
    """The unverified classes of each region's image; None where no target has any.

    ``counts``: how many regions each image has. Shapes: returns [R, K+1] bool; background, first, is never unverified.
    """
    given = [target["unverified"] for target in targets if "unverified" in target]
    if not given:
        return None
    all_verified = torch.zeros_like(given[0])
    rows = [
        pad(target.get("unverified", all_verified), (1, 0)).expand(count, -1)
        for target, count in zip(targets, counts, strict=True)
    ]
    return torch.cat(rows)


def without_unverified(logits: Tensor, unverified: Tensor | None, known: Tensor) -> Tensor:
    """Logits whose softmax gives unverified classes a probability of 0, and no gradient to their logits.

    ``unverified`` as :func:`unverified_rows` gives it; with None the logits are returned as they are. ``known``: where
    the label says what the class is, so that it stays.

    Shapes: logits [R, K+1], known [R, K+1] or [R, 1] bool; returns [R, K+1].
    """
    if unverified is None:
        return logits
    # finite: a cross entropy with soft labels multiplies the log of the probability by 0
    return logits.masked_fill(unverified & ~known, torch.finfo(logits.dtype).min / 2)
