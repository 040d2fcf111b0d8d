"""``metrics.csv``: one row a logged step, a column a number, blank where a step has none."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from boxcycle.engine.checkpoint import write_atomically


class MetricsFile:
    """Rows by step; a new one is appended, and the file rewritten when a column is new or a row grows (evaluations)."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Go on with the rows of ``path`` up to ``last_step``; later ones, of steps that will be done again, go."""
        self.path = path
        self._rows = (
            {step: row for step, row in read_metrics(path).items() if step <= last_step} if path.exists() else {}
        )
        self._columns = _columns(self._rows.values())
        self._rewrite()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write ``values`` into the row of ``step``; the operating system has them when this returns."""
        fits = step not in self._rows and values.keys() <= set(self._columns)
        self._rows[step] = {**self._rows.get(step, {}), **values}
        if fits:
            with self.path.open("a", newline="") as file:
                csv.writer(file).writerow(self._cells(step))
        else:
            self._columns = _columns([dict.fromkeys(self._columns, 0.0), values])
            self._rewrite()

    def sync(self) -> None:
        """Bring the rows to the disk, before a checkpoint that counts on them."""
        with self.path.open("a") as file:
            os.fsync(file.fileno())

    def _cells(self, step: int) -> list[str]:
        row = self._rows[step]
        return [str(step)] + [repr(row[name]) if name in row else "" for name in self._columns]

    def _rewrite(self) -> None:
        def write(beside: Path) -> None:
            with beside.open("w", newline="") as file:
                csv.writer(file).writerows([["step", *self._columns], *(self._cells(step) for step in self._rows)])

        write_atomically(self.path, write)


def read_metrics(path: Path) -> dict[int, dict[str, float]]:
    """The rows of a ``metrics.csv`` by step, without blanks, and without a last line that a kill left unfinished."""
    with path.open(newline="") as file:
        lines = [line for line in file if line.endswith("\n")]
    rows = csv.DictReader(lines)
    return {
        int(row["step"]): {name: float(cell) for name, cell in row.items() if name != "step" and cell} for row in rows
    }


def _columns(rows: Iterable[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
