import pytest
import torch
from torch import nn
from trainee import TinyDetector

from boxcycle.engine.config import FitConfig
from boxcycle.engine.optim import clip_gradients, make_optimizer, parameter_groups, set_learning_rate


class Offering(nn.Module):
    """Offers the groups that a test hands it."""

    def __init__(self, groups) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 1)
        self.groups = groups

    def parameter_groups(self):
        return self.groups(self)


def test_a_model_without_groups_is_one_group_without_its_frozen_weights():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].requires_grad_(False)
    [group] = parameter_groups(model, FitConfig(weight_decay=0.3))
    assert group["params"] == list(model[1].parameters())
    assert (group["name"], group["weight_decay"], group["lr_scale"]) == ("model", 0.3, 1.0)


def test_groups_keep_what_they_name_and_get_the_rest_from_the_config():
    detector, heads = parameter_groups(TinyDetector(), FitConfig(weight_decay=0.3))
    assert (detector["name"], detector["weight_decay"], detector["lr_scale"]) == ("detector", 0.01, 1.0)
    assert (heads["name"], heads["weight_decay"], heads["lr_scale"]) == ("heads", 0.3, 2.0)


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        (
            lambda m: [{"name": "a", "params": list(m.first.parameters())}],
            "leaves out 2 trainable parameters: second.w",
        ),
        (lambda m: [{"name": "a", "params": [*m.parameters(), m.first.bias]}], "a parameter twice"),
        (lambda m: [{"name": "a", "params": [*m.parameters(), nn.Parameter(torch.ones(1))]}], "not the model's"),
        (lambda m: [{"name": "a", "params": list(m.parameters()), "decay": 1.0}], "'a' has unknown keys ['decay']"),
    ],
)
def test_groups_that_do_not_cover_the_model_are_refused(groups, said):
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the sentence is compared below
        parameter_groups(Offering(groups), FitConfig())
    assert said in str(error.value)


def test_a_model_that_is_frozen_altogether_is_refused():
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), FitConfig())


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_optimizer_and_learning_rates_of_groups(name, kind):
    config = FitConfig(optimizer=name, momentum=0.8)
    optimizer = make_optimizer(parameter_groups(TinyDetector(), config), config)
    set_learning_rate(optimizer, 0.25)
    assert type(optimizer) is kind
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.01, 1e-4]
    assert name != "sgd" or optimizer.param_groups[0]["momentum"] == 0.8


def groups_with_gradients(*gradients):
    """Two groups; the first holds the first two gradients."""
    params = [nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(params, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [{"name": "detector", "params": params[:2]}, {"name": "heads", "params": params[2:]}], params


GRADIENTS = ([3.0, 4.0], [12.0], [0.3, 0.4], [30.0, 40.0])  # norms 5, 12 (together 13), 0.5, 50


@pytest.mark.parametrize(
    ("how", "scales"),
    [
        ("none", [1, 1, 1, 1]),
        ("global", [10 / 2669.25**0.5] * 4),
        ("group", [10 / 13, 10 / 13, 10 / 2500.25**0.5, 10 / 2500.25**0.5]),
        ("parameter", [1, 10 / 12, 1, 10 / 50]),
    ],
)
def test_clipping_by_hand(how, scales):
    groups, params = groups_with_gradients(*GRADIENTS)
    norms = clip_gradients(groups, how, 10.0)
    for parameter, gradient, scale in zip(params, GRADIENTS, scales, strict=True):
        assert parameter.grad.tolist() == pytest.approx([scale * value for value in gradient], rel=1e-5)
    wanted = {
        "global": {"grad_norm": 2669.25**0.5},
        "group": {"grad_norm_detector": 13, "grad_norm_heads": 2500.25**0.5},
    }
    assert {name: float(norm) for name, norm in norms.items()} == pytest.approx(wanted.get(how, {}))


def test_one_group_is_all_together():
    _, params = groups_with_gradients(*GRADIENTS)
    norms = clip_gradients([{"name": "model", "params": params}], "group", 10.0)
    assert {name: float(norm) for name, norm in norms.items()} == pytest.approx({"grad_norm": 2669.25**0.5})


def test_clipping_each_tensor_is_tensorflows_clip_by_norm():
    generator = torch.Generator().manual_seed(0)
    gradients = [(torch.randn(7, generator=generator) * scale).tolist() for scale in (0.01, 1, 100, 1e4)]
    groups, params = groups_with_gradients(*gradients)
    clip_gradients(groups, "parameter", 10.0)
    for parameter, gradient in zip(params, gradients, strict=True):
        norm = sum(value * value for value in gradient) ** 0.5
        assert parameter.grad.tolist() == pytest.approx([value * 10 / max(norm, 10) for value in gradient], rel=1e-5)


def test_small_gradients_are_left_bit_for_bit():
    groups, params = groups_with_gradients([0.1], [0.2], [0.3], [0.4])
    clip_gradients(groups, "parameter", 10.0)
    assert [parameter.grad.item() for parameter in params] == [torch.tensor(v).item() for v in (0.1, 0.2, 0.3, 0.4)]


def test_a_parameter_without_gradient_is_passed_over():
    groups, params = groups_with_gradients(*GRADIENTS)
    params[1].grad = None
    clip_gradients(groups, "parameter", 10.0)
    assert params[3].grad.norm() == pytest.approx(10.0)
