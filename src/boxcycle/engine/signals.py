"""Ctrl-C and SIGTERM ask the loop to stop after the step under way, instead of tearing it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop, and did so after saving; ``resume=true`` goes on from ``step``.

    A ``KeyboardInterrupt``, so that ``except Exception`` around a series of runs does not swallow it.
    """

    def __init__(self, signum: int, step: int, folder: Path) -> None:
        super().__init__(f"stopped after step {step}, which is saved in {folder}; to go on: resume=true")
        self.signum, self.step, self.folder = signum, step, folder

    @property
    def exit_code(self) -> int:
        """What a shell expects of a process that a signal ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class EvaluationStopped(BaseException):
    """Raised out of an evaluation by a signal: nothing is lost by evaluating again after resuming."""


class StopSignals:
    """While entered, SIGINT and SIGTERM set ``requested``; a second SIGINT raises ``KeyboardInterrupt`` at once.

    Outside the main thread Python takes no handlers: then signals do what they did before.
    """

    def __init__(self) -> None:
        self.requested = 0  # the number of the signal that came
        self._evaluating = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._process = os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._handle) for signum in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A signal in this block raises :class:`EvaluationStopped` instead of waiting for its end."""
        self._evaluating = True
        try:
            yield
        finally:
            self._evaluating = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked loader worker: its parent ends it
        if self.requested and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = signum
        os.write(2, b"\nstopping after this step, then saving; Ctrl-C again stops at once\n")  # print is not safe here
        if self._evaluating:
            self._evaluating = False
            raise EvaluationStopped
