"""Pictures of a data set: what was annotated in solid lines, what was found in dashed ones with scores."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw

from boxcycle.data.dataset import read_image
from boxcycle.data.index import Index
from boxcycle.evaluation.images import above
from boxcycle.evaluation.predictions import Prediction
from boxcycle.report.drawing import Marks, draw_marks, load_font, shortened


def truth_marks(index: Index, position: int) -> Marks:
    """The annotated boxes of image number ``position``; crowds and difficult ones say so."""
    rows = index.boxes_of(position)
    labels, crowd, difficult = index.labels[rows], index.iscrowd[rows], index.difficult[rows]
    notes = np.where(crowd, " (crowd)", np.where(difficult, " (difficult)", ""))
    texts = tuple(f"{index.class_names[label - 1]}{note}" for label, note in zip(labels, notes, strict=True))
    return Marks(index.boxes[rows], labels, texts, dashed=False)


def detection_marks(prediction: Prediction, class_names: Sequence[str], *, min_score: float = 0.0) -> Marks:
    """The detections with a score of at least ``min_score``, best first, with their scores."""
    kept = above(prediction, min_score)
    order = np.argsort(-kept.scores, kind="stable")
    pairs = zip(kept.labels[order], kept.scores[order], strict=True)
    texts = tuple(f"{class_names[label - 1]} {score:.2f}" for label, score in pairs)
    return Marks(kept.boxes[order], kept.labels[order], texts, dashed=True)


def side_by_side(pictures: Sequence[tuple[str, Image.Image]], *, gap: int = 8) -> Image.Image:
    """Pictures of one height in a row on white, each under its title."""
    font = load_font(15)
    head = sum(font.getmetrics()) + gap
    width = sum(picture.width for _, picture in pictures) + gap * (len(pictures) - 1)
    row = Image.new("RGB", (width, head + max(picture.height for _, picture in pictures)), "white")
    x = 0
    for title, picture in pictures:
        ImageDraw.Draw(row).text((x, gap // 2), shortened(title, font, picture.width), font=font, fill="black")
        row.paste(picture, (x, head))
        x += picture.width + gap
    return row


def stack(rows: Sequence[Image.Image], *, gap: int = 8) -> Image.Image:
    """Rows of pictures under one another on white."""
    page = Image.new("RGB", (max(row.width for row in rows), sum(row.height + gap for row in rows) - gap), "white")
    y = 0
    for row in rows:
        page.paste(row, (0, y))
        y += row.height + gap
    return page


def save_predictions(
    folder: Path, index: Index, predictions: Sequence[Prediction], *, min_score: float = 0.5
) -> list[Path]:
    """Write one JPEG for each prediction, the image with its detections; returns the files.

    A file is named after its image, and after the folders that tell it from the others, joined by "__": so it lies in
    ``folder`` whatever the image is called.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = {int(image_id): position for position, image_id in enumerate(index.image_ids)}
    names = _flat_names([index.file_names[positions[prediction.image_id]] for prediction in predictions])
    files: list[Path] = []
    for prediction, name in zip(predictions, names, strict=True):
        position = positions[prediction.image_id]
        marks = detection_marks(prediction, index.class_names, min_score=min_score)
        files.append(folder / name)
        draw_marks(read_image(index.image_path(position)), marks).save(files[-1], quality=92)
    return files


def _flat_names(file_names: Sequence[str]) -> list[str]:
    """A name of one part for each file: the folders that all share are left out, equal names are numbered."""
    paths = [PurePosixPath(name) for name in file_names]
    levels = zip(*(path.parent.parts for path in paths), strict=False)
    shared = len(list(itertools.takewhile(lambda level: len(set(level)) == 1, levels)))
    names: dict[str, None] = {}
    for path in paths:
        stem = "__".join(part for part in path.with_suffix("").parts[shared:] if part not in ("/", ".."))
        endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
        names[next(name for ending in endings if (name := f"{stem}{ending}.jpg") not in names)] = None
    return list(names)
