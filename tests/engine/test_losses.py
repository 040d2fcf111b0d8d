import pytest
import torch

from boxcycle.engine.losses import RunningMeans, describe, mean_over_processes, weighted_total


def test_the_total_is_the_weighted_sum():
    losses = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert weighted_total(losses, {"b": 0.5, "a": 10.0}).item() == 21.5


def test_the_gradient_of_a_loss_is_its_weight():
    loss = torch.tensor(2.0, requires_grad=True)
    weighted_total({"a": loss}, {"a": 0.3}).backward()
    assert loss.grad.item() == pytest.approx(0.3)


def test_unequal_keys_are_named():
    losses = {"loss_box": torch.tensor(1.0), "loss_windows": torch.tensor(1.0)}
    with pytest.raises(ValueError, match=r"losses lack \['loss_window'\], loss_weights lack \['loss_windows'\]"):
        weighted_total(losses, {"loss_box": 1.0, "loss_window": 1.0})


def test_the_description_names_values_and_images():
    targets = [{"image_id": 17}, {"image_id": torch.tensor(4)}, {}]
    said = describe({"loss_box": torch.tensor(torch.nan), "loss_class": torch.tensor(0.25)}, targets)
    assert said == "loss_box nan, loss_class 0.25 (images 17, 4, unnamed)"


def test_means_count_each_name_by_itself_and_start_anew():
    means = RunningMeans()
    means.add({"loss": torch.tensor(1.0, requires_grad=True), "rare": 5.0})
    means.add({"loss": torch.tensor(2.0)})
    assert means.take() == {"loss": 1.5, "rare": 5.0}
    assert means.take() == {}


def test_a_value_that_changes_afterwards_does_not_change_the_mean():
    means, value = RunningMeans(), torch.tensor(1.0)
    means.add({"loss": value})
    value += 10
    assert means.take() == {"loss": 1.0}


def test_processes_that_lack_a_number_do_not_count_for_it():
    assert mean_over_processes([{"loss": 1.0, "iou": 0.5}, {"loss": 3.0}]) == {"loss": 2.0, "iou": 0.5}
