"""`boxcycle predict`: pictures and a COCO results file for one image, a folder or a glob."""

from __future__ import annotations

import glob
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.check import DataError
from boxcycle.data.images import SUFFIXES
from boxcycle.data.index import Index, Strings
from boxcycle.engine.checkpoint import write_text
from boxcycle.evaluation.predictions import write_predictions
from boxcycle.methods.evaluate import predict_index
from boxcycle.methods.loading import Trained, load
from boxcycle.report.pictures import save_predictions


class PredictConfig(BaseModel):
    """Which detector, on which images."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="folder of a run, or its weights file")
    images: str = Field(description="an image, a folder of images, or a pattern such as 'photos/*.jpg'")
    out: Path = Field(Path("predictions"), description="folder for the pictures and predictions.json")
    min_score: float = Field(
        0.5, ge=0, le=1, description="pictures show detections from this score on; predictions.json has all"
    )
    batch_size: int = Field(4, ge=1, description="images at a time")
    device: str = Field("auto", description="auto: a GPU if there is one")


def predict(config: PredictConfig) -> None:
    """Detect objects in the images, draw them, write predictions.json, and images.json with the ids of the images."""
    trained = load(config.run, device=config.device)
    index = index_of_files(find_images(config.images), trained)
    predictions = predict_index(trained, index, config.batch_size)
    config.out.mkdir(parents=True, exist_ok=True)
    write_predictions(config.out / "predictions.json", index, predictions)
    _write_images(config.out / "images.json", index)
    save_predictions(config.out, index, predictions, min_score=config.min_score)
    shown = sum(int((found.scores >= config.min_score).sum()) for found in predictions)
    print(f"{len(index)} images, {shown} objects of score {config.min_score} or more: {config.out}")


def find_images(pattern: str) -> list[Path]:
    """The image files that a path or a pattern names, sorted. Raises :class:`DataError` if there are none."""
    path = Path(pattern)
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    elif path.is_file():
        files = [path]
    else:
        files = sorted(Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file())
    if not files:
        raise DataError(
            f"no image at {pattern}; expected an image, a folder of images or a pattern such as 'photos/*.jpg'"
        )
    return files


def index_of_files(files: list[Path], trained: Trained) -> Index:
    """Image files as an index without boxes, with the detector's classes; images are numbered from 1."""
    count = len(files)
    empty, no_boxes = np.zeros(0, dtype=np.int64), np.zeros(count + 1, dtype=np.int64)
    return Index(
        root=Path(),
        class_names=trained.class_names,
        category_ids=np.array(trained.category_ids, dtype=np.int64),
        image_ids=np.arange(1, count + 1),
        file_names=Strings(file.as_posix() for file in files),
        image_sizes=np.array([_size(file) for file in files], dtype=np.int32).reshape(-1, 2),
        annotated=np.zeros(count, dtype=bool),
        box_offsets=no_boxes,
        boxes=np.zeros((0, 4)),
        labels=empty,
        box_ids=empty,
        areas=np.zeros(0),
        iscrowd=np.zeros(0, dtype=bool),
        difficult=np.zeros(0, dtype=bool),
        segmentations=Strings([]),
        tagged=np.zeros(count, dtype=bool),
        tag_offsets=no_boxes,
        tags=empty,
    )


def _size(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"image file {file} cannot be read: {error}") from None


def _write_images(path: Path, index: Index) -> None:
    rows = [
        {"id": int(image_id), "file_name": name, "height": int(size[0]), "width": int(size[1])}
        for image_id, name, size in zip(index.image_ids, index.file_names, index.image_sizes, strict=True)
    ]
    categories = [{"id": int(i), "name": name} for i, name in zip(index.category_ids, index.class_names, strict=True)]
    write_text(path, json.dumps({"images": rows, "categories": categories, "annotations": []}, indent=1))
