"""The command line: it answers at once, reads key=value, and ends what a user can cause in one sentence."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner, Result

from boxcycle import __version__
from boxcycle.cli import app
from boxcycle.config import config_keys
from boxcycle.data.check import DataError
from boxcycle.engine.signals import Interrupted
from boxcycle.methods import METHODS, PRETRAINING

VERBS = ["demo", "doctor", "convert", "split", "train", "eval", "predict", "export", "annotate"]


class Data(BaseModel):
    path: Path = Field(description="where the pictures are")


class Config(BaseModel):
    data: Data
    steps: int = Field(10, description="how many")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


TRAINED = [name for name in METHODS if name not in PRETRAINING]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A method that keeps what it was called with, or raises ``fake.error``, or returns ``fake.result``."""
    method = SimpleNamespace(
        Config=Config, calls=[], error=None, result=Path("runs"), __doc__="A method for tests.\nMore."
    )

    def train(config: Config) -> object:
        method.calls.append(config)
        if method.error:
            raise method.error
        return method.result

    method.train = train
    monkeypatch.setitem(METHODS, "fake", method)
    return method


def test_help_takes_less_than_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "boxcycle.cli", "--help"], check=True, capture_output=True)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_names_every_verb_and_imports_no_torch() -> None:
    code = "import sys, boxcycle.cli as c; c.app(['--help'], standalone_mode=False); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines()[-1] == "False"
    assert [verb for verb in VERBS if f"\n  {verb} " not in printed] == []


def test_version() -> None:
    assert run("--version").stdout == f"boxcycle {__version__}\n"


@pytest.mark.parametrize("words", [["data=d", "steps=3"], ["--steps", "3", "--data", "d"], ["--data=d", "steps=3"]])
def test_a_verb_takes_keys_and_options(fake: SimpleNamespace, words: list[str]) -> None:
    result = run("train", "fake", *words)
    assert (result.exit_code, result.stderr) == (0, "")
    assert fake.calls == [Config(data=Data(path=Path("d")), steps=3)]


def test_a_config_file_and_an_override(fake: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("data: d\nsteps: 5\n", encoding="utf-8")
    run("train", "fake", f"config={tmp_path / 'c.yaml'}")
    run("train", "fake", "--config", str(tmp_path / "c.yaml"), "steps=6")
    assert [config.steps for config in fake.calls] == [5, 6]


def test_train_alone_lists_the_methods(fake: SimpleNamespace) -> None:
    for words in ([], ["--help"]):
        result = run("train", *words)
        assert result.exit_code == 0
        assert "  fake         A method for tests.\n" in result.stdout
        assert "mtl_ssl" in result.stdout


def test_help_of_a_method_lists_its_keys(fake: SimpleNamespace) -> None:
    result = run("train", "fake", "--help")
    assert fake.calls == []
    printed = " ".join(result.stdout.split())
    assert "data.path=required where the pictures are (path; data=... for short) steps=10 how many (integer)" in printed


@pytest.mark.parametrize("method", [*METHODS])
def test_every_key_of_every_method_has_a_description(method: str) -> None:
    keys = [key for key in config_keys(METHODS[method].Config) if key.section is None]
    assert {"data.path", "fit.steps", "detector.backbone"} <= {key.name for key in keys}
    assert [key.name for key in keys if not key.description] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "fakes", "data=d"], "no method 'fakes'; did you mean 'fake'?"),
        (["train", "data=d"], f"expected a method before 'data=d': boxcycle train {' | '.join([*TRAINED, 'fake'])}"),
        (["pretrain", "data=d"], "expected a method before 'data=d': boxcycle pretrain joindet"),
        (["train", "fake", "data=d", "step=1"], "no 'step'; did you mean 'steps'?"),
        (["train", "fake", "steps=1"], "'data' is required: give data=..."),
        (["train", "fake", "photos"], "expected key=value, found 'photos'"),
    ],
)
def test_a_wrong_word_ends_in_one_sentence(fake: SimpleNamespace, words: list[str], sentence: str) -> None:
    result = run(*words)
    assert (result.exit_code, result.stderr, result.stdout) == (2, sentence + "\n", "")


def test_an_unknown_verb_names_the_nearest() -> None:
    result = run("trian")
    assert result.exit_code == 2
    assert "'train'" in result.stderr


class OutOfMemoryError(RuntimeError):
    """Looks as torch's does."""


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (DataError("a.xml, object 3: no such class"), 2, "a.xml, object 3: no such class"),
        (ValueError("first line\n  second line"), 2, "first line second line"),
        (FileNotFoundError(2, "No such file or directory", "a.jpg"), 2, "a.jpg: No such file or directory"),
        (OSError(28, "No space left on device"), 2, "No space left on device"),
        (OutOfMemoryError("CUDA out of memory"), 2, "out of GPU memory: lower fit.batch_size"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(signal.SIGINT, 7, Path("runs/a")), 130, "stopped after step 7, which is saved in runs/a"),
        (Interrupted(signal.SIGTERM, 7, Path("runs/a")), 143, "stopped after step 7"),
    ],
)
def test_what_a_user_can_cause_ends_in_one_sentence(
    fake: SimpleNamespace, error: BaseException, code: int, sentence: str
) -> None:
    fake.error = error
    result = run("train", "fake", "data=d")
    assert result.exit_code == code
    assert result.stderr.startswith(sentence)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("ours"), TypeError("ours"), IndexError("ours")])
def test_our_own_faults_keep_their_traceback(fake: SimpleNamespace, error: Exception) -> None:
    fake.error = error
    assert run("train", "fake", "data=d").exception is error


def test_debug_shows_the_traceback(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOXCYCLE_DEBUG", "1")
    fake.error = DataError("a.xml")
    assert run("train", "fake", "data=d").exception is fake.error


def test_an_exit_code_of_a_job_is_that_of_the_process(fake: SimpleNamespace) -> None:
    fake.result = 1
    assert run("train", "fake", "data=d").exit_code == 1


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "train"])
def test_every_verb_lists_its_keys(verb: str) -> None:
    result = run(verb, "--help")
    assert result.exit_code == 0, result.exception
    assert f"boxcycle {verb} [config=FILE] [key=value]..." in result.stdout


@pytest.mark.parametrize("verb", ["doctor", "convert", "split", "eval", "predict", "export", "annotate"])
def test_every_verb_asks_for_what_it_needs(verb: str) -> None:
    result = run(verb)
    assert result.exit_code == 2
    assert "is required: give" in result.stderr


def test_every_verb_refuses_an_unknown_key() -> None:
    for verb in VERBS:
        words = [verb, "supervised"] if verb == "train" else [verb]
        result = run(*words, "no_such_key=1")
        assert (result.exit_code, result.stderr[:17]) == (2, "no 'no_such_key';"), verb
