"""``boxcycle convert``: a data set written in another format, with everything that the format has a place for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data import coco, tags, voc, yolo
from boxcycle.data.check import DataError, Finding, count_dropped
from boxcycle.data.index import Index
from boxcycle.data.read import AnyFormat, find_splits, read_split

Format = Literal["coco", "voc", "yolo", "tags"]
WRITERS: dict[str, ModuleType] = {"coco": coco, "voc": voc, "yolo": yolo, "tags": tags}
WRITTEN = (  # all that a conversion may leave in its folder, and that overwriting takes away
    ("annotations", "images", "labels", "data.yaml", "classes.txt", "category_ids.txt")
    + ("JPEGImages", "Annotations", "ImageSets", "SegmentationObject", "SegmentationClass")
)


def convert(
    source: Path | str,
    destination: Path | str,
    *,
    to: Format,
    format: str = "auto",
    splits: Sequence[str] | None = None,
    copy_images: bool = True,
    overwrite: bool = False,
) -> list[Finding]:
    """Write the splits (all, or those named) of the data set at ``source`` into ``destination`` in another format.

    Ids, names, order, crowds, difficult marks and segmentations are kept where the format has a place for them; the
    returned findings say what it has none for, and what was repaired in reading. Numbers are written to six digits.
    ``copy_images=False`` makes symbolic links to the images. Raises :class:`DataError` if the source has errors, or if
    the destination is not empty (``overwrite`` first removes what an earlier conversion wrote, and nothing else).
    """
    source, destination = Path(source), Path(destination)
    if to not in WRITERS:
        raise ValueError(f"to must be one of {', '.join(WRITERS)}; got {to!r}")
    findings: list[Finding] = []
    indices: dict[str, Index] = {}
    for split in splits or find_splits(source, format):
        names = next(iter(indices.values())).class_names if indices else None
        indices[split] = read_split(source, split, format=format, findings=findings, class_names=names)
    if to != "coco" and not all(index.class_names for index in indices.values()):
        raise DataError(f"{source} has no classes, which {to} must list; convert it to coco")
    clear_destination(source, destination, overwrite)
    for split, index in indices.items():
        findings += WRITERS[to].write(index, destination, split)
        folder = destination / ("JPEGImages" if to == "voc" else f"images/{split}")
        place_images(index, folder, copy=copy_images)
    return findings


def clear_destination(source: Path, destination: Path, overwrite: bool) -> None:
    """Make the folder of a data set to be written, empty but for what is nobody's annotation.

    Raises :class:`DataError` if it lies in the data set that is read, or is not empty (``overwrite`` removes what an
    earlier conversion wrote, and nothing else).
    """
    inside = source.resolve() if source.is_dir() else source.resolve().parent
    if destination.resolve() == inside or inside in destination.resolve().parents:
        raise DataError(f"{destination} is the data set that is read, or lies in it; choose another destination")
    if destination.is_dir() and any(destination.iterdir()):
        if not overwrite:
            raise DataError(f"{destination} is not empty; choose another destination or set overwrite=true")
        for name in (*WRITTEN, *(file.name for file in destination.glob("*.csv"))):
            place = destination / name
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
    destination.mkdir(parents=True, exist_ok=True)


def place_images(index: Index, folder: Path, *, copy: bool) -> None:
    """Copy the image files of an index into a folder, or make symbolic links to them.

    Raises :class:`DataError` if two different files would have one name.
    """
    for image in range(len(index)):
        origin, place = index.image_path(image).resolve(), folder / index.file_names[image]
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            if not _same(origin, place):
                raise DataError(f"{origin} and another image would both be written as {place}; rename one of them")
        elif copy:
            shutil.copyfile(origin, place)
        else:
            os.symlink(origin, place)


def _same(first: Path, second: Path) -> bool:
    return first.samefile(second) or first.read_bytes() == second.read_bytes()


class ConvertConfig(BaseModel):
    """From which data set to which."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path = Field(description="a folder, or a COCO .json, YOLO data.yaml or tags .csv")
    to: Format = Field(description="the format to write")
    destination: Path = Field(description="the folder to write to")
    format: AnyFormat = Field(default="auto", description="of the data; auto: by what the folder holds")
    splits: tuple[str, ...] = Field(default=(), description="only these splits; empty: all")
    copy_images: bool = Field(default=True, description="false: symbolic links to the images")
    overwrite: bool = Field(default=False, description="replace what an earlier conversion wrote")


def run_convert(config: ConvertConfig) -> None:
    """Convert a data set, and print what was repaired and what the format cannot hold."""
    findings = convert(
        config.data,
        config.destination,
        to=config.to,
        format=config.format,
        splits=config.splits or None,
        copy_images=config.copy_images,
        overwrite=config.overwrite,
    )
    for finding in findings:
        print(f"{finding.severity}: {finding}")
    print(f"{config.destination}: written as {config.to}; {count_dropped(findings):,} objects dropped")
