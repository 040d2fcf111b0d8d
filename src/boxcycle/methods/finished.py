"""What a finished run says of itself: its method and settings, the labels it learnt from, and how good it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from boxcycle import yaml12
from boxcycle.data.config import LABELLED_BY, DataConfig, open_split
from boxcycle.data.index import Index
from boxcycle.data.splits import read_budget
from boxcycle.data.tags import without_boxes
from boxcycle.engine.checkpoint import load_metadata
from boxcycle.evaluation.errors import ERRORS, error_breakdown
from boxcycle.evaluation.groups import FIGURES, Labels, Measured, Point
from boxcycle.evaluation.predictions import read_predictions
from boxcycle.methods import PRETRAINING
from boxcycle.methods.run_folder import CHECKPOINTS, CONFIG, weights_file

LEARN_FROM_TAGS = ("ws_jds",)  # methods that are given no box, whatever the data holds
# what may differ between runs of one group, beside the seed: it changes no result, or only how a run is watched
FREE = {"run", "resume", "overwrite"}
FREE_IN = {"fit": {"seed", "workers", "device", "log_every", "save_every", "trackers"}, "data": {"cache"}}


class Source(NamedTuple):
    """Labels that were bought once: of a split of a data set, or of the images that a budget names."""

    path: Path
    split: str
    budget: Path | None
    classes: tuple[str, ...]
    format: str
    tags: bool


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder that holds a result."""

    folder: Path
    method: str
    config: Mapping[str, Any]

    @property
    def data(self) -> DataConfig:
        """Which data it learnt from and was evaluated on."""
        return DataConfig.model_validate(self.config["data"])

    @property
    def seed(self) -> int:
        """What the runs of a group differ in."""
        return int(self.config["fit"]["seed"])

    @cached_property
    def before(self) -> FinishedRun | None:
        """The run that this one started from; None if it started from none, or from weights of no run."""
        init = self.config.get("init")
        folder = (
            next((p for p in (Path(init), Path(init).parent.parent) if (p / CONFIG).is_file()), None) if init else None
        )
        return read_run(folder) if folder else None

    @cached_property
    def labeller(self) -> FinishedRun | None:
        """The run that drew the boxes of the data, where no person did."""
        return _labeller_of(self.data.path)

    @cached_property
    def starter(self) -> FinishedRun | None:
        """The run that drew the pseudo boxes that mining started with."""
        folder = self.config.get("ssm", {}).get("pseudo")
        return _labeller_of(Path(folder)) if folder else None

    def settings(self) -> dict[str, Any]:
        """All that tells it from other runs but the seed, by dotted key; files and runs stand as what they are."""
        given = {
            key: {k: v for k, v in value.items() if k not in FREE_IN.get(key, ())} if isinstance(value, dict) else value
            for key, value in self.config.items()
            if key not in FREE
        }
        given["data"] |= {"path": str(self.data.path.resolve()), "budget": _amount(self.data.budget)}
        if self.labeller:
            given["data"]["path"] = f"labelled by {self.labeller.method}"
            given["labelled by"] = self.labeller.settings()
        if self.starter:
            given["ssm"] |= {"pseudo": f"labelled by {self.starter.method}"}
            given["pseudo boxes by"] = self.starter.settings()
        if self.before:
            given["init"] = self.before.method
            given["started from"] = self.before.settings()
        return {"method": self.method, **_flat(given)}

    def sources(self) -> set[Source]:
        """The labels behind it: its own, and those of the runs that it started from or that drew boxes for it.

        One that learnt from images alone, or from boxes that a run drew, has none of its own.
        """
        behind = [run.sources() for run in (self.before, self.labeller, self.starter) if run]
        data = self.data
        own = Source(
            data.path.resolve(), data.train, data.budget, data.classes, data.format, self.method in LEARN_FROM_TAGS
        )
        return set().union(*behind, set() if self.labeller or self.method in PRETRAINING else {own})

    def evaluated_on(self) -> Index:
        """The split of the evaluation. Raises ``DataError`` if it cannot be read any more."""
        return open_split(self.data, self.data.val)

    def measured(self, index: Index, read: Mapping[Source, Labels]) -> Measured:
        """Its figures and errors on ``index``, with the labels that its sources, counted in ``read``, cost."""
        record = json.loads((self.folder / "eval.json").read_text(encoding="utf-8"))
        spent = _sum([labels for source, labels in read.items() if source in self.sources()])
        rounds = self._rounds(spent)
        errors = error_breakdown(index, read_predictions(self.folder / "predictions.json", index)).total
        return Measured(
            name=str(self.folder),
            seed=self.seed,
            result=Point(rounds[-1].labels if rounds else spent, _figures(record["summary"])),
            course=rounds,
            errors={kind: float(getattr(errors, kind)) for kind in ERRORS},
            per_class={row["name"]: _number(row["ap50"]) for row in record["per_class"]},
        )

    def _rounds(self, spent: Labels) -> list[Point]:
        """A point for each round of a run that asks; its ledger counts what came to the labels at the start."""
        file = self.folder / "labels.json"
        rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        return [
            Point(spent._replace(boxes=spent.boxes + row["human_boxes"], minutes=float(row["minutes"])), _figures(row))
            for row in rows
        ]


def read_finished(folder: Path) -> FinishedRun:
    """A run's folder, judged too. Raises ``ValueError`` if it holds no run, or one that is not finished."""
    run = read_run(folder)
    missing = [name for name in ("eval.json", "predictions.json") if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{folder} is not finished: it has no {missing[0]}; resume=true goes on")
    return run


def read_run(folder: Path) -> FinishedRun:
    """The folder of a run that has weights, judged or not: others may start from it.

    Raises ``ValueError`` if it holds none.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder of a run" if folder.exists() else f"{folder} does not exist")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{folder} holds no run: it has no {CONFIG}")
    if not (folder / CHECKPOINTS).is_dir():
        raise ValueError(f"{folder} is not finished: it has no {CHECKPOINTS}; resume=true goes on")
    metadata = load_metadata(weights_file(folder))
    try:
        return FinishedRun(folder, metadata["method"], yaml12.load((folder / CONFIG).read_text(encoding="utf-8")))
    except KeyError:
        raise ValueError(f"{weights_file(folder)} does not say which method trained it") from None


def _labeller_of(data: Path) -> FinishedRun | None:
    """The run that drew the boxes of a data set; None if no run did."""
    file = data / LABELLED_BY
    return read_run(Path(json.loads(file.read_text(encoding="utf-8"))["run"])) if file.is_file() else None


def count_labels(source: Source) -> Labels:
    """How many boxes, or tags, a person gave. Raises ``DataError`` if the data set cannot be read any more."""
    config = DataConfig(path=source.path, train=source.split, classes=source.classes, format=source.format)  # type: ignore[arg-type]
    index = open_split(config, source.split)
    if source.budget is not None:
        index = index.subset(read_budget(source.budget, index))
    if source.tags:
        return Labels(0, len(without_boxes(index).tags))
    return Labels(int(np.diff(index.box_offsets)[index.annotated].sum()))


def _sum(labels: list[Labels]) -> Labels:
    return Labels(sum(each.boxes for each in labels), sum(each.tags for each in labels))


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: _number(record.get(name)) for name in FIGURES}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _amount(budget: Path | None) -> str | None:
    """What a budget file was made for: "0.1 of images"; its seed is no setting."""
    if budget is None:
        return None
    record = json.loads(budget.read_text(encoding="utf-8")) if budget.is_file() else {}
    amount, unit = record.get("amount"), record.get("unit", "images")
    shown = f"{100 * amount:g} %" if isinstance(amount, float) else str(amount)
    return f"{shown} of the {unit}" if amount else str(budget)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
