"""boxcycle as a user types it, in this process, and a run that is told to stop on its way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from boxcycle.cli import app
from boxcycle.methods import experiment


def invoke(*words: object) -> Result:
    """Run a verb; what is no sentence for the user is raised."""
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def boxcycle(*words: object, exit_code: int = 0) -> str:
    """Run a verb, which must end with that exit code; returns all that it says."""
    result = invoke(*words)
    assert result.exit_code == exit_code, f"{words}\n{result.output}"
    return result.output


@contextmanager
def stopped_in_step(step: int) -> Iterator[None]:
    """Training gets SIGTERM while it is given the batch of that step (1 is the first), counted over all loaders."""
    whole, given = experiment.make_loader, 0

    def stopping_loader(*words: Any, **settings: Any) -> Iterator[Any]:
        nonlocal given
        for batch in whole(*words, **settings):
            given += 1
            if given == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "make_loader", stopping_loader)
        yield
