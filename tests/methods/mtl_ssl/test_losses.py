"""Losses and refinement against worked examples and closed forms."""

import json
import math
from pathlib import Path

import pytest
import torch

from boxcycle.methods.mtl_ssl import losses
from boxcycle.methods.mtl_ssl.refinement import Refiner

EXAMPLES = {case["id"]: case for case in json.loads((Path(__file__).parent / "examples.json").read_text())}


def test_multi_object_example() -> None:
    case = EXAMPLES["L01"]
    found = losses.multi_object_loss(torch.tensor(case["logits"]), torch.tensor(case["targets"]))
    assert float(found.mean()) == pytest.approx(case["expected"]["loss"], abs=1e-5)


def test_foreground_example() -> None:
    case, expected = EXAMPLES["L03"], EXAMPLES["L03"]["expected"]
    logits = torch.tensor(case["raw_logits"]).T[None, :, None]  # [1, 2, 1, cells]
    mask, weights = torch.tensor(case["mask"])[None, None], torch.tensor(case["weights"])[None, None]
    assert float(losses.foreground_loss(logits, mask)) == pytest.approx(expected["loss_plain_unweighted"], abs=1e-5)
    assert float(losses.foreground_loss(logits, mask, weights)) == pytest.approx(
        expected["loss_plain_weighted"], abs=1e-5
    )
    assert float(losses.foreground_loss(logits.tanh(), mask, weights)) == pytest.approx(
        expected["loss_tanh_weighted"], abs=1e-5
    )


def test_closeness_with_and_without_background() -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    full = math.log(math.exp(9) + math.exp(1) + math.exp(2)) - (0.25 * 1 + 0.75 * 2)
    assert losses.closeness_loss(logits, wanted).tolist() == pytest.approx([full, math.log(3)], abs=1e-5)
    foreground = math.log(math.exp(1) + math.exp(2)) - (0.25 * 1 + 0.75 * 2)
    assert losses.closeness_loss(logits, wanted, background=False).tolist() == pytest.approx(
        [foreground, 0.0], abs=1e-5
    )


def test_edge_loss_by_hand() -> None:
    """Two cells of a box of 4 x 4, one guessed right, one as a quarter of it; a cell of another box, guessed right."""
    distances = torch.full((4, 1, 4), 2.0)
    guess = distances.clone()
    guess[:, 0, 1] = 1.0
    guess[:, 0, 3] = 99.0  # of no box
    owner = torch.tensor([[0, 0, 5, -1]])
    assert float(losses.edge_loss(guess, distances, owner)) == pytest.approx((0.75 / 2 + 0) / 2, abs=1e-5)
    assert float(losses.edge_loss(guess, distances, torch.full_like(owner, -1))) == 0


def test_refinement_example() -> None:
    case = EXAMPLES["A01"]
    refiner = Refiner(num_classes=1, windows=5, closeness=True)
    refiner.layer.weight.data = torch.tensor(case["Wr"])
    refiner.layer.bias.data = torch.tensor(case["bias"])
    mean = torch.tensor(case["closeness"]).mean(0)
    assert mean.tolist() == pytest.approx(case["expected"]["mean_closeness"])
    refined = refiner(torch.tensor(case["x"]), torch.tensor(case["m"]), mean.expand(2, -1))
    torch.testing.assert_close(refined, torch.tensor(case["expected"]["x_refined"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("leak", [False, True])
def test_the_refinement_loss_trains_the_refiner_alone_unless_it_leaks(leak: bool) -> None:
    refiner = Refiner(num_classes=2, windows=2, closeness=True, leak=leak)
    inputs = [torch.randn(4, 3), torch.randn(4, 2, 3), torch.randn(4, 3)]
    logits, windows, closeness = (value.requires_grad_() for value in inputs)
    refiner(logits, windows, closeness).square().sum().backward()
    assert refiner.layer.weight.grad.abs().sum() > 0
    assert (logits.grad is not None) == leak
    assert windows.grad is None
    assert closeness.grad is None


def test_the_refiner_starts_near_identity_and_draws_from_nobody() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    refiner = Refiner(num_classes=4, windows=5, closeness=True)
    assert torch.rand(1) == expected
    logits = torch.randn(6, 5)
    assert (refiner(logits, torch.randn(6, 5, 5), torch.randn(6, 5)) - logits).abs().max() < 0.5


def test_the_refiner_starts_no_further_from_identity_with_more_classes() -> None:
    shifts = []
    for classes in (90, 500):
        refiner = Refiner(num_classes=classes, windows=5, closeness=True)
        logits = [torch.randn(9, *shape, generator=torch.Generator().manual_seed(0)) for shape in shapes(classes + 1)]
        shifts.append(float((refiner(*logits) - logits[0]).detach().std()))
    assert shifts[1] == pytest.approx(shifts[0], rel=0.1)


def shapes(width: int) -> tuple[tuple[int, ...], ...]:
    """Of a region's logits, its windows' and its image's closeness."""
    return (width,), (5, width), (width,)
