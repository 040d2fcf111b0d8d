"""What the studies share: options, a detector for small images, training that keeps nothing, rows that are kept as soon
as they are there, and the cells of a table.
"""

from __future__ import annotations

import json
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import MakeBatches, fit
from boxcycle.engine.records import environment
from boxcycle.evaluation.paired import paired_difference
from boxcycle.models.config import DetectorConfig
from boxcycle.models.two_stage import RegionConfig

SMALL = DetectorConfig(anchor_sizes=(16, 32, 64, 128), roi_size=4, regions=RegionConfig(sampled=32))  # of 256 pixels


def study_parser(
    description: str | None, data: Iterable[str], *, seeds: int, out: str, jobs: Sequence[str] = ("run", "table")
) -> ArgumentParser:
    """The options that every study has: what to do, on which data, for which seeds, and where the results are."""
    parser = ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=jobs)
    parser.add_argument("data", choices=list(data))
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser


def add_numbers(parser: ArgumentParser, names: Iterable[str]) -> None:
    """An option for each of these numbers of a setting."""
    for name in names:
        kind = float if name.endswith("lr") else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="instead of the setting's own")


def given(options: Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Those of these options that were given."""
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def seeds_of(options: Namespace) -> range:
    """The seeds to run."""
    return range(options.first_seed, options.first_seed + options.seeds)


def train_unkept(model: nn.Module, batches: MakeBatches, config: FitConfig) -> float:
    """Train a model in place by boxcycle's own loop; returns the seconds of processor time. No file is left."""
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(model, batches, config, Path(folder))
    return time.process_time() - begun


def spread(values: Sequence[float]) -> str:
    """Mean and, of several values, standard deviation."""
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")


def difference(new: Mapping[int, float], old: Mapping[int, float]) -> str:
    """``new`` minus ``old``, figures by seed, over the seeds that both have; an interval takes two of them."""
    seeds = sorted(new.keys() & old.keys())
    if len(seeds) < 2:
        return f"{new[seeds[0]] - old[seeds[0]]:+.1f} (1 pair)" if seeds else ""
    return str(paired_difference([new[seed] for seed in seeds], [old[seed] for seed in seeds]))


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
