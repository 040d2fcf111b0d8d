"""The losses of WS-JDS against worked examples, values by hand and gradients that they must have."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from boxcycle.methods.ws_jds import losses
from boxcycle.methods.ws_jds.labels import wsddn_scores

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text())


def inputs(name: str) -> dict[str, Tensor]:
    return {key: torch.tensor(value) for key, value in EXAMPLES[name]["input"].items()}


def test_image_loss_by_hand() -> None:
    loss = losses.image_loss(torch.tensor([0.5, 0.25]), torch.tensor([1.0, 0.0]))
    assert float(loss) == pytest.approx(-math.log(0.5) - math.log(0.75), abs=1e-6)


@pytest.mark.parametrize("score", [0.0, 1e-9, 1.0, 1.0000002])
@pytest.mark.parametrize("tag", [0.0, 1.0])
def test_image_loss_is_finite_and_pulls_at_the_ends(score: float, tag: float) -> None:
    scores = torch.tensor([score], requires_grad=True)
    losses.image_loss(scores, torch.tensor([tag])).backward()
    assert scores.grad is not None
    assert math.isfinite(float(scores.grad))
    assert float(scores.grad) < 0 if tag else float(scores.grad) > 0


def test_guided_loss_examples() -> None:
    given, expected = inputs("refined_split"), EXAMPLES["refined_split"]["expected"]
    scores = wsddn_scores(given["Xc"], given["Xd"])
    weights, tags = given["W"], given["t"].float()
    assert float(losses.guided_loss(scores, weights, tags)) == pytest.approx(expected["loss"], abs=1e-5)
    literal = EXAMPLES["refined_literal_eq4"]["expected"]["loss_sum"]
    assert float(losses.guided_loss(scores, weights, tags, literal=True)) == pytest.approx(literal, abs=1e-5)


def test_without_guidance_it_is_the_image_loss() -> None:
    given = inputs("refined_split")
    scores, tags = wsddn_scores(given["Xc"], given["Xd"]), given["t"].float()
    plain = losses.image_loss(scores.sum(0), tags)
    for literal in (False, True):
        guided = losses.guided_loss(scores, torch.ones_like(scores), tags, literal=literal)
        assert float(guided) == pytest.approx(float(plain), abs=2e-5)  # log(1 - 1e-6) for each class


def test_guidance_lifts_good_proposals_and_lowers_bad_ones() -> None:
    scores = torch.full((3, 1), 0.2, requires_grad=True)
    losses.guided_loss(scores, torch.tensor([[1.0], [0.5], [-1.0]]), torch.ones(1)).backward()
    assert scores.grad is not None
    good, fair, bad = scores.grad[:, 0].tolist()
    assert good < fair < 0 < bad


def test_seed_loss_example() -> None:
    given = inputs("seg_loss")
    found = losses.seed_loss(torch.logit(given["S"]), given["M"])
    assert float(found) == pytest.approx(EXAMPLES["seg_loss"]["expected"]["balanced"], abs=1e-5)


def test_ignored_cells_teach_nothing() -> None:
    logits = torch.zeros(2, 2, 2, requires_grad=True)
    losses.seed_loss(logits, torch.tensor([[[1, -1], [0, -1]], [[-1, -1], [-1, -1]]])).backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 1].eq(0).all()
    assert logits.grad[1].eq(0).all()
    assert logits.grad[0, 0, 0] < 0 < logits.grad[0, 1, 0]


def test_boundary_loss_is_zero_at_its_target_and_positive_elsewhere() -> None:
    targets = torch.tensor([[[0.0, 0.3], [0.9, 1.0]]])
    same = losses.boundary_loss(torch.logit(targets, eps=1e-7), targets)
    assert float(same) == pytest.approx(0, abs=1e-6)
    by_hand = 0.25 * sum(
        q * math.log(q / 0.5) + (1 - q) * math.log((1 - q) / 0.5) if 0 < q < 1 else math.log(2)
        for q in targets.flatten().tolist()
    )
    assert float(losses.boundary_loss(torch.zeros(1, 2, 2), targets)) == pytest.approx(by_hand, abs=1e-6)


def test_boundary_loss_without_present_classes_keeps_the_graph() -> None:
    logits = torch.zeros(0, 2, 2, requires_grad=True)
    losses.boundary_loss(logits, torch.zeros(0, 2, 2)).backward()
    assert logits.grad is not None


def test_pooled_loss_is_that_of_the_common_value_and_of_the_highest() -> None:
    flat = losses.pooled_loss(torch.full((1, 3, 4), 0.7), torch.ones(1))
    assert float(flat) == pytest.approx(math.log1p(math.exp(-0.7)), abs=1e-6)
    peak = torch.full((1, 3, 4), -50.0)
    peak[0, 1, 1] = 50.0
    assert float(losses.pooled_loss(peak, torch.zeros(1))) == pytest.approx(50 - math.log(12), abs=1e-3)
