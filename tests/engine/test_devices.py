import pytest
import torch
from trainee import train

from boxcycle.engine.config import FitConfig
from boxcycle.engine.devices import make_accelerator, torch_settings


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_a_gpu_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="device is 'cuda', but torch finds only 'cpu' here"):
        make_accelerator(FitConfig(device="cuda"), tmp_path)


def test_fp16_on_a_cpu_is_refused_instead_of_quietly_float32(tmp_path):
    with pytest.raises(ValueError, match="precision 'fp16' needs a GPU; on a CPU take 'bf16' or 'no'"):
        make_accelerator(FitConfig(precision="fp16", device="cpu"), tmp_path)


def test_settings_of_the_launcher_do_not_override_the_config(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    accelerator = make_accelerator(FitConfig(device="cpu"), tmp_path)
    assert (accelerator.mixed_precision, accelerator.gradient_accumulation_steps) == ("no", 1)


def test_one_process_may_fit_in_one_precision_after_another(tmp_path):
    for precision in ("no", "bf16", "no"):
        train(tmp_path / precision / str(torch.rand(1)), FitConfig(steps=1, device="cpu", precision=precision))


def test_seeds_repeat_and_differ(tmp_path):
    def draw(seed: int) -> float:
        make_accelerator(FitConfig(seed=seed, device="cpu"), tmp_path)
        return torch.rand(1).item()

    assert draw(3) == draw(3) != draw(4)


def test_settings_hold_inside_and_come_back_after_an_error():
    threads = torch.get_num_threads()

    def fail() -> None:
        with torch_settings(FitConfig(threads=threads + 1, deterministic=True)):
            assert torch.get_num_threads() == threads + 1
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
