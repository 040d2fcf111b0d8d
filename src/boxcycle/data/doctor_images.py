"""The doctor's look at image files: each is decoded in full, once, and compared with what the annotations say."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from boxcycle.data.check import Report
from boxcycle.data.images import no_pixel_limit
from boxcycle.data.index import Index

HUGE = 100_000_000  # pixels
ORIENTATION = 0x0112  # the EXIF tag; 1 is upright
UPRIGHT = (None, 0, 1)


class ImageFacts(NamedTuple):
    """What a file is, or why it is no image."""

    size: tuple[int, int] = (0, 0)  # (height, width) of its pixels
    orientation: int | None = None  # EXIF
    digest: bytes = b""  # of its bytes
    fault: str = ""


def look_at(paths: Iterable[Path], *, progress: bool = False) -> dict[Path, ImageFacts]:
    """The facts about each file, decoded in threads; with a progress bar on stderr if wanted."""
    from rich.console import Console
    from rich.progress import track

    todo = list(dict.fromkeys(paths))
    with no_pixel_limit(), warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's remarks on metadata
        console = Console(stderr=True)
        shown = progress and console.is_terminal
        facts = track(pool.map(_look, todo), "images", len(todo), console=console, transient=True, disable=not shown)
        return dict(zip(todo, facts, strict=True))


def _look(path: Path) -> ImageFacts:
    try:
        content = path.read_bytes()
        digest = hashlib.blake2b(content, digest_size=16).digest()
        with Image.open(io.BytesIO(content)) as image:
            orientation = image.getexif().get(ORIENTATION)
            if image.width * image.height <= HUGE:
                image.load()
            return ImageFacts((image.height, image.width), orientation, digest)
    except Exception as error:  # Pillow's plugins raise anything on bytes that are no image
        return ImageFacts(fault=str(error) or type(error).__name__)


def check_images(index: Index, facts: dict[Path, ImageFacts], report: Report) -> None:
    """Compare the images of a split with its annotations and with each other."""
    seen: dict[bytes, Path] = {}
    for position in range(len(index)):
        path, where = index.image_path(position), f"image {index.image_ids[position]}"
        found, expected = facts[path], tuple(index.image_sizes[position].tolist())
        height, width = found.size
        if found.fault:
            report.add("image-unreadable", path, where, f"cannot be decoded: {found.fault}")
            continue
        if found.size != expected:
            message = (
                f"is {width} x {height} pixels (width x height); its annotation says {expected[1]} x {expected[0]}"
            )
            report.add("image-size-differs", path, where, message)
        if found.orientation not in UPRIGHT:
            message = f"has the EXIF orientation {found.orientation}; boxes are taken as those of the pixels as stored"
            report.add("image-rotated", path, where, message)
        if width * height > HUGE:
            report.add("image-huge", path, where, f"has {width * height / 1e6:.0f} megapixels")
        if found.digest in seen:
            report.add("image-duplicate", path, where, f"has the same content as {seen[found.digest]}")
        seen.setdefault(found.digest, path)
