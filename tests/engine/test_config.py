import pytest
from pydantic import ValidationError

from boxcycle.engine.config import FitConfig


def test_every_field_has_a_default_and_a_description():
    FitConfig()
    assert all(field.description for field in FitConfig.model_fields.values())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "greater than or equal to 1"),
        ({"step": 5}, "Extra inputs"),
        ({"steps": 10, "warmup": 10}, "warmup must be shorter than steps (10); got 10"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size must be a multiple of accumulate (4); got 6"),
        ({"schedule": "steps"}, "needs milestones"),
        ({"milestones": (5,)}, "no other schedule takes them"),
        ({"steps": 10, "schedule": "steps", "milestones": (8, 6)}, "milestones must rise"),
        ({"steps": 10, "schedule": "steps", "milestones": (10,)}, "lie between 0 and steps (10)"),
        ({"lr": 0.0}, "greater than 0"),
        ({"lr": float("nan")}, "greater than 0"),
        ({"ema": 1.0}, "less than 1"),
        ({"clip": "value"}, "'none', 'global', 'group' or 'parameter'"),
        ({"device": "gpu"}, "'auto', 'cpu', 'cuda' or 'mps'"),
        ({"trackers": ("tensorboard",)}, "'wandb' or 'mlflow'"),
    ],
)
def test_wrong_settings_are_refused(settings, said):
    with pytest.raises(ValidationError) as error:
        FitConfig(**settings)
    assert said in str(error.value)


def test_a_config_cannot_change():
    with pytest.raises(ValidationError, match="frozen"):
        FitConfig().steps = 5


def test_it_survives_a_file():
    config = FitConfig(steps=9, schedule="steps", milestones=(3, 6), trackers=("wandb",))
    assert FitConfig(**config.model_dump(mode="json")) == config
