"""A run that is stopped or killed, and goes on, is the run that was never stopped, bit for bit."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from trainee import TinyDetector, signals_itself, train

from boxcycle.engine.checkpoint import load_resume, load_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.metrics import read_metrics
from boxcycle.engine.signals import Interrupted

TIMES = {"images_per_second", "memory_gb"}  # the columns that no two runs share
EVERYTHING = {"optimizer": "adamw", "ema": 0.9, "clip": "group", "accumulate": 2, "batch_size": 4, "device": "cpu"}


def contents(folder: Path) -> dict:
    """All that a run leaves and that must be equal."""
    checkpoints = folder / "checkpoints"
    rows = read_metrics(folder / "metrics.csv")
    saved = load_resume(checkpoints)
    saved["config"] = {}  # how often a part of the run saved may differ
    return {
        "best": load_weights(checkpoints / "best.safetensors")._asdict(),
        "last": load_weights(checkpoints / "last.safetensors")._asdict(),
        "rows": {step: {name: value for name, value in row.items() if name not in TIMES} for step, row in rows.items()},
        "resume": saved,
    }


def assert_equal(left, right, where: str = "") -> None:
    """Equal structure and equal bits."""
    assert type(left) is type(right), where
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_equal(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list):
        assert len(left) == len(right), where
        for position, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_equal(a, b, f"{where}/{position}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


def stop_after(calls: int) -> nn.Module:
    """The detector that ``train`` makes, told to stop in its ``calls``-th call."""
    torch.manual_seed(1)
    return signals_itself(TinyDetector(noisy=True), calls, signal.SIGTERM)


@pytest.mark.parametrize(
    "settings", [EVERYTHING, {"optimizer": "sgd", "clip": "parameter", "schedule": "cosine", "warmup": 3}]
)
def test_stopped_at_every_step(tmp_path, settings):
    config = FitConfig(**{"steps": 7, "log_every": 3, "eval_every": 2, "save_every": 0, "device": "cpu", **settings})
    train(tmp_path / "whole", config)
    wanted = contents(tmp_path / "whole")
    for stop in range(1, 8):
        folder = tmp_path / str(stop)
        with pytest.raises(Interrupted):
            train(folder, config, model=stop_after(stop * config.accumulate))
        train(folder, config, resume=True)
        assert_equal(contents(folder), wanted, f"stopped after step {stop}")


def test_the_run_that_is_compared_is_not_trivial(tmp_path):
    config = FitConfig(steps=7, log_every=3, eval_every=2, seed=0, **EVERYTHING)
    train(tmp_path / "0", config)
    train(tmp_path / "1", config.model_copy(update={"seed": 1}))
    with pytest.raises(AssertionError):
        assert_equal(contents(tmp_path / "0"), contents(tmp_path / "1"))


def test_stopped_during_an_evaluation(tmp_path):
    config = FitConfig(steps=6, log_every=3, eval_every=3, save_every=0, **EVERYTHING)
    train(tmp_path / "whole", config)

    def never_ends(model: nn.Module) -> dict[str, float]:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the evaluation goes on after the signal")

    with pytest.raises(Interrupted) as error:
        train(tmp_path / "cut", config, evaluate=never_ends)
    assert error.value.step == 3
    result = train(tmp_path / "cut", config, resume=True)
    assert_equal(contents(tmp_path / "cut"), contents(tmp_path / "whole"))
    assert result.metrics.keys() == {"AP50", "AP"}


def test_a_finished_run_resumes_to_its_result(tmp_path):
    config = FitConfig(steps=4, eval_every=2, **EVERYTHING)
    first = train(tmp_path, config)
    (tmp_path / "checkpoints" / "last.safetensors").unlink()  # as if killed between the two files of the last save
    again = train(tmp_path, config, resume=True)
    assert (again.steps, again.best, again.best_step, again.metrics) == (4, first.best, first.best_step, first.metrics)
    assert load_weights(tmp_path / "checkpoints" / "last.safetensors").metadata["step"] == "4"


def test_nothing_to_resume_starts_and_says_so(tmp_path, capfd):
    config = FitConfig(steps=2, device="cpu")
    assert train(tmp_path, config, resume=True).steps == 2
    assert "nothing to resume, starting at step 0" in capfd.readouterr().err


def test_other_settings_are_refused_by_name(tmp_path):
    train(tmp_path, FitConfig(steps=4, device="cpu", lr=0.001))
    with pytest.raises(ValueError, match=r"with other settings: steps was 4 and is 8, lr was 0.001 and is 0.002"):
        train(tmp_path, FitConfig(steps=8, device="cpu", lr=0.002), resume=True)
    train(tmp_path, FitConfig(steps=4, device="cpu", lr=0.001, log_every=1, save_every=1), resume=True)


def test_another_model_is_refused(tmp_path):
    config = FitConfig(steps=2, device="cpu")
    train(tmp_path, config, noisy=True)
    with pytest.raises(ValueError, match=r"resume\.pt belongs to another model: .*norm"):
        train(tmp_path, config, noisy=False, resume=True)


def test_a_damaged_checkpoint_resumes_from_the_one_before(tmp_path):
    config = FitConfig(steps=6, log_every=2, eval_every=3, save_every=1, **EVERYTHING)
    train(tmp_path / "whole", config)
    with pytest.raises(Interrupted):
        train(tmp_path / "hurt", config, model=stop_after(10))
    os.truncate(tmp_path / "hurt" / "checkpoints" / "resume.pt", 1000)
    with pytest.warns(UserWarning, match="going on from the checkpoint before it"):
        train(tmp_path / "hurt", config, resume=True)
    assert_equal(contents(tmp_path / "hurt"), contents(tmp_path / "whole"))


def wait_for_saves(path: Path, count: int) -> None:
    """Return when ``path`` has been replaced ``count`` times."""

    def stamp() -> int:
        return path.stat().st_mtime_ns if path.exists() else 0

    for _ in range(count):
        before, deadline = stamp(), time.monotonic() + 60
        while stamp() == before:
            assert time.monotonic() < deadline, "the run saves nothing"
            time.sleep(0.001)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_ten_random_moments(tmp_path, processes):
    """SIGKILL, in steps, saves, evaluations and at starts; then the run is finished."""
    config = FitConfig(steps=120, log_every=4, eval_every=7, save_every=2, **EVERYTHING)

    def start(name: str):
        process = processes.Process(target=train, args=(tmp_path / name, config), kwargs={"resume": True})
        process.start()
        return process

    whole, moments, steps = start("whole"), random.Random(0), []
    for _ in range(10):
        process = start("killed")
        wait_for_saves(tmp_path / "killed" / "checkpoints" / "resume.pt", moments.randint(1, 8))
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
        steps.append(load_resume(tmp_path / "killed" / "checkpoints")["step"])
    assert len(set(steps)) > 5, f"the kills came at {steps}: hardly in the middle of training"
    last = start("killed")
    last.join(60)
    whole.join(60)
    assert (whole.exitcode, last.exitcode) == (0, 0)
    assert_equal(contents(tmp_path / "killed"), contents(tmp_path / "whole"))
