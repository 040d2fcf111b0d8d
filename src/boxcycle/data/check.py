"""What can be wrong with a data set: the checks by their stable ids, single findings, the report that collects them.

Readers and the doctor share one policy, written down in :data:`CHECKS`: an error ends the reading (after the rest was
looked at too), a repair is a warning that counts what was repaired, and nothing is left out without a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "info"]


class DataError(ValueError):
    """A user's data is wrong; the message is one sentence that names file and object, ``finding`` the same in parts."""

    def __init__(self, message: str, finding: Finding | None = None) -> None:
        super().__init__(message)
        self.finding = finding


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, was repaired or is worth knowing, with the file and the object that it is about."""

    check: str  # stable id, a key of CHECKS
    severity: Severity
    file: str
    object: str  # "annotation 17", "object 3", "line 3", "image 12", or "" for the file as a whole
    message: str
    count: int = 1  # how many objects it speaks of

    def __str__(self) -> str:
        return f"{printable(self.file)}{', ' if self.object else ''}{self.object}: {self.message}"


def printable(text: str) -> str:
    """A text on one line, of at most 600 characters: what files hold may have line breaks, escape codes, or no end."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 100]} ... {text[-90:]}"


class Check(NamedTuple):
    """A kind of finding: how severe it is, and what happens to the data."""

    severity: Severity
    meaning: str
    effect: str
    drops: bool = False  # the object it names is not used
    by_doctor: bool = False  # only the doctor looks for it: it costs reading every image


LONGEST = 600  # characters of a finding's message
STOPS = "reading stops"
KEPT = "used as it is"
DROPPED = "object dropped"

CHECKS: dict[str, Check] = {
    # files and folders
    "path-missing": Check("error", "a path does not exist", STOPS),
    "format-unknown": Check("error", "the folder has none of the accepted layouts", STOPS),
    "split-missing": Check("error", "the data set has no such split", STOPS),
    "split-empty": Check("error", "a split without images", STOPS),
    "file-unreadable": Check("error", "a file that cannot be opened or is not UTF-8 text", STOPS),
    "file-empty": Check("error", "an annotation file without content", STOPS),
    "syntax": Check("error", "not valid JSON, XML, YAML or CSV", STOPS),
    "xml-doctype": Check("error", "XML that declares a document type or entities", STOPS),
    "structure": Check("error", "valid syntax, but not the lists and fields of the format", STOPS),
    "split-overlap": Check("warning", "the same picture in two of train, val and test", KEPT, by_doctor=True),
    # classes
    "class-list": Check("error", "a list of classes that is missing or does not hold distinct names and ids", STOPS),
    "class-list-differs": Check("error", "two splits have different classes", STOPS),
    "class-unknown": Check("error", "an object or tag of a class that the list of classes lacks", STOPS),
    "class-unused": Check("info", "a category without objects that only heads all others", "left out of the classes"),
    "class-left-out": Check("info", "objects of classes that `keep_classes` leaves out", DROPPED, drops=True),
    "class-without-boxes": Check("info", "a class that no box of the split has", KEPT, by_doctor=True),
    # images
    "image-id": Check("error", "an image id that is not an integer, or is there twice", STOPS),
    "image-name": Check("error", "a file name that is missing, absolute, climbs with `..`, or is there twice", STOPS),
    "image-missing": Check("error", "an image file does not exist", STOPS),
    "image-unreadable": Check("error", "an image file that is truncated, or no image", STOPS),
    "image-size": Check("error", "width or height is not a positive whole number", STOPS),
    "image-size-differs": Check("error", "a size other than the annotated one", STOPS, by_doctor=True),
    "image-size-missing": Check("info", "annotations that do not give the image's size", "read from the image file"),
    "image-not-annotated": Check("warning", "an image without an annotation file", "kept as not annotated"),
    "labels-missing": Check("info", "some images without a label file (YOLO)", "taken as images without objects"),
    "image-without-objects": Check("info", "annotated images without an object", KEPT),
    "image-rotated": Check("warning", "an EXIF rotation", "loaded as stored, without the rotation", by_doctor=True),
    "image-huge": Check("warning", "more than 100 megapixels", "kept; the doctor does not decode it", by_doctor=True),
    "image-duplicate": Check("info", "two files of a split with the same content", KEPT, by_doctor=True),
    # objects
    "annotation": Check("error", "an annotation whose fields have the wrong type or length", STOPS),
    "annotation-image": Check("error", "an annotation of an image that is not in the list", STOPS),
    "annotation-id": Check("warning", "an annotation id that is missing or there twice", "gets a new id"),
    "box-missing": Check("warning", "an object without a box or segmentation", DROPPED, drops=True),
    "box-from-segment": Check("warning", "an object with a segmentation, but no box", "boxed by its segmentation"),
    "box-not-finite": Check("warning", "a box with NaN or infinity", DROPPED, drops=True),
    "box-empty": Check("warning", "a side that is negative or below one pixel", DROPPED, drops=True),
    "box-outside": Check("warning", "a box that lies entirely outside its image", DROPPED, drops=True),
    "box-clipped": Check("warning", "a box that reaches over the border of its image", "clipped to the image"),
    "box-duplicate": Check("warning", "the same box of the same class again in one image", DROPPED, drops=True),
    "boxes-look-like-xyxy": Check("warning", "COCO boxes that only fit as corners", "read as x, y, width, height"),
    "boxes-not-normalised": Check("error", "YOLO boxes that look like pixels, not fractions of the image", STOPS),
    "segment": Check("warning", "a polygon, RLE or mask file that is malformed", "dropped; the box is used"),
    "segment-unmatched": Check("info", "objects without a mask in a SegmentationObject file", "kept, without a mask"),
    "tags-empty": Check("info", "images that are tagged with no class", "taken as: none of the classes is there"),
    # writing
    "format-cannot-hold": Check("warning", "what the written format has no place for", "left out"),
}


class Report:
    """Collects findings while files are read.

    Of each check the first ``limit`` findings are kept one by one, the rest as one that counts them (None: all are
    kept), so that a large file with a systematic fault does not become a large list. ``bad_boxes="error"`` makes errors
    of the warnings that drop objects.
    """

    def __init__(self, *, bad_boxes: Literal["drop", "error"] = "drop", limit: int | None = 100) -> None:
        if bad_boxes not in ("drop", "error"):
            raise ValueError(f"bad_boxes must be 'drop' or 'error'; got {bad_boxes!r}")
        self._strict, self._limit = bad_boxes == "error", limit
        self._kept: list[Finding] = []
        self._seen: dict[str, int] = {}
        self._rest: dict[str, Finding] = {}

    def add(self, check: str, file: str | Path, object: str, message: str, *, count: int = 1) -> Finding:
        """Record one finding; its severity is the check's."""
        known = CHECKS[check]
        severity = "error" if self._strict and known.drops and known.severity == "warning" else known.severity
        finding = Finding(check, severity, str(file), printable(object), printable(message), count)
        self._seen[check] = self._seen.get(check, 0) + 1
        if self._limit is None or self._seen[check] <= self._limit:
            self._kept.append(finding)
        else:
            rest = self._rest.get(check, replace(finding, object="", message="", count=0))
            self._rest[check] = replace(rest, count=rest.count + count)
        return finding

    def fatal(self, check: str, file: str | Path, object: str, message: str) -> DataError:
        """Record an error after which the file cannot be read on; returns what is to be raised."""
        finding = self.add(check, file, object, message)
        return DataError(str(finding), finding)

    def add_rows(
        self, check: str, rows: Sequence[int], where: Callable[[int], tuple[str, str]], message: Callable[[int], str]
    ) -> None:
        """One finding for each of ``rows``; texts are only made for those that are kept.

        ``where`` gives the file and object of a row.
        """
        shown = len(rows) if self._limit is None else min(len(rows), max(self._limit - self._seen.get(check, 0), 0))
        for row in rows[:shown]:
            self.add(check, *where(row), message(row))
        if len(rows) > shown:
            self.add(check, where(rows[shown])[0], "", "", count=len(rows) - shown)

    def include(self, error: DataError) -> None:
        """Record an error that was raised by something that has no report, if it is not recorded yet."""
        if error.finding is not None and error.finding not in self._kept:
            self._kept.append(error.finding)

    @property
    def findings(self) -> list[Finding]:
        """All findings in the order they were made; last, for each check with too many, how many more there were."""
        rest = (
            replace(f, message=f"{f.count:,} more like this ({CHECKS[f.check].meaning})") for f in self._rest.values()
        )
        return [*self._kept, *rest]

    def raise_errors(self) -> None:
        """Raise :class:`DataError` with the first error, and how many more there are, if there is one."""
        errors = [finding for finding in self.findings if finding.severity == "error"]
        if errors:
            more = sum(finding.count for finding in errors[1:])
            others = f" (and {more:,} more errors; `boxcycle doctor` lists them)" if more else ""
            raise DataError(f"{errors[0]}{others}", errors[0])


def count_dropped(findings: Iterable[Finding]) -> int:
    """How many objects of the files the findings say are not used."""
    return sum(finding.count for finding in findings if CHECKS[finding.check].drops)
