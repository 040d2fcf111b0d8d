"""Several gloo processes are one process; one of them sees only images without boxes."""

import re
from pathlib import Path

import pytest
import torch
from trainee import train, train_as_rank

from boxcycle.engine.checkpoint import load_resume, load_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.metrics import read_metrics
from ranks import free_port, run_together

CONFIG = FitConfig(steps=3, batch_size=4, lr=0.01, log_every=1, eval_every=2, save_every=1, device="cpu", ema=0.5)


def run_two(context, folder: Path, config: FitConfig, **options) -> list[int]:
    """Exit codes of two processes that train together."""
    port = free_port()
    return run_together(context, train_as_rank, [(rank, 2, port, folder, config, options) for rank in (0, 1)])


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2, "clip": "group"}])
def test_two_processes_are_one_though_one_sees_no_box(processes, tmp_path, settings):
    config = CONFIG.model_copy(update=settings)
    assert run_two(processes, tmp_path / "two", config, empty_half=True) == [0, 0]
    train(tmp_path / "one", config, noisy=False, empty_half=True)
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert one.keys() == two.keys() == {1, 2, 3}
    for step in one:
        for name in ("loss", "loss_boxes", "loss_classes", "present", "lr"):
            assert two[step][name] == pytest.approx(one[step][name], abs=1e-5), (step, name)
    assert two[3]["AP50"] == pytest.approx(one[3]["AP50"], abs=1e-5)
    weights = [load_weights(tmp_path / name / "checkpoints" / "last.safetensors").tensors for name in ("one", "two")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_a_loss_that_is_not_finite_on_one_process_stops_both_with_the_same_words(processes, tmp_path):
    assert run_two(processes, tmp_path, CONFIG, poison=6) == [1, 1]  # the third image of the second step: rank 1's
    said = {(tmp_path / f"error-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(said) == 1
    assert re.fullmatch(
        r"the loss of step 2 is not finite: loss_boxes \S+, loss_classes nan \(images 6, 7\)", said.pop()
    )
    assert load_resume(tmp_path / "checkpoints")["step"] == 1


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_process_stops_both_and_they_go_on_bit_for_bit(processes, tmp_path, rank):
    config = CONFIG.model_copy(update={"steps": 5, "save_every": 0})
    assert run_two(processes, tmp_path / "whole", config, noisy=True) == [0, 0]
    assert run_two(processes, tmp_path / "parts", config, noisy=True, stop=(rank, 3)) == [143, 143]
    assert load_resume(tmp_path / "parts" / "checkpoints")["step"] == 3
    assert run_two(processes, tmp_path / "parts", config, noisy=True, resume=True) == [0, 0]
    whole, parts = (
        load_weights(tmp_path / name / "checkpoints" / "last.safetensors").tensors for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_images_that_cannot_be_shared_out_are_refused(processes, tmp_path):
    assert run_two(processes, tmp_path, CONFIG.model_copy(update={"batch_size": 3})) == [1, 1]
    assert (
        "batch_size (3) must be a multiple of accumulate x processes (1 x 2)" in (tmp_path / "error-1.txt").read_text()
    )
