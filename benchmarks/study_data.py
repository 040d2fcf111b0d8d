"""The data sets of the studies by name: generated scenes, and real photographs where they are at hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from boxcycle.data.index import Index
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes

REAL = Path(__file__).parents[2] / "shared" / "data"
# COCO's super-classes: the first and the last class of each in the order of its 80 classes
SUPER_CLASSES = {
    "person": ("person", "person"),
    "vehicle": ("bicycle", "boat"),
    "outdoor": ("traffic light", "bench"),
    "animal": ("bird", "giraffe"),
    "accessory": ("backpack", "suitcase"),
    "sports": ("frisbee", "tennis racket"),
    "kitchen": ("bottle", "bowl"),
    "food": ("banana", "cake"),
    "furniture": ("chair", "toilet"),
    "electronic": ("tv", "cell phone"),
    "appliance": ("microwave", "refrigerator"),
    "indoor": ("book", "toothbrush"),
}


def open_data(name: str, folder: Path) -> tuple[Index, Index, Index]:
    """Training, validation and test split of a set by name."""
    if name.startswith("scenes"):
        config = SceneConfig(size=160, difficulty="hard") if name == "scenes-hard" else SceneConfig(size=256)
        path = make_scenes(folder / name, config, {"train": 400, "val": 150, "test": 200})
        return tuple(read_split(path, split) for split in ("train", "val", "test"))  # type: ignore[return-value]
    if name.startswith("bccd"):
        return tuple(read_split(REAL / "bccd", split) for split in ("train", "val", "test"))  # type: ignore[return-value]
    if name == "coco-super":
        train, test = (merge_classes(read_split(REAL / "coco-mini", split)) for split in ("train", "val"))
        return train.subset(range(140)), train.subset(range(140, len(train))), test
    return open_voc20()


def open_voc20() -> tuple[Index, Index, Index]:
    """Photographs of COCO with VOC's 20 classes; without a third split, settings are those found on scenes."""
    kept = class_list("classes_voc20.txt")
    train, val = (read_split(REAL / "coco-mini", f"voc20_{split}", keep_classes=kept) for split in ("train", "val"))
    return train, val, val


def class_list(file: str) -> list[str]:
    """The classes that a list of the real data names."""
    lines = (REAL / "coco-mini" / file).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def merge_classes(index: Index) -> Index:
    """The same boxes, each with its COCO super-class."""
    names = class_list("classes.txt")
    spans = [(names.index(first), names.index(last)) for first, last in SUPER_CLASSES.values()]
    merged = {name: k for k, (a, b) in enumerate(spans, start=1) for name in names[a : b + 1]}
    new_label = np.array([0, *(merged[name] for name in index.class_names)])
    return replace(
        index,
        class_names=tuple(SUPER_CLASSES),
        category_ids=np.arange(1, len(SUPER_CLASSES) + 1),
        labels=new_label[index.labels],
        tags=new_label[index.tags],
    )
