"""Label budgets: which images of a split are labelled, as files that anyone can train on again.

A budget is counted in images, in boxes, or in shots (boxes of each class). It always consists of whole images: an image
is annotated fully or not at all, since a partly annotated one would teach that the objects left out are background. A
budget in boxes therefore takes images until its number is reached, and may exceed it by a part of the last image.
Larger budgets of a seed contain its smaller ones of the same unit, and every class of the split is in each of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.read import AnyFormat, read_split
from boxcycle.data.stratify import Counts, Positions, cover, stratified_prefix
from boxcycle.data.text import write_whole

Unit = Literal["images", "boxes", "shots"]


class SplitConfig(BaseModel):
    """Label budgets of one split, one file for each amount and seed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(description="a folder, or a COCO .json, YOLO data.yaml or tags .csv")
    format: AnyFormat = Field(default="auto", description="auto: by what the folder holds")
    split: str = Field(default="train", description="the split to draw from")
    classes: tuple[str, ...] = Field(default=(), description="only these classes; empty: all")
    unit: Unit = Field(default="images", description="what is counted; shots: boxes of each class")
    amounts: tuple[int | float, ...] = Field(
        default=(0.01, 0.05, 0.10), description="10% or 0.1: a part of the split; 10: a number"
    )
    seeds: tuple[int, ...] = Field(default=(0,), description="each seed draws other images")
    destination: Path = Field(default=Path("budgets"), description="the folder for the files")

    @field_validator("classes", "amounts", "seeds", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any, field: ValidationInfo) -> Any:
        values = value if isinstance(value, list | tuple) else (value,)
        return tuple(map(_without_percent, values)) if field.field_name == "amounts" else values


def run_split(config: SplitConfig) -> list[Path]:
    """Write the budgets of a configuration as ``<split>.<unit>-<amount>.seed<seed>.json``, and print what they hold.

    Raises :class:`DataError` if a budget cannot hold every class, and if a file is there with other content.
    """
    index = read_split(config.data, config.split, format=config.format, keep_classes=config.classes or None)
    counts, budgets = _class_counts(index), {}
    for seed in config.seeds:
        for amount in config.amounts:  # all of them before the first file: no half of a study is left behind
            budgets[amount, seed] = budget(index, unit=config.unit, amount=amount, seed=seed)
    files = []
    for (amount, seed), chosen in budgets.items():
        file = config.destination / f"{config.split}.{config.unit}-{_named(amount)}.seed{seed}.json"
        write_budget(
            file,
            index,
            chosen,
            source=str(config.data),
            split=config.split,
            unit=config.unit,
            amount=amount,
            seed=seed,
        )
        boxes = counts[chosen].sum(axis=0)[counts.any(axis=0)]
        rarest = f", {boxes.min()} of the rarest class" if len(boxes) else ""
        print(f"{file}: {len(chosen)} of {len(index)} images, {boxes.sum()} boxes{rarest}")
        files.append(file)
    return files


def budget(index: Index, *, unit: Unit, amount: float, seed: int) -> Positions:
    """The positions, ascending, of the images that a label budget buys.

    A ``float`` of at most 1 is a part of the split's annotated images or of their boxes, an ``int`` a number of them.
    The proportions of the classes are those of the split (for shots, few images are taken instead).
    Raises :class:`DataError`, with the smallest amount that would do, if the budget cannot hold every class.
    """
    known = np.flatnonzero(index.annotated)
    if not len(known):
        raise DataError(f"the split in {index.root} has no annotated images to draw a budget from")
    counts = _class_counts(index)[known]
    if unit == "shots":
        return np.sort(known[_shots(index, known, amount, seed)])
    weights = np.ones(len(known), dtype=np.int64) if unit == "images" else counts.sum(axis=1)
    target = _target(amount, int(weights.sum()), unit)
    first = cover((counts > 0).astype(np.int64), 1, np.random.default_rng((seed, 0)))
    least, total = int(weights[first].sum()), int(weights.sum())
    if target < least:
        classes = int((counts.sum(axis=0) > 0).sum())
        raise DataError(
            f"a budget of {target} {unit} of {index.root} cannot hold all {classes} classes; with seed {seed} "
            f"the smallest that can is {least} {unit} ({_percent(least / total)} of {total})"
        )
    return known[stratified_prefix(counts > 0, weights, target, first, seed)]


def write_budget(
    file: Path, index: Index, labelled: Positions, *, source: str, split: str, unit: Unit, amount: float, seed: int
) -> None:
    """Write a budget as JSON with the names of the labelled images and of all others, atomically.

    Raises :class:`DataError` if the file is there with other content: a study may rest on it.
    """
    chosen = np.zeros(len(index), dtype=bool)
    chosen[labelled] = True
    record: dict[str, Any] = {"source": source, "split": split, "unit": unit, "amount": amount, "seed": seed}
    record["labelled"] = [index.file_names[i] for i in np.flatnonzero(chosen)]
    record["unlabelled"] = [index.file_names[i] for i in np.flatnonzero(~chosen)]
    content = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    if file.exists():
        if file.read_text(encoding="utf-8") != content:
            raise DataError(f"{file} is there with other content; remove it, or choose another destination")
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_whole(file, content)


def read_budget(file: Path, index: Index) -> Positions:
    """The positions, ascending, of the labelled images of a budget file.

    Raises :class:`DataError` if the file is none, or names images that the index lacks.
    """
    names = _labelled_names(file)
    positions = {name: position for position, name in enumerate(index.file_names)}
    missing = [name for name in names if name not in positions]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{file} names the image '{missing[0]}'{others}, which the split in {index.root} does not have")
    return np.sort(np.array([positions[name] for name in names], dtype=np.int64))


def _labelled_names(file: Path) -> list[str]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"budget file {file} does not exist") from None
    except (OSError, ValueError) as error:
        raise DataError(f"budget file {file} cannot be read: {error}") from None
    names = record.get("labelled") if isinstance(record, dict) else None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} is no label budget: it must have a list 'labelled' of image names")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{file} names the image '{twice}' more than once")
    return names


def _shots(index: Index, known: Positions, amount: float, seed: int) -> Positions:
    """Positions within ``known``; crowds do not count, since they are no single objects."""
    if not isinstance(amount, int | np.integer) or amount < 1:
        raise ValueError(f"an amount of shots must be a positive whole number; got {amount}")
    counts = _class_counts(index, ~index.iscrowd)[known]
    supply = counts.sum(axis=0)
    there = np.flatnonzero(_class_counts(index)[known].sum(axis=0))
    rarest = int(there[np.argmin(supply[there])]) if len(there) else 0
    if not len(there) or supply[rarest] < amount:
        name, boxes = index.class_names[rarest], int(supply[rarest])
        raise DataError(f"{amount} shots of {index.root} are too many: class '{name}' has {boxes} boxes in all")
    return cover(counts, int(amount), np.random.default_rng((seed, 0)))


def _target(amount: float, total: int, unit: Unit) -> int:
    if isinstance(amount, int | np.integer):
        if not 1 <= amount <= total:
            raise DataError(f"a budget of {amount} {unit} must lie between 1 and the {total} that there are")
        return int(amount)
    if not 0 < amount <= 1:
        raise ValueError(
            f"a part of the {unit} must lie above 0 and at most at 1; got {amount} (a number is written {amount:.0f})"
        )
    return max(1, round(amount * total))


def _class_counts(index: Index, rows: NDArray[np.bool_] | None = None) -> Counts:
    """[I, K] boxes of each class in each image; ``rows`` [N] says which boxes count."""
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))
    kept = slice(None) if rows is None else rows
    counts = np.zeros((len(index), index.num_classes), dtype=np.int64)
    np.add.at(counts, (images[kept], index.labels[kept] - 1), 1)
    return counts


def _without_percent(value: Any) -> Any:
    if not (isinstance(value, str) and value.endswith("%")):
        return value
    try:
        return float(value[:-1]) / 100
    except ValueError:
        raise ValueError(f"'{value}' is no percentage") from None


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _named(amount: float) -> str:
    return str(amount) if isinstance(amount, int) else f"{100 * amount:g}pct"
