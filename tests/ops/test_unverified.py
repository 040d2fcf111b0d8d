"""Unverified classes leave the softmax of a region: by hand, by fewer classes, and not at all where there are none."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from boxcycle.ops.unverified import unverified_rows, without_unverified
from boxcycle.types import Target

NOTHING = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)


def target(unverified: list[bool] | None) -> Target:
    made = Target(boxes=NOTHING[0], labels=NOTHING[1])
    if unverified is not None:
        made["unverified"] = torch.tensor(unverified)
    return made


def test_each_region_has_the_row_of_its_image() -> None:
    targets = [target([True, False]), target(None), target([True, True]), target([False, False])]
    rows = unverified_rows(targets, [2, 1, 0, 1])
    assert rows is not None
    assert rows.tolist() == [[False, True, False], [False, True, False], [False] * 3, [False] * 3]


@pytest.mark.parametrize("counts", [[], [0, 0], [3, 1]])
def test_targets_without_the_field_have_no_rows(counts: list[int]) -> None:
    assert unverified_rows([target(None)] * len(counts), counts) is None


def test_without_rows_the_logits_are_returned_as_they_are() -> None:
    logits = torch.randn(3, 4)
    assert without_unverified(logits, None, known=torch.zeros(3, 1, dtype=torch.bool)) is logits
    same = without_unverified(logits, torch.zeros(3, 4, dtype=torch.bool), known=torch.zeros(3, 1, dtype=torch.bool))
    assert same.equal(logits)


def test_by_hand() -> None:
    """Of background and three classes, the second is unverified: a background region, then an object."""
    logits = torch.tensor([[0.0, math.log(2), 50.0, math.log(5)]] * 2)
    rows = torch.tensor([[False, False, True, False]] * 2)
    left = without_unverified(logits, rows, known=torch.tensor([[False], [True]]))
    assert left[0].softmax(-1).tolist() == pytest.approx([1 / 8, 2 / 8, 0, 5 / 8])
    assert float(left[0].softmax(-1)[2]) == 0
    assert left[1].equal(logits[1])


@pytest.mark.parametrize("soft", [False, True])
def test_a_hidden_logit_has_no_gradient_and_no_influence(soft: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 5, generator=generator) * 30
    rows = torch.rand(6, 5, generator=generator) < 0.5
    rows[:, 0] = False
    wanted = (torch.rand(6, 5, generator=generator) * ~rows).softmax(-1) * ~rows if soft else torch.zeros(6).long()
    known = wanted > 0 if soft else (wanted > 0)[:, None]
    gradients, losses = [], []
    for shift in (0.0, 1e6):
        moved = (logits + shift * rows).requires_grad_()
        loss = cross_entropy(without_unverified(moved, rows, known), wanted, reduction="none")
        loss.sum().backward()
        losses.append(loss.detach())
        gradients.append(moved.grad)
    assert losses[0].isfinite().all()
    assert losses[0].equal(losses[1])
    assert gradients[0].equal(gradients[1])
    assert gradients[0][rows].eq(0).all()
    assert gradients[0][~rows].ne(0).any()


def test_a_softmax_over_fewer_classes_is_the_same() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, rows = torch.randn(8, 6, generator=generator), torch.rand(8, 6, generator=generator) < 0.5
    rows[:, 0] = False
    left = without_unverified(logits, rows, known=torch.zeros(8, 1, dtype=torch.bool)).softmax(-1)
    for one, row, probs in zip(logits, rows, left, strict=True):
        torch.testing.assert_close(probs[~row], one[~row].softmax(-1))
