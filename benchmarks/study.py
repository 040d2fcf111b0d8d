"""What the studies of the methods share: rows that are kept as soon as they are there, and the heading of a table."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import Any

from boxcycle.engine.records import environment


class Rows(list[dict[str, Any]]):
    """The rows of one data set, split and setting in the results file of a folder, those of earlier calls first."""

    def __init__(self, options: Namespace, setting: Any) -> None:
        """``options``: with ``data``, ``split`` and ``out``; ``setting``: a dataclass."""
        options.out.mkdir(parents=True, exist_ok=True)
        self.file: Path = options.out / "results.jsonl"
        self.about: dict[str, Any] = {"data": options.data, "split": options.split, "setting": asdict(setting)}
        as_read = json.loads(json.dumps(self.about))  # tuples become lists
        lines = self.file.read_text(encoding="utf-8").splitlines() if self.file.exists() else []
        super().__init__(row for row in map(json.loads, lines) if row.items() >= as_read.items())

    def has(self, **names: Any) -> bool:
        """Whether a row with these values is there."""
        return any(row.items() >= names.items() for row in self)

    def keep(self, row: dict[str, Any]) -> None:
        """Write a row down before anything else is run."""
        self.append(self.about | row)
        with self.file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(self[-1]) + "\n")

    def heading(self) -> str:
        """What the table below is of, and the machine that prints it."""
        data, split, setting = self.about.values()
        return f"{data}, {split}: {setting}\nmachine: {environment()['machine']}"
