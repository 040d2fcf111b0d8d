"""Reading a data set of any accepted format: which format it is, which splits it has, a split as a validated index."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from boxcycle.data import coco, images, tags, voc, yolo
from boxcycle.data.build import build_index
from boxcycle.data.check import DataError, Finding, Report
from boxcycle.data.index import Index

# in the order in which they are looked for
FORMATS: dict[str, ModuleType] = {"yolo": yolo, "coco": coco, "voc": voc, "tags": tags, "images": images}
AnyFormat = Literal["auto", "coco", "voc", "yolo", "tags", "images"]  # as a setting: auto, or a name of FORMATS
LOOKED_FOR = (
    "a YOLO data.yaml; a COCO .json file, annotations/instances_*.json or {train,valid,test}/_annotations.coco.json; "
    "VOC's JPEGImages, Annotations and ImageSets/Main, or .xml files beside images; a .csv file of image tags, or a "
    "folder of images for each class; a folder of images"
)
ORDER = ("train", "val", "test")


def detect_format(path: Path) -> str:
    """The format of the data set at ``path``: "coco", "voc", "yolo", "tags" or "images".

    Raises :class:`DataError`, which lists what was looked for, if it is none of them.
    """
    path = Path(path)
    if not path.exists():
        raise Report().fatal("path-missing", path, "", "does not exist")
    for name, module in FORMATS.items():
        if module.recognise(path):
            return name
    raise Report().fatal("format-unknown", path, "", f"is no data set that can be read; looked for {LOOKED_FOR}")


def find_splits(path: Path, format: str = "auto") -> dict[str, Path]:
    """The splits of the data set, train, val and test first, each with the file or folder that says what is in it.

    A data set that does not name its splits has one, "train".
    """
    found: dict[str, Path] = _module(Path(path), format).splits(Path(path))
    first = [name for name in ORDER if name in found]
    return {name: found[name] for name in [*first, *sorted(set(found) - set(first))]}


def read_split(
    path: Path,
    split: str,
    *,
    format: str = "auto",
    bad_boxes: Literal["drop", "error"] = "drop",
    findings: list[Finding] | None = None,
    class_names: Sequence[str] | None = None,
    keep_classes: Sequence[str] | None = None,
) -> Index:
    """One split of the data set at ``path`` (a folder, or a COCO .json, YOLO .yaml or tags .csv file), validated.

    ``class_names`` are those of the split that this one goes with (val with train): classes are matched by name.
    ``keep_classes`` leaves out the objects of all other classes. ``bad_boxes="error"`` refuses boxes that would be
    dropped. What was repaired, left out or is worth knowing is appended to ``findings``. Raises :class:`DataError` with
    the first error and the number of the others.
    """
    report = Report(bad_boxes=bad_boxes)
    try:
        index = load_split(Path(path), split, report, format=format, class_names=class_names, keep_classes=keep_classes)
    except DataError as error:
        report.include(error)
        raise
    finally:
        if findings is not None:
            findings.extend(report.findings)
    report.raise_errors()
    return index


def load_split(
    path: Path,
    split: str,
    report: Report,
    *,
    format: str = "auto",
    class_names: Sequence[str] | None = None,
    keep_classes: Sequence[str] | None = None,
) -> Index:
    """As :func:`read_split`, but errors that let the reading go on are only recorded.

    The index then lacks what they are about.
    """
    module = _module(path, format)
    found = find_splits(path, format)
    if split not in found:
        raise report.fatal("split-missing", path, "", f"has no split '{split}'; it has {', '.join(found) or 'none'}")
    if module is voc and keep_classes is None:
        records = voc.read(path, split, report, class_names=class_names)
    else:
        records = module.read(path, split, report)
    return build_index(records, report, class_names=class_names, keep_classes=keep_classes)


def _module(path: Path, format: str) -> ModuleType:
    if format != "auto" and format not in FORMATS:
        raise ValueError(f"format must be one of auto, {', '.join(FORMATS)}; got {format!r}")
    if not path.exists():
        raise Report().fatal("path-missing", path, "", "does not exist")
    return FORMATS[detect_format(path) if format == "auto" else format]
