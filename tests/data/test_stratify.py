from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from boxcycle.data.stratify import cover, iterative_stratification, stratified_prefix


def long_tail(images: int, classes: int, seed: int) -> np.ndarray:
    """Boxes [I, K] with class k about half as frequent as class k - 1."""
    rng = np.random.default_rng(seed)
    return rng.poisson(1.5 * 0.6 ** np.arange(classes), (images, classes)).astype(np.int64)


def deviation(presence: np.ndarray, chosen: np.ndarray) -> float:
    """Largest difference of a class's share of images from that in the full set."""
    return float(np.abs(presence[chosen].mean(axis=0) - presence.mean(axis=0)).max())


def test_two_folds_by_hand() -> None:
    """Four images of class 1, two of which have class 2 as well: each half gets one of these and one of those."""
    presence = np.array([[1, 0], [1, 1], [1, 0], [1, 1]], dtype=bool)
    for seed in range(10):
        folds = iterative_stratification(presence, (0.5, 0.5), np.random.default_rng(seed))
        assert sorted(folds[[0, 2]]) == [0, 1]
        assert sorted(folds[[1, 3]]) == [0, 1]


def test_shares_and_first_images() -> None:
    presence = long_tail(1000, 6, 0) > 0
    first = np.arange(1000) < 30
    folds = iterative_stratification(presence, (0.2, 0.3, 0.5), np.random.default_rng(0), first)
    sizes = np.bincount(folds, minlength=3)
    assert np.abs(sizes - [200, 300, 500]).max() <= 6
    assert (folds[:30] == 0).all()
    for fold, share in enumerate((0.2, 0.3, 0.5)):
        assert np.abs(presence[folds == fold].sum(axis=0) - share * presence.sum(axis=0)).max() <= 2


def test_images_without_classes_fill_up() -> None:
    folds = iterative_stratification(np.zeros((10, 3), dtype=bool), (0.5, 0.5), np.random.default_rng(0))
    assert np.bincount(folds).tolist() == [5, 5]


def test_proportions_are_closer_than_a_random_draw() -> None:
    presence = long_tail(600, 8, 1) > 0
    weights, nothing = np.ones(600, dtype=np.int64), np.zeros(0, dtype=np.int64)
    ours = [deviation(presence, stratified_prefix(presence, weights, 60, nothing, seed)) for seed in range(8)]
    random = [deviation(presence, np.random.default_rng(seed).permutation(600)[:60]) for seed in range(8)]
    assert np.mean(ours) < 0.4 * np.mean(random)


def test_prefixes_are_nested_and_of_the_right_length() -> None:
    presence = long_tail(97, 5, 2) > 0
    weights, first = np.ones(97, dtype=np.int64), np.array([5, 90, 17])
    prefixes = [set(stratified_prefix(presence, weights, target, first, seed=3)) for target in range(3, 98)]
    assert [len(prefix) for prefix in prefixes] == list(range(3, 98))
    assert all(shorter < longer for shorter, longer in pairwise(prefixes))
    assert prefixes[0] == {5, 90, 17}


def test_prefix_by_weight_stops_when_reached() -> None:
    counts = long_tail(80, 4, 4)
    weights, nothing = counts.sum(axis=1), np.zeros(0, dtype=np.int64)
    for target in (1, 7, 50, int(weights.sum())):
        chosen = stratified_prefix(counts > 0, weights, target, nothing, seed=0)
        assert target <= weights[chosen].sum() < target + weights.max()


def test_another_seed_gives_other_images() -> None:
    presence, weights = long_tail(200, 4, 0) > 0, np.ones(200, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    one, other, again = (set(stratified_prefix(presence, weights, 40, nothing, seed)) for seed in (0, 1, 0))
    assert one == again
    assert len(one & other) < 25


@pytest.mark.parametrize("shots", [1, 3, 10])
def test_cover_has_enough_of_every_class(shots: int) -> None:
    counts = long_tail(300, 7, 5)
    chosen = cover(counts, shots, np.random.default_rng(0))
    assert (counts[chosen].sum(axis=0) >= np.minimum(shots, counts.sum(axis=0))).all()
    assert len(set(chosen)) == len(chosen)
    fewer = cover(counts, shots - 1, np.random.default_rng(0))
    assert chosen[: len(fewer)].tolist() == fewer.tolist()


def test_cover_takes_few_images() -> None:
    """One image has everything; with as few candidates as images it is found."""
    counts = np.vstack([np.eye(5, dtype=np.int64), np.ones((1, 5), dtype=np.int64)])
    assert cover(counts, 1, np.random.default_rng(0)).tolist() == [5]


def test_cover_of_nothing() -> None:
    assert len(cover(np.zeros((4, 3), dtype=np.int64), 1, np.random.default_rng(0))) == 0
