"""One VOC annotation file: what it says about its image, and how it is written.

Corners on disk are 1-based and inclusive; here, boxes are half-open, (xmin - 1, ymin - 1, xmax, ymax). Elements beside
VOC's own are written where they say something, and read, so that nothing is lost on the way through VOC: ``image_id``,
``annotated`` and ``tags`` of an annotation; ``id``, ``iscrowd``, ``area`` and ``segmentation`` (COCO JSON) of an
object.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from boxcycle.data.check import Report
from boxcycle.data.index import Index
from boxcycle.data.masks import extent, fault
from boxcycle.data.numbers import decimal, integer
from boxcycle.data.records import UNKNOWN


class VocObject(NamedTuple):
    """One ``<object>``."""

    number: int  # its place in the file, from 1
    name: str
    box: tuple[float, float, float, float]  # xyxy, original frame
    difficult: bool
    iscrowd: bool
    id: int  # -1: absent
    area: float  # NaN: absent
    segmentation: str


class VocImage(NamedTuple):
    """One file: ``size`` is (height, width), NaN where not given; ``tags`` is None where the image is not tagged."""

    file_name: str
    size: tuple[float, float]
    image_id: int | None
    annotated: bool
    tags: list[str] | None
    objects: list[VocObject]


def parse(file: Path, report: Report) -> VocImage | None:
    """What the file says; None if it cannot be used. Everything that is wrong is recorded in ``report``."""
    root = _root(file, report)
    if root is None:
        return None
    if not _all_in_place(root, file, report):
        return None
    height, width = (decimal(_text(root, f"size/{key}")) or UNKNOWN for key in ("height", "width"))
    elements = enumerate(root.findall("object"), start=1)
    objects = [_object(element, number, (height, width), file, report) for number, element in elements]
    return VocImage(
        file_name=_text(root, "filename"),
        size=(height, width),
        image_id=integer(_text(root, "image_id")),
        annotated=_text(root, "annotated") != "0",
        tags=[(tag.text or "").strip() for tag in root.findall("tags/tag")] if root.find("tags") is not None else None,
        objects=[item for item in objects if item is not None],
    )


def _root(file: Path, report: Report) -> Element | None:
    try:
        content = file.read_bytes()
    except (OSError, ValueError) as error:
        report.add("file-unreadable", file, "", f"cannot be read: {error}")
        return None
    if not content.strip():
        report.add("file-empty", file, "", "is empty")
        return None
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", content.replace(b"\0", b""), re.IGNORECASE):  # without zeros: UTF-16 too
        message = "declares a document type or entities; annotations need none, and a few of them can fill the memory"
        report.add("xml-doctype", file, "", message)
        return None
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        report.add("syntax", file, "", f"is not valid XML: {error}")
        return None
    if root.tag != "annotation":
        report.add("structure", file, "", f"must hold an element <annotation>; it holds <{root.tag}>")
        return None
    return root


def _all_in_place(root: Element, file: Path, report: Report) -> bool:
    """Whether no object or box stands where nobody looks for one.

    Boxes of parts (head, hand, foot) belong to their object, and may be left alone.
    """
    objects, parts = root.findall("object"), sum(1 for _ in root.iterfind("object/part/bndbox"))
    boxes = sum(element.find("bndbox") is not None for element in objects)
    found = {tag: sum(1 for _ in root.iter(tag)) for tag in ("object", "bndbox")}
    strays = {"object": found["object"] - len(objects), "bndbox": found["bndbox"] - parts - boxes}
    for tag, count in strays.items():
        if count:
            message = f"has {count} <{tag}> out of place; <annotation> holds each <object>, with one <bndbox>"
            report.add("structure", file, "", message)
    return not any(strays.values())


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _object(element: Element, number: int, size: tuple[float, float], file: Path, report: Report) -> VocObject | None:
    where, name = f"object {number}", _text(element, "name")
    if not name:
        report.add("class-unknown", file, where, "has no <name>")
        return None
    segmentation = _segmentation(element, size, file, where, report)
    box = _box(element, segmentation, size, file, where, report)
    if box is None:
        return None
    identity = integer(_text(element, "id"))
    return VocObject(
        number=number,
        name=name,
        box=box,
        difficult=_text(element, "difficult") == "1",
        iscrowd=_text(element, "iscrowd") == "1",
        id=-1 if identity is None else identity,
        area=decimal(_text(element, "area")) or UNKNOWN,
        segmentation=segmentation,
    )


def _segmentation(element: Element, size: tuple[float, float], file: Path, where: str, report: Report) -> str:
    text = _text(element, "segmentation")
    if not text:
        return ""
    try:
        wrong = fault(json.loads(text), *size)
    except (ValueError, RecursionError):
        wrong = "<segmentation> is not JSON"
    if wrong:
        report.add("segment", file, where, f"{wrong}; the segmentation is dropped")
    return "" if wrong else text


def _box(
    element: Element, segmentation: str, size: tuple[float, float], file: Path, where: str, report: Report
) -> tuple[float, float, float, float] | None:
    if element.find("bndbox") is None:
        if not segmentation:
            report.add("box-missing", file, where, "has no <bndbox>; dropped")
            return None
        report.add("box-from-segment", file, where, "has no <bndbox>; the extent of its segmentation is used")
        return extent(segmentation, *(0 if side != side else int(side) for side in size))
    texts = {key: _text(element, f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")}
    xmin, ymin, xmax, ymax = (decimal(text) for text in texts.values())
    if xmin is None or ymin is None or xmax is None or ymax is None:
        message = f"<bndbox> must hold the numbers xmin, ymin, xmax and ymax; it holds {texts}"
        report.add("annotation", file, where, message)
        return None
    return xmin - 1, ymin - 1, xmax, ymax


def to_xml(index: Index, image: int) -> bytes:
    """The annotation file of the image at a position, numbers to six digits."""
    root = Element("annotation")
    height, width = index.image_sizes[image].tolist()
    rows = range(*index.boxes_of(image).indices(len(index.boxes)))
    _add(root, filename=index.file_names[image], image_id=index.image_ids[image])
    _add(SubElement(root, "size"), width=width, height=height, depth=3)
    _add(root, segmented=int(any(index.segmentations[row] for row in rows)))
    if not index.annotated[image]:
        _add(root, annotated=0)
    if index.tagged[image]:
        tags = SubElement(root, "tags")
        for label in index.tags_of(image):
            _add(tags, tag=index.class_names[label - 1])
    for row in rows:
        _add_object(root, index, row)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8")


def _add_object(root: Element, index: Index, row: int) -> None:
    element = SubElement(root, "object")
    x1, y1, x2, y2 = index.boxes[row].tolist()
    _add(element, name=index.class_names[index.labels[row] - 1], pose="Unspecified", truncated=0)
    _add(element, difficult=int(index.difficult[row] or index.iscrowd[row]), id=index.box_ids[row])
    if index.iscrowd[row]:
        _add(element, iscrowd=1)
    _add(SubElement(element, "bndbox"), xmin=_number(x1 + 1), ymin=_number(y1 + 1), xmax=_number(x2), ymax=_number(y2))
    if abs(index.areas[row] - (x2 - x1) * (y2 - y1)) > 1e-6:
        _add(element, area=_number(float(index.areas[row])))
    if index.segmentations[row]:
        _add(element, segmentation=index.segmentations[row])


def _add(parent: Element, **children: object) -> None:
    for tag, text in children.items():
        SubElement(parent, tag).text = str(text)


def _number(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")
