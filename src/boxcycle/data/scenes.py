"""Generated photographs with exact masks: data for demos, tests and studies on a machine without any.

Scenes show five places with their usual objects, in perspective, partly hidden, among clutter (see the modules
``scenes_*``). Each image depends on the seed, the name of its split and its number alone: a larger set begins with the
smaller one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.index import Index, Strings, offsets_of
from boxcycle.data.scenes_layout import lay_out
from boxcycle.data.scenes_objects import CLASSES
from boxcycle.data.scenes_places import Difficulty
from boxcycle.data.scenes_render import Mask, Rendered, render

VERSION = 1  # of the generator: raised whenever the same seed gives another picture
CLASS_NAMES = tuple(CLASSES)
SHAPES = ((3, 4), (2, 3), (1, 1), (4, 3))  # height : width
SHAPE_SHARES = (0.45, 0.25, 0.15, 0.15)
FEWEST = 2  # objects to be seen in a scene
QUALITY = 92  # of the JPEG files


class SceneConfig(BaseModel):
    """Which scenes to generate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    images: int = Field(
        default=200, ge=1, description="training images, where no splits are given; half as many for val"
    )
    size: int = Field(default=192, ge=64, le=2048, description="pixels of the longer side")
    difficulty: Difficulty = Field(default="easy", description="hard: smaller, darker, noisier, more hidden")
    seed: int = Field(default=0, ge=0)


def draw_scene(config: SceneConfig, split: str, number: int) -> Rendered:
    """Image ``number`` of a split: its pixels, and the visible masks, names and crowd flags of its 2 to 10 objects."""
    rng = np.random.default_rng((config.seed, zlib.crc32(split.encode()), number))
    height, width = SHAPES[int(rng.choice(len(SHAPES), p=SHAPE_SHARES))]
    unit = config.size / max(height, width)
    size = (round(height * unit), round(width * unit))
    while True:
        scene = render(lay_out(rng, size, config.difficulty), config.difficulty, rng)
        if len(scene.names) - sum(scene.crowds) >= FEWEST:
            return scene


def make_scenes(
    folder: Path,
    config: SceneConfig,
    splits: Mapping[str, int] | None = None,
    *,
    format: Literal["coco", "voc"] = "coco",
) -> Path:
    """Write scenes as a data set: COCO (``images/<split>``, ``annotations/instances_<split>.json``) or a VOC folder.

    ``splits`` gives the number of images of each split. Does nothing if the folder already holds exactly these scenes,
    and finishes them if it was interrupted. Raises ``ValueError`` if the folder holds anything else.
    """
    splits = splits or {"train": config.images, "val": max(1, config.images // 2)}
    wanted = config.model_dump(exclude={"images"}) | {"format": format, "splits": dict(splits)}
    record = {"version": VERSION} | wanted
    note = folder / "scenes.json"
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found == record | {"complete": True}:
            return folder
        if found != record | {"complete": False}:
            raise ValueError(f"{folder} holds other scenes than the ones wanted; choose another folder, or remove it")
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty, and what it holds was not generated; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(record | {"complete": False}, indent=2) + "\n", encoding="utf-8")
    for split, count in splits.items():
        _write_split(folder, config, split, count, format)
    note.write_text(json.dumps(record | {"complete": True}, indent=2) + "\n", encoding="utf-8")
    return folder


def _write_split(folder: Path, config: SceneConfig, split: str, count: int, format: Literal["coco", "voc"]) -> None:
    from boxcycle.data import coco, voc

    images = folder / "images" / split if format == "coco" else folder / "JPEGImages"
    images.mkdir(parents=True, exist_ok=True)
    scenes = []
    for number in range(count):
        scene = draw_scene(config, split, number)
        Image.fromarray(scene.pixels).save(images / _file_name(split, number), quality=QUALITY)
        scenes.append(_annotate(scene))
    (coco if format == "coco" else voc).write(_index(images, split, scenes), folder, split)


class _Annotations(NamedTuple):
    """Of one image; N boxes."""

    size: tuple[int, int]
    boxes: NDArray[np.float64]  # [N, 4] xyxy
    labels: list[int]
    areas: list[int]
    crowds: tuple[bool, ...]
    segmentations: list[str]


def _annotate(scene: Rendered) -> _Annotations:
    from boxcycle.data.masks import encode

    return _Annotations(
        size=(scene.pixels.shape[0], scene.pixels.shape[1]),
        boxes=boxes_of_masks(scene.masks),
        labels=[CLASS_NAMES.index(name) + 1 for name in scene.names],
        areas=scene.masks.sum(axis=(1, 2)).tolist(),
        crowds=scene.crowds,
        segmentations=[encode(mask) for mask in scene.masks],
    )


def boxes_of_masks(masks: Mask) -> NDArray[np.float64]:
    """The tight boxes [N, 4] (xyxy) of masks [N, H, W], none of them empty."""
    boxes = []
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _index(root: Path, split: str, scenes: list[_Annotations]) -> Index:
    counts = [len(scene.labels) for scene in scenes]
    total = sum(counts)
    return Index(
        root=root,
        class_names=CLASS_NAMES,
        category_ids=np.arange(1, len(CLASS_NAMES) + 1),
        image_ids=np.arange(1, len(scenes) + 1),
        file_names=Strings(_file_name(split, number) for number in range(len(scenes))),
        image_sizes=np.array([scene.size for scene in scenes], dtype=np.int32),
        annotated=np.ones(len(scenes), dtype=bool),
        box_offsets=offsets_of(counts),
        boxes=np.concatenate([scene.boxes for scene in scenes]),
        labels=np.array([label for scene in scenes for label in scene.labels], dtype=np.int64),
        box_ids=np.arange(1, total + 1),
        areas=np.array([area for scene in scenes for area in scene.areas], dtype=np.float64),
        iscrowd=np.array([crowd for scene in scenes for crowd in scene.crowds], dtype=bool),
        difficult=np.zeros(total, dtype=bool),
        segmentations=Strings(text for scene in scenes for text in scene.segmentations),
        tagged=np.zeros(len(scenes), dtype=bool),  # the tags of an image are the classes of its boxes
        tag_offsets=np.zeros(len(scenes) + 1, dtype=np.int64),
        tags=np.zeros(0, dtype=np.int64),
    )


def _file_name(split: str, number: int) -> str:
    return f"{split}_{number:06d}.jpg"  # unique over the splits, which share a folder in VOC
