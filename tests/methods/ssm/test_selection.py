"""Which candidates are mined and asked about: worked examples, second implementations, invariances."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boxcycle.methods.ssm import selection
from boxcycle.methods.ssm.labels import FIELDS, binary_losses
from boxcycle.methods.ssm.selection import (
    UNDEFINED,
    assign_labels,
    can_be_selected,
    least_probability,
    predicted_weights,
    pseudo_boxes,
    select_confident,
    select_questions,
    self_paced_weights,
)

from .cases import make

EXAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("examples.json").read_text(encoding="utf-8"))


def double(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def draw(count: int, seed: int, classes: int = 3) -> Any:
    """Candidates of every kind, some of unknown consistency, some equal."""
    generator = torch.Generator().manual_seed(seed)
    probs = torch.randn(count, classes + 1, generator=generator).mul(2).softmax(1)
    consistency = torch.rand(count, generator=generator).mul(10).round() / 10
    consistency[torch.rand(count, generator=generator) < 0.2] = math.nan
    return make(probs.tolist(), consistency.tolist())


def test_hard_weights() -> None:
    given, expected = EXAMPLES["G09"]["input"], EXAMPLES["G09"]["expected"]
    losses = binary_losses(double([given["phi"]]), torch.tensor([given["y"]]) > 0)
    assert self_paced_weights(losses, double([given["f"]])).int().tolist() == [expected["v"]]


def test_weights_are_those_of_least_cost() -> None:
    losses, f = torch.rand(50, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), double([0.3])
    v = self_paced_weights(losses, f.expand(50))
    cost = v * losses - f * v  # eq. 2 and 3, one term each
    assert (cost <= torch.minimum(losses - f, torch.zeros(()))).all()
    assert self_paced_weights(double([[0.3]]), double([0.3])).tolist() == [[True]]  # equal passes
    assert self_paced_weights(double([[0.0]]), double([math.nan])).tolist() == [[False]]


@pytest.mark.parametrize("name", ["G11", "G13"])
def test_labels_by_trying_all(name: str) -> None:
    given, expected = EXAMPLES[name]["input"], EXAMPLES[name]["expected"]
    found = assign_labels(double([given["phi"]]), double([given["v"]]))
    assert found.objectives[0].tolist() == pytest.approx(expected["objectives"], abs=1e-9)
    assert found.labels.tolist() == [expected["label"]]
    assert float(found.objectives[0, expected["label"] + 1]) == pytest.approx(expected["objective"], abs=1e-9)


def test_background_is_a_label_too() -> None:
    given, expected = EXAMPLES["G15"]["input"], EXAMPLES["G15"]["expected"]
    found = assign_labels(double([given["phi"]]), double([given["v"]]))
    assert found.labels.tolist() == [expected["label"]]
    assert float(found.objectives.min()) == pytest.approx(expected["objective"], abs=1e-9)
    assert not len(pseudo_boxes(make([given["phi"]], [1.0])).labels)


def test_trying_all_equals_the_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(3000, 5, generator=generator, dtype=torch.float64).mul(2).softmax(1)
    weights = torch.rand(3000, 5, generator=generator) < 0.7
    gain = weights * torch.logit(probs)
    expected = gain.argmax(1).where(gain.amax(1) > 1e-12, torch.tensor(UNDEFINED))
    assert assign_labels(probs, weights).labels.equal(expected)


def test_of_equal_attempts_all_negative_comes_first_then_the_lowest_class() -> None:
    assert assign_labels(double([[0.5, 0.5]]), double([[1, 1]])).labels.tolist() == [UNDEFINED]
    assert assign_labels(double([[0.1, 0.9, 0.9]]), double([[1, 1, 1]])).labels.tolist() == [1]
    assert assign_labels(double([[0.1, 0.9]]), double([[0, 0]])).labels.tolist() == [UNDEFINED]


def test_the_least_probability_that_can_pass() -> None:
    given, expected = EXAMPLES["G17"]["input"], EXAMPLES["G17"]["expected"]
    assert least_probability(1.0, given["lambda"]) == pytest.approx(expected["min_phi_u1"], abs=1e-9)
    for consistency, probability in expected["min_phi_at_s"].items():
        assert least_probability(float(consistency), 0.9) == pytest.approx(probability, abs=1e-9)
    passes = [
        bool(self_paced_weights(binary_losses(double([[phi]]), torch.tensor([[True]])), double([0.9])))
        for phi in given["phi"]
    ]
    assert passes == [bool(value) for value in expected["can_pass_u1"]]


@pytest.mark.parametrize("pace", [0.3, 0.9])
def test_pruning_loses_no_pseudo_box(pace: float) -> None:
    drawn = draw(2000, 1)
    possible = can_be_selected(drawn.probs, 1.0, pace)
    assert 0.05 < possible.double().mean() < 0.9
    whole, pruned = pseudo_boxes(drawn, pace=pace), pseudo_boxes(drawn[possible], pace=pace)
    assert len(whole.labels) > 20
    assert whole.candidates.image_ids.equal(pruned.candidates.image_ids)
    for bound in (0.2, 0.7):
        lower = drawn[drawn.consistency <= bound]
        kept = pseudo_boxes(lower, pace=pace).candidates
        assert can_be_selected(kept.probs, bound, pace).all()


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_from_probabilities_to_pseudo_box(name: str) -> None:
    phi = next(phi for its, phi, _ in EXAMPLES["G19"]["input"]["cands"] if its == name)
    expected = EXAMPLES["G19"]["expected"][name]
    one = make([phi], [expected["s"]])
    v = predicted_weights(one, 0.9)
    assert one.labels.tolist() == [expected["j_star"]]
    assert v.int().tolist() == [expected["v"]]
    assert assign_labels(one.probs, v).labels.tolist() == [expected["label"]]
    assert len(pseudo_boxes(one).labels) == expected["in_H"]


def test_the_most_consistent_of_each_class_in_a_fixed_order() -> None:
    phi = [[0.05, 0.9, 0.05, 0.0], [0.05, 0.05, 0.9, 0.0], [0.9, 0.1, 0.0, 0.0], [0.05, 0.0, 0.9, 0.05]]
    five = make([phi[0], phi[1], phi[2], phi[3], phi[0]], [0.5, 0.7, 1.0, 0.9, 0.5])
    assert select_confident(five, top=1).tolist() == [0, 3]
    assert select_confident(five, top=5).tolist() == [0, 4, 3, 1]
    assert select_confident(make([phi[0]] * 3, [0.0, math.nan, 0.1]), top=5).tolist() == []


def test_weights_of_pseudo_boxes() -> None:
    two = make([[0.05, 0.9, 0.05, 0.0], [0.05, 0.05, 0.9, 0.0]], [0.5, 0.75])
    assert pseudo_boxes(two).weights.tolist() == [1, 1]
    assert pseudo_boxes(two, weigh=True).weights.tolist() == [0.5, 0.75]


@pytest.mark.parametrize(("classes", "expected"), [(2, "r2"), (3, "r3")])
def test_questions_in_order_of_consistency(classes: int, expected: str) -> None:
    given = EXAMPLES["G21"]["input"]
    names = [name for name, _, _ in given["cands_id_s_phi"]]
    five = make([phi for _, _, phi in given["cands_id_s_phi"]], [s for _, s, _ in given["cands_id_s_phi"]])
    settings = {"max_consistency": given["s_max"], "min_prob": given["tau"], "classes": classes}
    rows = select_questions(five, count=9, generator=torch.Generator(), **settings)
    assert [names[row] for row in rows] == EXAMPLES["G21"]["expected"][expected]
    assert not len(select_questions(five, count=9, generator=torch.Generator(), **(settings | {"min_prob": 0.5})))


def test_questions_are_drawn_at_random_without_repeats_and_from_a_seed() -> None:
    drawn = draw(500, 2)

    def ask(seed: int) -> list[int]:
        return select_questions(drawn, count=20, generator=torch.Generator().manual_seed(seed)).tolist()

    assert ask(0) == ask(0) != ask(1)
    assert len(set(ask(0))) == 20
    many = torch.cat([torch.tensor(ask(seed)) for seed in range(200)]).bincount(minlength=500)
    everyone = select_questions(drawn, count=500, generator=torch.Generator())
    assert (many[everyone] > 0).all()
    assert many.sum() == many[everyone].sum()


def test_what_was_not_measured_is_asked_about_last() -> None:
    phi = [0.2, 0.4, 0.4, 0.0]
    rows = select_questions(make([phi] * 3, [math.nan, 0.05, 0.9]), count=5, generator=torch.Generator())
    assert rows.tolist() == [1, 0]


def test_the_order_of_candidates_does_not_matter() -> None:
    drawn = draw(300, 3)
    turned = drawn[torch.randperm(300, generator=torch.Generator().manual_seed(0))]
    for one, two in (
        (pseudo_boxes(drawn, top=7).candidates, pseudo_boxes(turned, top=7).candidates),
        tuple(its[select_questions(its, count=9, generator=torch.Generator())] for its in (drawn, turned)),
    ):
        assert len(one)
        assert all(getattr(one, name).nan_to_num(-1).equal(getattr(two, name).nan_to_num(-1)) for name in FIELDS)


def test_no_candidates() -> None:
    none = make([])
    assert select_confident(none).tolist() == []
    assert select_questions(none, count=3, generator=torch.Generator()).tolist() == []
    assert len(pseudo_boxes(none).labels) == 0
    assert assign_labels(torch.zeros(0, 4), torch.zeros(0, 4)).labels.tolist() == []
    assert selection.is_torn(torch.zeros(0, 4), min_prob=0.2, classes=2).tolist() == []
