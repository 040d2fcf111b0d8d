"""YOLO: a ``data.yaml`` with the splits and class names, and a text file of labels for each image.

A line is a class number and a box (centre x, centre y, width, height), or a class number and a polygon (x, y, x, y,
...), all as fractions of the image. Labels lie in ``labels`` where images lie in ``images``, or beside the images.
``category_ids`` in the ``data.yaml`` is an addition of ours, written where the ids are not 0..K-1.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from boxcycle import yaml12
from boxcycle.data.check import Report
from boxcycle.data.images import find_images, ids_from_names, name_fault, no_pixel_limit, read_size
from boxcycle.data.numbers import decimal, integer
from boxcycle.data.records import UNKNOWN, Records
from boxcycle.data.text import read_lines, read_text
from boxcycle.data.yolo_write import write

__all__ = ["read", "recognise", "splits", "write"]

CORE = ("train", "val", "test")


class Config(NamedTuple):
    """What ``data.yaml`` says: the folders and lists of each split, class names and their numbers in label files."""

    file: Path
    base: Path
    names: list[str]
    numbers: list[int]
    category_ids: list[int]
    sources: dict[str, list[Path]]
    keypoints: bool


def recognise(path: Path) -> bool:
    """Whether ``path`` is a YAML file, or a folder with one that has ``names`` and ``train``."""
    return _config_file(path) is not None


def splits(path: Path) -> dict[str, Path]:
    """The first folder or list of each split."""
    return {name: sources[0] for name, sources in _config(path, Report()).sources.items()}


def _config_file(path: Path) -> Path | None:
    if path.suffix in (".yaml", ".yml"):
        return path
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")], key=lambda file: (file.stem != "data", file))
    return next((file for file in files if file.stem == "data" or _has_keys(file)), None)


def _has_keys(file: Path) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return all(re.search(rf"^{key}\s*:", text, re.MULTILINE) for key in ("names", "train"))


def _config(path: Path, report: Report) -> Config:
    file = _config_file(path)
    if file is None:
        raise report.fatal("format-unknown", path, "", "has no data.yaml with 'names' and 'train'")
    text = read_text(file, report)
    try:
        data = yaml12.load(text)
    except (yaml12.YAMLError, ValueError, RecursionError) as error:
        raise report.fatal("syntax", file, "", f"is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise report.fatal("structure", file, "", "must hold keys such as 'train', 'val' and 'names'")
    names, numbers = _classes(data, file, report)
    ids = data.get("category_ids", numbers)
    known = {integer(value) for value in ids} - {None} if isinstance(ids, list) else ()
    if not isinstance(ids, list) or not len(ids) == len(known) == len(names):
        raise report.fatal("class-list", file, "", f"'category_ids' must hold {len(names)} different integers")
    ids = [integer(value) for value in ids]
    written = data.get("path") or "."
    if not isinstance(written, str):
        raise report.fatal("structure", file, "", f"'path' must be a folder; it is {_shown(written)}")
    base = file.parent / written
    base = base if os.path.isdir(base) else file.parent  # the path of the machine that the file was written on
    return Config(file, base, names, numbers, ids, _sources(data, base, file, report), "kpt_shape" in data)


def _shown(value: Any) -> str:
    """A value for a sentence: of lists and the like only the kind, since a few aliases make one without end."""
    return type(value).__name__ if isinstance(value, (list, dict, set, tuple)) else repr(value)


def _classes(data: dict[Any, Any], file: Path, report: Report) -> tuple[list[str], list[int]]:
    names = data.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise report.fatal("class-list", file, "", f"'names' must list the classes; it is {_shown(names)}")
    numbers = [integer(number) for number in names]
    if None in numbers:
        raise report.fatal("class-list", file, "", f"the keys of 'names' must be class numbers; they are {list(names)}")
    if "nc" in data and integer(data["nc"]) != len(names):
        message = f"'nc' is {_shown(data['nc'])}, but 'names' has {len(names)} classes"
        raise report.fatal("class-list", file, "", message)
    for number, name in names.items():
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            message = f"class {number} needs a name (true, false and null in quotes); it is {_shown(name)}"
            raise report.fatal("class-list", file, "", message)
    return [str(name) for name in names.values()], [number for number in numbers if number is not None]


def _sources(data: dict[Any, Any], base: Path, file: Path, report: Report) -> dict[str, list[Path]]:
    """The existing folders and lists of each split; other keys than train, val and test count where they name such."""
    found: dict[str, list[Path]] = {}
    for key, value in data.items():
        name = "val" if key == "valid" else str(key)
        listed = value if isinstance(value, list) else [value]
        entries = [entry for entry in listed if isinstance(entry, str)]
        if name in CORE and len(entries) < len(listed) and value is not None:
            other = next(entry for entry in listed if not isinstance(entry, str))
            raise report.fatal("structure", file, "", f"'{key}' must name folders or lists; it has {_shown(other)}")
        if name in found:
            raise report.fatal("structure", file, "", "has both 'val' and 'valid', which mean the same split")
        places = {entry: _place(entry, base, file) for entry in entries if entry}
        missing = [entry for entry, place in places.items() if place is None]
        if missing and name in CORE:
            message = f"'{key}' names {missing[0]}, which does not exist in {base}"
            raise report.fatal("path-missing", file, "", message)
        if places and not missing and key not in ("path", "names"):
            found[name] = [place for place in places.values() if place is not None]
    if not found:
        raise report.fatal("structure", file, "", "has none of the keys 'train', 'val' and 'test'")
    return found


def _place(entry: str, base: Path, file: Path) -> Path | None:
    """A folder or list of a split; like others, we take "../train/images" for "train/images" where only that exists."""
    inside = re.sub(r"^(\.\./)+", "", entry)
    candidates = [folder / name for name in (entry, inside) for folder in (base, file.parent)]
    # of os.path, which also answers for a name that is too long or has a zero byte
    return next((p for p in candidates if os.path.isdir(p) or (p.suffix == ".txt" and os.path.isfile(p))), None)


def read(path: Path, split: str, report: Report) -> Records:
    """The split's images and objects; sizes come from the image files, since the format does not give them."""
    config = _config(path, report)
    root, names = _images(config, split, report)
    if not names:
        raise report.fatal("split-empty", config.file, "", f"split '{split}' has no images")
    records = Records(
        file=config.file,
        root=root,
        class_names=config.names,
        category_ids=config.category_ids,
        sizes_given=False,
        noun="line",
    )
    label = {number: k for k, number in enumerate(config.numbers, start=1)}
    with no_pixel_limit():
        faults = [
            _read_image(records, name, image_id, label, config, report)
            for name, image_id in zip(names, ids_from_names(names), strict=True)
        ]
    _judge_missing(records, faults.count("no labels"), report)
    _look_like_pixels(records, report)
    return records


def _images(config: Config, split: str, report: Report) -> tuple[Path, list[str]]:
    """The folder that holds all of the split's images, and their names in it."""
    roots, names = [], []
    for source in config.sources[split]:
        found = [image.relative_to(source).as_posix() for image in find_images(source)] if source.is_dir() else []
        root = source
        if not source.is_dir():
            found = [line.removeprefix("./") for line in read_lines(source, report)]
            root = source.parent if any(os.path.isfile(source.parent / name) for name in found[:20]) else config.base
        roots.append(root)
        names.append(found)
    common = Path(os.path.commonpath([os.path.abspath(root) for root in roots]))
    common = roots[0] if len(roots) == 1 else common
    prefixes = [
        "" if len(roots) == 1 else f"{Path(os.path.abspath(root)).relative_to(common).as_posix()}/" for root in roots
    ]
    joined = [
        name if name_fault(name) else prefix + name
        for prefix, part in zip(prefixes, names, strict=True)
        for name in part
    ]
    return common, joined


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    places = [place for place, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_image(
    records: Records, name: str, image_id: int, label: dict[int, int], config: Config, report: Report
) -> str:
    """Append an image and its objects; returns "no labels" where it has no label file."""
    file = _label_file(records.root / name)
    try:
        size = (UNKNOWN, UNKNOWN) if name_fault(name) else read_size(records.root / name)
    except Exception:  # the file is missing or unreadable, which is said when the index is built
        size = (UNKNOWN, UNKNOWN)
    image = records.add_image(image_id, name, size=size, file=file)
    if size[0] != size[0]:
        return "no image"
    if not os.path.isfile(file):
        return "no labels"
    for number, line in enumerate(read_text(file, report, empty=True).splitlines(), start=1):
        if line.strip():
            _read_line(records, image, number, line.split(), label, config, report)
    return ""


def _read_line(
    records: Records, image: int, number: int, words: list[str], label: dict[int, int], config: Config, report: Report
) -> None:
    file, where = records.image_files[image], f"line {number}"
    values = [decimal(word) for word in words[1 : 5 if config.keypoints else None]]
    coordinates = [value for value in values if value is not None]
    if len(coordinates) < len(values) or not (len(values) == 4 or (len(values) >= 6 and len(values) % 2 == 0)):
        message = (
            "must hold a class number and the four numbers of a box, or a class number and at least three points; "
            f"it holds {' '.join(words)[:60]!r}"
        )
        report.add("annotation", file, where, message)
        return
    category = integer(words[0])
    if category is None or category not in label:
        report.add("class-unknown", file, where, f"class {words[0]} is not among the names ({_span(list(label))})")
        return
    height, width = records.image_sizes[image]
    box, polygon = _box(coordinates, width, height)
    records.add_object(image, number, box, label[category], segmentation=json.dumps([polygon]) if polygon else "")


def _span(numbers: Sequence[int]) -> str:
    in_a_row = list(numbers) == list(range(len(numbers)))
    return f"0..{len(numbers) - 1}" if in_a_row else ", ".join(map(str, numbers))


def _box(values: list[float], width: float, height: float) -> tuple[tuple[float, float, float, float], list[float]]:
    """The box in pixels, xyxy, and the polygon in pixels; a polygon that is an upright rectangle is a plain box."""
    if len(values) == 4:
        x, y, w, h = values
        return ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height), []
    polygon = [round(value * (height if place % 2 else width), 6) for place, value in enumerate(values)]
    xs, ys = polygon[::2], polygon[1::2]
    box = (min(xs), min(ys), max(xs), max(ys))
    corners = {(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])}
    rectangle = len(xs) == 4 and set(zip(xs, ys, strict=True)) == corners
    if not all(math.isfinite(value) for value in polygon):
        return (math.nan, math.nan, math.nan, math.nan), []
    return box, [] if rectangle else polygon


def _judge_missing(records: Records, missing: int, report: Report) -> None:
    """Images without a label file have no objects, as is the custom; if none has one, nobody annotated them."""
    if missing and missing == len(records.file_names):
        records.annotated = [False] * missing
        message = f"none of the {missing:,} images has a label file ({records.image_files[0]}); kept as not annotated"
        report.add("image-not-annotated", records.file, "", message, count=missing)
    elif missing:
        message = f"{missing:,} images have no label file; taken as images without objects"
        report.add("labels-missing", records.file, "", message, count=missing)


def _look_like_pixels(records: Records, report: Report) -> None:
    """An error if most boxes reach far over their image: their numbers must then be pixels."""
    far = 0
    for box, image in zip(records.boxes, records.box_images, strict=True):
        height, width = records.image_sizes[image]
        far += max(box[2] / width, box[3] / height) > 2
    if far > len(records.boxes) / 2:
        message = (
            f"{far:,} of {len(records.boxes):,} boxes reach to more than twice the size of their image; "
            "YOLO labels must be fractions of the image, not pixels"
        )
        report.add("boxes-not-normalised", records.file, "", message, count=far)
