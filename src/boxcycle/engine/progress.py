"""What a person sees while a run goes on: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import psutil
import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

REDRAW = 0.5  # seconds: the training thread draws the bar, and that must cost it nothing


class TrainingProgress:
    """Shows steps done, time left, losses, speed and memory on standard error, unless ``shown`` is False."""

    def __init__(self, steps: int, done: int, *, shown: bool = True, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, quiet=not shown)
        self._bar = _Bar(self._console)
        self._live = shown and self._console.is_terminal
        self._task = self._bar.add_task("training", total=steps, completed=done)
        self._steps, self._first, self._start, self._drawn = steps, done, time.monotonic(), 0.0

    def start(self) -> None:
        """Take the terminal, if there is one."""
        if self._live:
            self._bar.start()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live:
            self._bar.refresh()
            self._bar.stop()

    def advance(self, step: int) -> None:
        """``step`` steps are done; the bar is redrawn at most every half second."""
        if not self._live:
            return
        self._bar.update(self._task, completed=step)
        if time.monotonic() - self._drawn > REDRAW:
            self._bar.refresh()
            self._drawn = time.monotonic()

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Show the numbers of the state after ``step``: below the bar, or as a line of their own."""
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if self._live:
            self._bar.numbers = numbers
            return
        left = (time.monotonic() - self._start) / max(step - self._first, 1) * (self._steps - step)
        self.say(f"step {step}/{self._steps}, {_duration(left)} left: {numbers}")

    def say(self, line: str) -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The terminal belongs to the block: only one bar at a time can be live."""
        if self._live:
            self._bar.stop()
        try:
            yield
        finally:
            if self._live:
                self._bar.start()


class _Bar(Progress):
    """A bar with the latest numbers below it."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self.numbers = ""
        super().__init__(*columns, console=console, auto_refresh=False, speed_estimate_period=120)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self.numbers, style="dim")


def memory_gb(device: torch.device) -> float:
    """Memory of this process in 10^9 bytes: the largest so far on a CUDA device, else resident now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return psutil.Process().memory_info().rss / 1e9


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
