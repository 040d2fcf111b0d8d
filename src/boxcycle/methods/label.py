"""`boxcycle label`: a detector's boxes as annotations, a COCO data set that other methods learn from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data import coco
from boxcycle.data.config import LABELLED_BY, DataConfig
from boxcycle.data.convert import clear_destination, place_images
from boxcycle.data.index import Index, Strings, offsets_of
from boxcycle.data.read import find_splits
from boxcycle.engine.checkpoint import write_text
from boxcycle.evaluation.predictions import Prediction
from boxcycle.methods.evaluate import open_index, predict_index
from boxcycle.methods.loading import load
from boxcycle.methods.run_folder import CHECKPOINTS


class LabelConfig(BaseModel):
    """Which run labels which images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="folder of a run, or its weights file")
    data: Path | None = Field(None, description="data set; empty: the one the run learnt from")
    split: str = Field("", description="the split to label; empty: the run's training split")
    out: Path = Field(description="folder for the data set, COCO; the other splits are written as they are")
    min_score: float = Field(
        0.5, ge=0, le=1, description="images without tags: boxes from this score on; images with tags need none"
    )
    copy_images: bool = Field(True, description="false: symbolic links to the images")
    overwrite: bool = Field(False, description="replace what an earlier call wrote")
    batch_size: int = Field(4, ge=1, description="images at a time")
    device: str = Field("auto", description="auto: a GPU if there is one")


def label(config: LabelConfig) -> None:
    """Detect in a split, keep the best box of each class that an image shows, and write all as a COCO data set."""
    trained = load(config.run, device=config.device)
    source, split = config.data or trained.config.data.path, config.split or trained.config.data.train
    clear_destination(source, config.out, config.overwrite)
    index = open_index(trained, config.data, split)
    labelled = with_boxes(index, predict_index(trained, index, config.batch_size), config.min_score)
    _write(labelled, config.out, split, copy=config.copy_images)
    others = [name for name in find_splits(source, _format(config, trained.config.data)) if name != split]
    for name in others:
        _write(open_index(trained, config.data, name), config.out, name, copy=config.copy_images)
    # what compares runs then knows that no person drew these boxes
    write_text(config.out / LABELLED_BY, json.dumps({"run": str(_run_of(trained.file).resolve())}) + "\n")
    kept = int(labelled.annotated.sum())
    print(
        f"{config.out}: {len(labelled.boxes)} boxes in {kept} of {len(labelled)} images of split '{split}'"
        + (f"; as they were: {', '.join(others)}" if others else "")
    )


def _run_of(weights: Path) -> Path:
    """The run's folder of a weights file, or the file itself where it lies elsewhere."""
    return weights.parent.parent if weights.parent.name == CHECKPOINTS else weights


def with_boxes(index: Index, predictions: Sequence[Prediction], min_score: float) -> Index:
    """The images of an index with detected boxes in place of all annotated ones.

    An image with tags has the best box of each of them; one without any object has none, and teaches background; one
    whose tags were not found is not annotated, and teaches nothing. An image without tags has the boxes of at least
    ``min_score``, and is not annotated if there are none.
    """
    rows = [_rows(index, i, found, min_score) for i, found in enumerate(predictions)]
    boxes = np.concatenate([np.zeros((0, 4)), *(found.boxes[r] for found, r in zip(predictions, rows, strict=True))])
    labels = [found.labels[r] for found, r in zip(predictions, rows, strict=True)]
    counts = np.array([len(r) for r in rows], dtype=np.int64)
    known = index.tagged | index.annotated
    empty = np.array([known[i] and not len(index.tags_of(i)) for i in range(len(index))], dtype=bool)
    total = int(counts.sum())
    return replace(
        index,
        annotated=(counts > 0) | empty,
        box_offsets=offsets_of(counts),
        boxes=boxes.astype(np.float64),
        labels=np.concatenate([np.zeros(0, dtype=np.int64), *labels]),
        box_ids=np.arange(1, total + 1),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).astype(np.float64),
        iscrowd=np.zeros(total, dtype=bool),
        difficult=np.zeros(total, dtype=bool),
        segmentations=Strings("" for _ in range(total)),
    )


def _rows(index: Index, image: int, found: Prediction, min_score: float) -> NDArray[np.int64]:
    """Which detections of an image become its boxes."""
    solid = (found.boxes[:, 2:] > found.boxes[:, :2]).all(1)
    if not (index.tagged[image] or index.annotated[image]):
        return np.flatnonzero(solid & (found.scores >= min_score))
    candidates = [np.flatnonzero(solid & (found.labels == tag)) for tag in index.tags_of(image)]
    best = [rows[found.scores[rows].argmax()] for rows in candidates if len(rows)]
    return np.array(best, dtype=np.int64)


def _write(index: Index, folder: Path, split: str, *, copy: bool) -> None:
    coco.write(index, folder, split)
    place_images(index, folder / "images" / split, copy=copy)


def _format(config: LabelConfig, data: DataConfig) -> str:
    return data.format if config.data is None else "auto"
