"""Processes that train together, told who they are the way ``torchrun`` tells it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from typing import Any


def be_rank(rank: int, world_size: int, port: int) -> None:
    """Let this process be one of several on this machine."""
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    os.environ.update({name: str(value) for name, value in (told | {"MASTER_PORT": port}).items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", OMP_NUM_THREADS="1")


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def run_together(
    context: BaseContext,
    job: Callable[..., None],
    given: Sequence[tuple[Any, ...]],
    *,
    meanwhile: Callable[[], None] = lambda: None,
    seconds: float = 240,
) -> list[int | None]:
    """Exit codes of a job that runs in several processes at the same time, with the words of each.

    ``meanwhile`` runs here. One that is not done after ``seconds`` is waiting for another, which fails the test.
    """
    processes = [context.Process(target=job, args=words) for words in given]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    meanwhile()
    for process in processes:
        process.join(seconds)
    hanging = [process.is_alive() for process in processes]
    for process in processes:
        process.kill()
    assert not any(hanging), "the processes wait for each other"
    return [process.exitcode for process in processes]
