"""The other selectors: small cases by hand, and the order of candidates."""

from __future__ import annotations

import torch

from boxcycle.methods.ssm.rivals import (
    confident_boxes,
    entropy_questions,
    margin_questions,
    random_questions,
    self_paced_boxes,
)

from .cases import make

FIVE = [
    [0.02, 0.95, 0.02, 0.01],
    [0.10, 0.20, 0.70, 0.00],
    [0.25, 0.25, 0.25, 0.25],
    [0.97, 0.01, 0.01, 0.01],
    [0.00, 0.50, 0.49, 0.01],
]


def test_confident_boxes() -> None:
    found = confident_boxes(make(FIVE), threshold=0.7, top=9)
    assert found.candidates.image_ids.tolist() == [0, 1]
    assert found.labels.tolist() == [1, 2]
    assert found.weights.tolist() == [1, 1]
    assert confident_boxes(
        make([*FIVE, [0.0, 0.99, 0.01, 0.0]]), threshold=0.7, top=1
    ).candidates.image_ids.tolist() == [5, 1]


def test_self_paced_boxes_need_a_loss_within_the_tolerance() -> None:
    assert self_paced_boxes(make(FIVE), tolerance=0.36, top=9).candidates.image_ids.tolist() == [
        0,
        1,
    ]  # -log 0.7 = 0.357
    assert self_paced_boxes(make(FIVE), tolerance=0.35, top=9).candidates.image_ids.tolist() == [0]
    assert self_paced_boxes(make(FIVE), tolerance=0.05, top=9).candidates.image_ids.tolist() == []


def test_entropy_and_margin() -> None:
    assert entropy_questions(make(FIVE), count=2, min_prob=0.2).tolist() == [2, 1]
    assert margin_questions(make(FIVE), count=3, min_prob=0.2).tolist() == [2, 4, 1]
    assert entropy_questions(make(FIVE), count=9, min_prob=0.2).tolist() == [2, 1, 4, 0]


def test_random_questions_are_seeded_and_possible() -> None:
    rows = [
        random_questions(make(FIVE), count=2, min_prob=0.2, generator=torch.Generator().manual_seed(seed)).tolist()
        for seed in range(40)
    ]
    assert {row for its in rows for row in its} == {0, 1, 2, 4}
    assert (
        rows[3]
        == random_questions(make(FIVE), count=2, min_prob=0.2, generator=torch.Generator().manual_seed(3)).tolist()
    )


def test_the_order_of_candidates_does_not_matter() -> None:
    five, order = make(FIVE * 2), torch.randperm(10, generator=torch.Generator().manual_seed(0))
    turned = five[order]
    for ask in (entropy_questions, margin_questions):
        one, other = (its.image_ids[ask(its, count=6, min_prob=0.2)] for its in (five, turned))
        assert one.equal(other)
    one, other = (confident_boxes(its, threshold=0.5, top=9).candidates.image_ids for its in (five, turned))
    assert one.equal(other)


def test_no_candidates() -> None:
    none = make([])
    assert (
        len(confident_boxes(none, threshold=0.5, top=9).labels)
        == len(self_paced_boxes(none, tolerance=0.3, top=9).labels)
        == 0
    )
    assert not len(random_questions(none, count=3, min_prob=0.2, generator=torch.Generator()))
    assert not len(entropy_questions(none, count=3, min_prob=0.2))
    assert not len(margin_questions(none, count=3, min_prob=0.2))
