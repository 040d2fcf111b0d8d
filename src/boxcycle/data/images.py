"""A plain folder of images that nobody annotated, and what every format needs of image files: names, numbers, sizes.

Sizes are those of the stored pixels: an EXIF rotation is not applied, here or when images are loaded, since boxes do
not know of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from boxcycle.data.check import Report
from boxcycle.data.numbers import integer
from boxcycle.data.records import Records

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def recognise(path: Path) -> bool:
    """Whether ``path`` is a folder with image files in it or below it."""
    return path.is_dir() and next(find_images(path), None) is not None


def splits(path: Path) -> dict[str, Path]:
    """The folders train, val (or valid) and test if there are any with images, else the whole folder as train."""
    found = {SPLIT_FOLDERS[folder.name]: folder for folder in subfolders(path) if folder.name in SPLIT_FOLDERS}
    return {name: folder for name, folder in found.items() if recognise(folder)} or {"train": path}


def read(path: Path, split: str, report: Report) -> Records:
    """All images of the split's folder and its subfolders, sorted by name, not annotated."""
    folder = splits(path)[split]
    names = sorted(image.relative_to(folder).as_posix() for image in find_images(folder))
    if not names:
        raise report.fatal("split-empty", folder, "", "has no images")
    records = Records(file=folder, root=folder, sizes_given=False)
    for name, image_id in zip(names, ids_from_names(names), strict=True):
        records.add_image(image_id, name, annotated=False)
    return records


def subfolders(path: Path) -> list[Path]:
    """The visible folders directly in ``path``, sorted."""
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def find_images(folder: Path) -> Iterator[Path]:
    """Every image file in ``folder`` or below it, by its suffix, hidden ones left out, sorted within each folder."""
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield Path(place, name)


def images_in(folder: Path) -> dict[str, str]:
    """The image files of ``folder`` and below: name without suffix -> name, both relative with forward slashes."""
    names = (image.relative_to(folder).as_posix() for image in find_images(folder))
    return {os.path.splitext(name)[0]: name for name in names}


def read_size(path: Path) -> tuple[int, int]:
    """(height, width) of an image file, from its header. Raises ``OSError`` or ``ValueError`` if it is no image."""
    with Image.open(path) as image:
        return image.height, image.width


@contextmanager
def no_pixel_limit() -> Iterator[None]:
    """Let Pillow open headers of images of any size; it refuses huge ones even before their pixels are asked for."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def name_fault(name: str) -> str | None:
    """Why a file name (forward slashes) cannot be that of an image of the data set, as a sentence; None if it can."""
    if name in ("", "."):
        return "the image has no file name"
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        return f"'{name}' is an absolute path; it must be relative to the folder of the images"
    if "\0" in name:
        return f"'{name}' holds a zero byte, which no file name can"
    if ".." in name.split("/"):
        return f"'{name}' leads out of the folder of the images"
    return None


def ids_from_names(names: Sequence[str]) -> list[int]:
    """Image ids where a format has none: the digits of the names if they all differ, else 1..I in their order."""
    stems = [os.path.splitext(name)[0] for name in names]
    digits = [integer("".join(re.findall("[0-9]", stem))) for stem in stems]
    if None not in digits and len(set(digits)) == len(digits):
        return [number for number in digits if number is not None]
    rank = {stem: position for position, stem in enumerate(sorted(names), start=1)}
    return [rank[name] for name in names]


def best_folder(candidates: Sequence[Path], names: Sequence[str]) -> Path:
    """The existing folder, of several, that holds most of a sample of the files; the first of equals."""
    folders = [folder for folder in candidates if folder.is_dir()]
    sample = [name for name in names[:: max(len(names) // 50, 1)] if name_fault(name) is None]
    return max(folders, key=lambda folder: sum(os.path.isfile(folder / name) for name in sample))
