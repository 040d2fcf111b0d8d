"""Fixtures of the engine's tests."""

import multiprocessing
import sys
import warnings
from multiprocessing.context import BaseContext
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # trainee.py, which child processes import too


@pytest.fixture(scope="session")
def processes() -> BaseContext:
    """Starts processes from one that has imported torch once, so that a start takes milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["boxcycle.engine.fit", "torch._dynamo"]
    )  # torch.optim imports the latter at first use
    return context


@pytest.fixture(autouse=True)
def _every_warning_is_an_error():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
