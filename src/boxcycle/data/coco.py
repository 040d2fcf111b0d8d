"""COCO JSON: a file, ``annotations/instances_*.json`` beside ``images``, or Roboflow's ``_annotations.coco.json``.

Boxes on disk are (x, y, width, height); category ids are any distinct integers, matched by name and kept. Fields beside
COCO's own are written where they say something, and read: ``difficult`` of an annotation, ``annotated`` and ``tags`` of
an image, and LVIS's two (:mod:`boxcycle.data.coco_verified`).
"""

from __future__ import annotations

import gc
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.check import Finding, Report
from boxcycle.data.coco_objects import read_objects
from boxcycle.data.coco_verified import read_verified, verified_fields
from boxcycle.data.images import SPLIT_FOLDERS, best_folder
from boxcycle.data.index import Index
from boxcycle.data.numbers import decimals, integers
from boxcycle.data.records import UNKNOWN, Records
from boxcycle.data.text import read_text

LISTS = ("images", "annotations", "categories")
SPLIT_NAME = re.compile(r"(?:instances_|image_info_)?((train|val|valid|validation|test)(20\d\d)?)")
PLAIN_NAMES = ("_annotations.coco", "annotations", "instances", "instances_default", "coco", "result")  # say no split


def recognise(path: Path) -> bool:
    """Whether ``path`` is a JSON file or a folder with COCO files in one of the usual places."""
    return bool(splits(path))


def splits(path: Path) -> dict[str, Path]:
    """The annotation file of each split."""
    if path.suffix == ".json":
        return {_split_of(path): path}
    files = sorted(path.glob("*/_annotations.coco.json"))
    files = files or sorted((path / "annotations").glob("instances_*.json"))
    for folder in (path / "annotations", path):
        files = files or [file for file in sorted(folder.glob("*.json")) if _says_coco(file.stem)]
    short = [_split_of(file) for file in files]
    if len(set(short)) < len(short):  # train2014 beside train2017: keep what tells them apart
        short = [file.stem.removeprefix("instances_") for file in files]
    return dict(zip(short, files, strict=True))


def _says_coco(stem: str) -> bool:
    return stem in PLAIN_NAMES or SPLIT_NAME.fullmatch(stem) is not None


def _split_of(file: Path) -> str:
    if file.name == "_annotations.coco.json":
        return SPLIT_FOLDERS.get(file.parent.name, file.parent.name)
    match = SPLIT_NAME.fullmatch(file.stem)
    if match:
        return SPLIT_FOLDERS[match[2]]
    return file.stem.removeprefix("instances_") if file.stem.startswith("instances_") else "train"


def read(path: Path, split: str, report: Report) -> Records:
    """The split's images, objects and categories."""
    with _collector_paused():
        return _read(splits(path)[split], report)


@contextmanager
def _collector_paused() -> Iterator[None]:
    """No search for reference cycles among millions of new dicts that have none; it would take half as long again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(file: Path, report: Report) -> Records:
    data = _load(file, report)
    entries = {key: _entries(data, key, file, report) for key in LISTS}
    records = Records(file=file, root=_image_folder(file, entries["images"]))
    categories = _read_categories(entries["categories"], entries["annotations"], records, report)
    _read_images(entries["images"], categories, records, report)
    if not records.file_names:
        raise report.fatal("split-empty", file, "", "lists no images")
    read_objects(entries["annotations"], categories, records, report)
    return records


def _load(file: Path, report: Report) -> dict[str, Any]:
    text = read_text(file, report)
    try:
        data = json.loads(text)
        if re.search(r"\\ud[89a-f]", text, re.IGNORECASE):
            json.dumps(data, ensure_ascii=False).encode()  # half a character, which no file name or class can hold
        twice = _given_twice(text)
    except json.JSONDecodeError as error:
        message = f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise report.fatal("syntax", file, "", message) from None
    except (ValueError, RecursionError) as error:
        raise report.fatal("syntax", file, "", f"is not JSON that can be read: {error}") from None
    if twice:
        raise report.fatal("structure", file, "", f"has the key '{twice}' more than once; only the last would be read")
    if not isinstance(data, dict):
        message = f"must be an object with 'images', 'annotations' and 'categories'; it is a JSON {type(data).__name__}"
        raise report.fatal("structure", file, "", message)
    return data


def _given_twice(text: str) -> str | None:
    """A list of the format that the file has more than once. Only where a name is there twice is all read again."""
    if all(text.count(f'"{key}"') < 2 for key in LISTS):
        return None
    outermost: Any = json.loads(text, object_pairs_hook=list)  # of the calls of the hook, the last gives the result
    counts = Counter(pair[0] for pair in outermost if isinstance(pair, tuple))
    return next((key for key in LISTS if counts[key] > 1), None)


def _entries(data: dict[str, Any], key: str, file: Path, report: Report) -> list[dict[str, Any]]:
    entries = data.get(key)
    if not isinstance(entries, list):
        found = f"it is {type(entries).__name__}" if key in data else f"the file has only {sorted(data)[:10]}"
        raise report.fatal("structure", file, "", f"'{key}' must be a list; {found}")
    if set(map(type, entries)) <= {dict}:
        return entries
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            message = f"must be an object with fields; it is {str(entry)[:40]!r}"
            report.add("annotation", file, f"entry {position} of '{key}'", message)
    return [entry for entry in entries if isinstance(entry, dict)]


def _image_folder(file: Path, images: list[dict[str, Any]]) -> Path:
    """The folder, of the usual ones, that holds most of a sample of the images."""
    base = file.parent.parent if file.parent.name == "annotations" else file.parent
    full = file.stem.removeprefix("instances_").removeprefix("image_info_").partition(".")[0]
    names = dict.fromkeys([full, full.rstrip("0123456789"), _split_of(file)])
    candidates = [base / "images" / name for name in names] + [base / name for name in names]
    listed = [image["file_name"] for image in images if isinstance(image.get("file_name"), str)]
    return best_folder([*candidates, base / "images", base, file.parent], listed)


def _read_categories(
    categories: list[dict[str, Any]], annotations: list[dict[str, Any]], records: Records, report: Report
) -> dict[int, int]:
    """Fills the classes of ``records`` in the order of the file; returns category id -> label."""
    ids, known = integers([category.get("id") for category in categories])
    names = [category.get("name") for category in categories]
    for position, name in enumerate(names):
        if not isinstance(name, str) or not known[position]:
            message = f"needs an integer id and a name; it has {categories[position].get('id')!r} and {name!r}"
            raise report.fatal("class-list", records.file, f"category {position + 1}", message)
    if len(set(ids.tolist())) < len(ids) or (annotations and not len(ids)):
        says = "two categories have the same id" if len(ids) else "lists no categories"
        raise report.fatal("class-list", records.file, "", says)
    used = set(integers([annotation.get("category_id") for annotation in annotations])[0].tolist())
    kept = [k for k in range(len(ids)) if not (int(ids[k]) not in used and _heads_all_others(categories, k))]
    for k in sorted(set(range(len(ids))) - set(kept)):
        message = "has no objects and is the supercategory of all other categories; it is left out of the classes"
        report.add("class-unused", records.file, f"category '{names[k]}'", message)
    records.class_names, records.category_ids = [str(names[k]) for k in kept], ids[kept]
    return {int(ids[k]): label for label, k in enumerate(kept, start=1)}


def _heads_all_others(categories: list[dict[str, Any]], position: int) -> bool:
    name = categories[position]["name"]
    others = [category for k, category in enumerate(categories) if k != position]
    return bool(others) and all(category.get("supercategory") == name for category in others)


def _read_images(images: list[dict[str, Any]], categories: dict[int, int], records: Records, report: Report) -> None:
    ids, known = integers([image.get("id") for image in images])
    for position in np.flatnonzero(~known):
        found = images[position].get("id")
        message = f"id must be an integer; it is {found!r} (file_name {images[position].get('file_name')!r})"
        report.add("image-id", records.file, f"image number {position + 1}", message)
    images = [image for image, good in zip(images, known, strict=True) if good]
    records.image_ids = ids[known]
    records.file_names = [
        name if isinstance(name, str) else "" for name in (image.get("file_name") for image in images)
    ]
    records.image_sizes = np.stack(
        [_lengths([image.get(key) for image in images]) for key in ("height", "width")], axis=1
    )
    records.annotated = [image.get("annotated") is not False for image in images]
    records.tagged = [isinstance(image.get("tags"), list) for image in images]
    read_verified(images, categories, records, report)
    label = {name: k for k, name in enumerate(records.class_names, start=1)}
    for position in np.flatnonzero(records.tagged):
        for tag in images[position]["tags"]:
            if not isinstance(tag, str) or tag not in label:
                report.add(
                    "class-unknown",
                    *records.where_image(int(position)),
                    f"has the tag {tag!r}, which is not in the categories",
                )
                continue
            records.tag_images.append(int(position))
            records.tags.append(label[tag])


def _lengths(values: list[Any]) -> NDArray[np.float64]:
    read, known = decimals(values)
    read[~known] = [UNKNOWN if values[position] is None else -1 for position in np.flatnonzero(~known)]
    return read


def write(index: Index, folder: Path, split: str) -> list[Finding]:
    """Write ``annotations/instances_{split}.json``, numbers to six digits; images belong into ``images/{split}``.

    Returns what the format cannot hold: nothing.
    """
    file = folder / "annotations" / f"instances_{split}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    ids = np.asarray(index.category_ids).tolist()
    data = {
        "images": [_image_entry(index, image) for image in range(len(index))],
        "annotations": [entry for image in range(len(index)) for entry in _annotation_entries(index, image)],
        "categories": [{"id": identity, "name": name} for identity, name in zip(ids, index.class_names, strict=True)],
    }
    file.write_text(json.dumps(data), encoding="utf-8")
    return []


def _image_entry(index: Index, image: int) -> dict[str, Any]:
    height, width = index.image_sizes[image].tolist()
    entry = {"id": int(index.image_ids[image]), "file_name": index.file_names[image], "width": width, "height": height}
    if not index.annotated[image]:
        entry["annotated"] = False
    if index.tagged[image]:
        entry["tags"] = [index.class_names[label - 1] for label in index.tags_of(image)]
    return entry | verified_fields(index, image)


def _annotation_entries(index: Index, image: int) -> Sequence[dict[str, Any]]:
    entries = []
    for row in range(*index.boxes_of(image).indices(len(index.boxes))):
        x1, y1, x2, y2 = index.boxes[row].tolist()
        entry = {
            "id": int(index.box_ids[row]),
            "image_id": int(index.image_ids[image]),
            "category_id": int(index.category_ids[index.labels[row] - 1]),
            "bbox": [round(number, 6) for number in (x1, y1, x2 - x1, y2 - y1)],
            "area": round(float(index.areas[row]), 6),
            "iscrowd": int(index.iscrowd[row]),
        }
        if index.segmentations[row]:
            entry["segmentation"] = json.loads(index.segmentations[row])
        if index.difficult[row]:
            entry["difficult"] = 1
        entries.append(entry)
    return entries
