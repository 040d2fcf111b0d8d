"""Small data sets of every format on disk, sound as they are, with single things changed by the tests."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxcycle.data.index import Index

WIDTH, HEIGHT = 60, 40
DELETE = object()
Files = Mapping[str, "str | bytes | None"]
Builder = Callable[[Path], Path]

COCO: dict[str, Any] = {
    "images": [
        {"id": 4, "file_name": "a.png", "width": WIDTH, "height": HEIGHT},
        {"id": 9, "file_name": "b.png", "width": WIDTH, "height": HEIGHT},
    ],
    "annotations": [
        {"id": 11, "image_id": 4, "category_id": 3, "bbox": [10, 10, 20, 15], "area": 300, "iscrowd": 0},
        {"id": 12, "image_id": 4, "category_id": 7, "bbox": [30, 5, 20.5, 20], "area": 410, "iscrowd": 0},
        {"id": 13, "image_id": 9, "category_id": 3, "bbox": [0, 0, 60, 40], "area": 2400, "iscrowd": 0},
    ],
    "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
}


def save_image(file: Path, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int | None = None, **options: Any) -> Path:
    """A picture of random pixels; ``size`` is (width, height). The same file name gives the same pixels."""
    file.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(map(ord, str(file.stem))) if seed is None else seed
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, **options)
    return file


def put(folder: Path, files: Files) -> Path:
    """Write, replace or (None) delete files."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def changed(data: Any, changes: Mapping[str, Any]) -> Any:
    """A copy with values set at dotted keys; the key "+" appends, DELETE removes."""
    data = copy.deepcopy(data)
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = data
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        if value is DELETE:
            del place[int(last) if isinstance(place, list) else last]
        elif last == "+":
            place.append(value)
        else:
            place[int(last) if isinstance(place, list) else last] = value
    return data


def coco(changes: Mapping[str, Any] | None = None, files: Files | None = None, split: str = "train") -> Builder:
    """COCO with two images and three boxes; ``changes`` as in :func:`changed`."""

    def build(folder: Path) -> Path:
        for image in COCO["images"]:
            save_image(folder / "images" / split / image["file_name"])
        data = changed(COCO, changes or {})
        put(folder, {f"annotations/instances_{split}.json": json.dumps(data)})
        return put(folder, files or {})

    return build


def voc_object(name: str = "cat", box: Sequence[Any] = (11, 11, 30, 25), more: str = "") -> str:
    """An <object>; ``box`` is xmin, ymin, xmax, ymax as on disk."""
    corners = "".join(f"<{key}>{v}</{key}>" for key, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><bndbox>{corners}</bndbox>{more}</object>"


def voc_xml(*objects: str, stem: str = "a", size: tuple[Any, Any] = (WIDTH, HEIGHT), more: str = "") -> str:
    """An annotation file; ``size`` is (width, height)."""
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    return f"<annotation><filename>{stem}.png</filename>{sides}{more}{''.join(objects)}</annotation>"


def voc(files: Files | None = None) -> Builder:
    """VOC with the images a1 and b2 in train: a cat and a dog, and a cat over the whole image."""

    def build(folder: Path) -> Path:
        for stem in ("a1", "b2"):
            save_image(folder / "JPEGImages" / f"{stem}.png")
        base = {
            "Annotations/a1.xml": voc_xml(voc_object(), voc_object("dog", (31, 6, 50.5, 25)), stem="a1"),
            "Annotations/b2.xml": voc_xml(voc_object("cat", (1, 1, 60, 40)), stem="b2"),
            "ImageSets/Main/train.txt": "a1\nb2\n",
        }
        put(folder, base)
        return put(folder, files or {})

    return build


YOLO_LABELS = "0 0.5 0.5 0.5 0.25\n1 0.25 0.25 0.25 0.25\n"


def yolo(files: Files | None = None) -> Builder:
    """YOLO with the images a and b in train; two boxes in a, none in b."""

    def build(folder: Path) -> Path:
        for stem in ("a", "b"):
            save_image(folder / "images" / "train" / f"{stem}.png")
        base = {
            "data.yaml": "train: images/train\nnames: [cat, dog]\nnc: 2\n",
            "labels/train/a.txt": YOLO_LABELS,
            "labels/train/b.txt": "",
        }
        put(folder, base)
        return put(folder, files or {})

    return build


def tags(table: str = "file,tags\na.png,cat;dog\nb.png,cat\n", files: Files | None = None) -> Builder:
    """A CSV file of tags beside the images a and b."""

    def build(folder: Path) -> Path:
        for stem in ("a", "b"):
            save_image(folder / f"{stem}.png")
        put(folder, {"train.csv": table})
        return put(folder, files or {})

    return build


ARRAYS = ("image_ids", "image_sizes", "annotated", "box_offsets", "boxes", "labels", "box_ids", "areas")
MORE_ARRAYS = ("iscrowd", "difficult", "tagged", "tag_offsets", "tags", "category_ids")


def differences(first: Index, second: Index, *, ignore: Sequence[str] = (), atol: float = 1e-4) -> list[str]:
    """The fields in which two indices differ, numbers by more than ``atol``."""
    wrong = []
    for field in (*ARRAYS, *MORE_ARRAYS):
        a, b = getattr(first, field), getattr(second, field)
        if field not in ignore and (a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=atol)):
            wrong.append(field)
    texts = {"file_names": list, "class_names": list, "segmentations": lambda s: [json.loads(t or "0") for t in s]}
    for field, plain in texts.items():
        if field not in ignore and plain(getattr(first, field)) != plain(getattr(second, field)):
            wrong.append(field)
    return wrong
