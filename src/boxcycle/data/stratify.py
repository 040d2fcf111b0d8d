"""Choosing images so that their classes stand to each other as in the whole set.

Images have several classes at once, so that drawing from each class in turn would favour images with many.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]  # [I, K] boxes of each class in each image
Positions = NDArray[np.int64]

CANDIDATES = 8  # images compared for each one chosen: few images suffice, and another seed still gives other ones


def iterative_stratification(
    presence: NDArray[np.bool_],
    shares: tuple[float, ...],
    rng: np.random.Generator,
    first: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Divide images into folds of the given shares, keeping the proportions of the classes.

    Shapes: presence [I, K]: which classes an image has; first [I]: images that fold 0 holds from the start; returns the
    fold of each image [I]. The class with the fewest images left is dealt out first, each image to the fold that lacks
    most of that class, then to the one that lacks most images, then at random.
    Sechidis, Tsoumakas, Vlahavas: On the stratification of multi-label data, ECML PKDD 2011, algorithm 1.
    """
    folds = np.full(len(presence), -1)
    wanted = np.asarray(shares) * len(presence)  # [J] images that each fold still lacks
    wanted_of_class = np.outer(shares, presence.sum(axis=0))  # [J, K]

    def assign(image: np.intp, fold: int) -> None:
        folds[image] = fold
        wanted[fold] -= 1
        wanted_of_class[fold] -= presence[image]

    for image in np.flatnonzero(first) if first is not None else ():
        assign(image, 0)
    while True:
        left = presence[folds < 0].sum(axis=0)
        if not left.any():
            break
        label = int(np.argmin(np.where(left > 0, left, len(presence) + 1)))
        for image in rng.permutation(np.flatnonzero(presence[:, label] & (folds < 0))):
            assign(image, int(np.lexsort((rng.random(len(wanted)), wanted, wanted_of_class[:, label]))[-1]))
    for image in rng.permutation(np.flatnonzero(folds < 0)):  # without any class
        assign(image, int(np.lexsort((rng.random(len(wanted)), wanted))[-1]))
    return folds


def cover(counts: Counts, shots: int, rng: np.random.Generator) -> Positions:
    """Few images that together have at least ``shots`` boxes of every class (of a class with fewer boxes, all of them).

    Chosen greedily, the rarest class first. The result for fewer shots is its beginning.
    """
    have, supply = np.zeros(counts.shape[1], dtype=np.int64), counts.sum(axis=0)
    images_with, free = (counts > 0).sum(axis=0), np.ones(len(counts), dtype=bool)
    chosen: list[int] = []
    for level in range(1, shots + 1):
        while (need := np.clip(np.minimum(level, supply) - have, 0, None)).any():
            rarest = int(np.argmin(np.where(need > 0, images_with, len(counts) + 1)))
            candidates = rng.permutation(np.flatnonzero((counts[:, rarest] > 0) & free))[:CANDIDATES]
            gain = np.minimum(counts[candidates], need).sum(axis=1)
            best = int(candidates[np.lexsort((counts[candidates].sum(axis=1), -gain))[0]])
            chosen.append(best)
            free[best] = False
            have += counts[best]
    return np.array(chosen, dtype=np.int64)


def stratified_prefix(
    presence: NDArray[np.bool_], weights: NDArray[np.int64], target: int, first: Positions, seed: int
) -> Positions:
    """The shortest prefix, of weight ``target`` at least, of a seeded order of the images that begins with ``first``.

    The order is made by dividing the images into stratified halves over and over, so that a prefix of any length is
    stratified, and contains every shorter one. Only the halves that the target cuts are divided. ``target`` must be at
    least the weight of ``first``.
    """
    chosen: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)]
    part, node, left = np.arange(len(presence)), 1, target
    leading = np.isin(part, first)
    while left > 0 and len(part):
        if weights[part].sum() <= left or len(part) == 1:
            chosen.append(part)
            break
        in_front = _halve(presence[part], leading[part], np.random.default_rng((seed, node)))
        front = part[in_front]
        if weights[front].sum() >= left:
            part, node = front, 2 * node
        else:
            chosen.append(front)
            left -= int(weights[front].sum())
            part, node = part[~in_front], 2 * node + 1
    return np.sort(np.concatenate(chosen))


def _halve(presence: NDArray[np.bool_], leading: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of two or more images are in the front half: all leading ones, and never none or all."""
    in_front = iterative_stratification(presence, (0.5, 0.5), rng, leading) == 0
    if in_front.any() and not in_front.all():
        return in_front
    others = rng.permutation(np.flatnonzero(~leading))
    in_front = leading.copy()
    in_front[others[: max(len(leading) // 2 - int(leading.sum()), 0)]] = True
    return in_front
