import pytest
import torch

from boxcycle.engine.config import FitConfig
from boxcycle.engine.schedule import learning_rate


def rates(**settings) -> list[float]:
    config = FitConfig(**settings)
    return [learning_rate(config, step) for step in range(config.steps)]


def torch_rates(make, steps: int, lr: float) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler = make(optimizer)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("steps", [10, 37, 1000])
@pytest.mark.filterwarnings("ignore:.*deprecated:UserWarning")
def test_one_cycle_is_that_of_torch(steps):
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.02, total_steps=steps + 1), steps, 0.02)
    # torch asks for one step more than it makes updates; with as many as the updates it ends on its last rate
    exact = torch_rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.02, total_steps=steps), steps - 1, 0.02)
    assert rates(steps=steps, lr=0.02)[:-1] == pytest.approx(exact, rel=1e-9)
    assert rates(steps=steps, lr=0.02)[-1] == pytest.approx(0.02 / 25 / 1e4)
    assert len(wanted) == steps


def test_one_cycle_peaks_where_warmup_ends():
    found = rates(steps=100, lr=1.0, warmup=20)
    assert found.index(max(found)) == 19
    assert max(found) == 1.0
    assert found[0] == pytest.approx(1 / 25)


def test_cosine_is_that_of_torch():
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=50), 50, 0.1)
    assert rates(steps=50, lr=0.1, schedule="cosine") == pytest.approx(wanted, rel=1e-9)


def test_milestones_are_those_of_torch():
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [6, 8], gamma=0.1), 10, 0.1)
    found = rates(steps=10, lr=0.1, schedule="steps", milestones=(6, 8))
    assert found == pytest.approx(wanted, rel=1e-9)
    assert found[5:9] == pytest.approx([0.1, 0.01, 0.01, 0.001])


def test_warmup_is_that_of_torch():
    wanted = torch_rates(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1e-3, total_iters=5), 10, 0.1)
    assert rates(steps=10, lr=0.1, schedule="constant", warmup=5) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_the_shortest_runs_have_a_rate(schedule, steps):
    found = rates(steps=steps, schedule=schedule, lr=1.0)
    assert all(0 < rate <= 1 for rate in found)
    assert max(found) > 0.5 or steps == 2
