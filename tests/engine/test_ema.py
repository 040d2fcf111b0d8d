import pytest
import torch
from torch import nn

from boxcycle.engine.ema import Ema


def test_a_hand_computed_average():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    ema = Ema(model, 0.9)
    for value in (2.0, 3.0):
        model.weight.data.fill_(value)
        ema.update(model)
    first = 0.1 * 1.0 + 0.9 * 2.0  # decay (1 + 0) / (10 + 0)
    assert ema.average["weight"].item() == pytest.approx(2 / 11 * first + 9 / 11 * 3.0)


def test_late_updates_have_the_full_decay():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(0.0)
    ema = Ema(model, 0.5)
    ema.updates = 100
    model.weight.data.fill_(8.0)
    ema.update(model)
    assert ema.average["weight"].item() == 4.0


def test_averages_are_float32_and_counters_are_copied():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to(torch.bfloat16)
    ema = Ema(model, 0.9)
    model(torch.ones(4, 2, dtype=torch.bfloat16))
    ema.update(model)
    assert ema.average["0.weight"].dtype == torch.float32
    assert ema.average["1.num_batches_tracked"].item() == 1


def test_the_model_has_its_own_weights_again_after_the_block_even_after_an_error():
    model = nn.Linear(2, 2)
    own = model.weight.detach().clone()
    ema = Ema(model, 0.9)
    ema.average["weight"].fill_(7.0)

    def fail() -> None:
        with ema.applied(model):
            assert (model.weight == 7).all()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(model.weight, own)


def test_weights_that_stand_still_stay_exactly():
    model = nn.Linear(3, 3)
    ema = Ema(model, 0.99)
    for _ in range(50):
        ema.update(model)
    assert torch.equal(ema.average["weight"], model.weight)
