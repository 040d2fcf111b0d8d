import json
import subprocess

import pytest
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainee import LOGGED, train

from boxcycle.engine.config import FitConfig
from boxcycle.engine.records import environment, write_environment


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of tensorboard's reader
def test_tensorboard_has_every_number_of_the_csv(tmp_path):
    train(tmp_path, FitConfig(steps=4, log_every=2, eval_every=2, device="cpu"))
    board = EventAccumulator(str(tmp_path))
    board.Reload()
    assert set(board.Tags()["scalars"]) == LOGGED | {"AP50", "AP"}
    assert [event.step for event in board.Scalars("loss")] == [2, 4]
    assert [event.value for event in board.Scalars("AP")] == [0.5, 0.5]


def test_environment_names_versions_machine_and_commit(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-q", "-m", "first")
    write_environment(tmp_path)
    written = json.loads((tmp_path / "env.json").read_text())
    assert written["git"] == {"commit": git("rev-parse", "HEAD").strip(), "changed": False}
    assert written["packages"].keys() >= {"torch", "torchvision", "accelerate", "numpy"}
    assert written["machine"]["threads"] >= 1
    (tmp_path / "file").write_text("2")
    assert environment()["git"]["changed"] is True


def test_outside_a_repository_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert environment()["git"] is None


class Remembering(GeneralTracker):
    """Stands for W&B: accelerate makes it by name, as it makes the real one."""

    name = "wandb"
    requires_logging_directory = False
    made: list["Remembering"] = []  # noqa: RUF012

    def __init__(self, project: str, **options) -> None:
        super().__init__()
        self.project, self.options, self.settings, self.rows, self.finished = project, options, {}, [], False
        Remembering.made.append(self)

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.settings = values

    def log(self, values, step, **_):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


def test_a_named_tracker_gets_settings_and_numbers(tmp_path, monkeypatch):
    from accelerate import tracking

    monkeypatch.setattr(tracking, "_available_trackers", [tracking.LoggerType.WANDB])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "wandb", Remembering)
    train(tmp_path, FitConfig(steps=4, log_every=2, eval_every=4, device="cpu", trackers=("wandb",)))
    [tracker] = Remembering.made
    assert tracker.settings["steps"] == 4
    assert [step for step, _ in tracker.rows] == [2, 4, 4]
    assert tracker.rows[-1][1].keys() == {"AP50", "AP"}
    assert tracker.finished


def test_a_tracker_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(ValueError, match="trackers names 'mlflow', which is not installed: pip install mlflow"):
        train(tmp_path, FitConfig(steps=1, device="cpu", trackers=("mlflow",)))
