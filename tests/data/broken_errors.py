"""Broken data sets that end in an error: the check that finds it, and its sentence."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from .small_sets import COCO, DELETE, Builder, coco, put, tags, voc, voc_object, voc_xml, yolo

JSON = "annotations/instances_train.json"
BOX = "annotations.0.bbox"
BNDBOX = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
# nine lists of nine of the one before: 81 million words if anybody wrote them out
BOMB = "train: images/train\na: &a [x, x, x, x, x, x, x, x, x]\n"
BOMB += "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghi"))
DOCTYPE = '<!DOCTYPE a [<!ENTITY b "{}">]>'.format("x" * 100)


class Row(NamedTuple):
    """A broken data set, the check that must find it, a fragment of its sentence, its object, and the boxes left."""

    build: Builder
    check: str
    says: str
    object: str = ""
    boxes: int = 3
    count: int = 1


def two_years(folder: Path) -> Path:
    years = [f"VOCdevkit/{year}" for year in ("VOC2007", "VOC2012")]
    files = {f"{year}/{file}": "x" for year in years for file in ("Annotations/x.xml", "ImageSets/Main/train.txt")}
    return put(folder, files)


def table(text: str) -> Builder:
    return lambda folder: tags(text)(folder) / "train.csv"


ERRORS = {
    # --- files
    "coco: no such path": Row(lambda folder: folder / "nowhere", "path-missing", "does not exist"),
    "an empty folder": Row(lambda folder: folder, "format-unknown", "looked for a YOLO data.yaml; a COCO .json"),
    "coco: no such split": Row(coco(split="val"), "split-missing", "has no split 'train'; it has val"),
    "coco: empty file": Row(coco(files={JSON: ""}), "file-empty", "is empty"),
    "coco: cut off": Row(coco(files={JSON: '{"images": [,'}), "syntax", "at line 1, column 13"),
    "coco: not text": Row(coco(files={JSON: b"\xff\xfe\x80"}), "file-unreadable", "is not UTF-8 text"),
    "coco: a list": Row(coco(files={JSON: "[]"}), "structure", "it is a JSON list"),
    "coco: far too deep": Row(coco(files={JSON: "[" * 100_000}), "syntax", "is not JSON that can be read"),
    "coco: half a character": Row(coco({"images.0.file_name": "\ud800.png"}), "syntax", "surrogates not allowed"),
    "coco: no annotations": Row(
        coco({"annotations": DELETE}), "structure", "'annotations' must be a list; the file has"
    ),
    "coco: images as an object": Row(coco({"images": {}}), "structure", "'images' must be a list; it is dict"),
    "coco: no images": Row(coco({"images": [], "annotations": []}), "split-empty", "lists no images"),
    "coco: verified classes that are no list": Row(
        coco({"images.0.neg_category_ids": 7}),
        "structure",
        "neg_category_ids must be a list of category ids; it is '7'",
        "image 4",
    ),
    "coco: a verified class that is no id": Row(
        coco({"images.1.neg_category_ids": [], "images.1.not_exhaustive_category_ids": [3, "cat"]}),
        "class-unknown",
        "not_exhaustive_category_ids has 'cat', which is not in the categories",
        "image 9",
    ),
    "coco: a verified class of unknown id": Row(
        coco({"images.0.neg_category_ids": [7, 8]}),
        "class-unknown",
        "neg_category_ids has '8', which is not in the categories",
        "image 4",
    ),
    "coco: annotations twice": Row(
        coco(files={JSON: json.dumps(COCO)[:-1] + ', "annotations": []}'}),
        "structure",
        "has the key 'annotations' more",
    ),
    "voc: empty list": Row(voc({"ImageSets/Main/train.txt": "\n"}), "file-empty", "is empty"),
    "voc: empty XML": Row(voc({"Annotations/a1.xml": ""}), "file-empty", "is empty"),
    "voc: not XML": Row(voc({"Annotations/a1.xml": "<annotation><obj"}), "syntax", "is not valid XML"),
    "voc: another XML": Row(voc({"Annotations/a1.xml": "<svg/>"}), "structure", "it holds <svg>"),
    "voc: entities": Row(voc({"Annotations/a1.xml": DOCTYPE + voc_xml()}), "xml-doctype", "declares a document type"),
    "voc: entities in UTF-16": Row(
        voc({"Annotations/a1.xml": (DOCTYPE + voc_xml()).encode("utf-16")}), "xml-doctype", "declares a document type"
    ),
    "voc: an object in an object": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object(more=voc_object()))}), "structure", "has 1 <object> out of place"
    ),
    "voc: two boxes of one object": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object(more=BNDBOX))}), "structure", "has 1 <bndbox> out of place"
    ),
    "voc: two years": Row(two_years, "format-unknown", "holds several VOC data sets (VOC2007, VOC2012)"),
    "yolo: not YAML": Row(yolo({"data.yaml": "names: [cat\ntrain: images"}), "syntax", "is not valid YAML"),
    "yolo: a key twice": Row(
        yolo({"data.yaml": "train: images/train\ntrain: images\nnames: [cat, dog]"}), "syntax", "'train' is given twice"
    ),
    "yolo: names without end": Row(
        yolo({"data.yaml": f"{BOMB}names: [*i, *i]\n"}), "class-list", "class 0 needs a name"
    ),
    "yolo: a path without end": Row(
        yolo({"data.yaml": f"{BOMB}names: [cat, dog]\npath: *i\n"}), "structure", "'path' must be a folder; it is list"
    ),
    "yolo: a number as a folder": Row(
        yolo({"data.yaml": "train: [images/train, 5]\nnames: [cat, dog]"}),
        "structure",
        "must name folders or lists; it",
    ),
    "yolo: val and valid": Row(
        yolo({"data.yaml": "train: images/train\nval: images/train\nvalid: images/train\nnames: [cat, dog]"}),
        "structure",
        "has both 'val' and 'valid'",
    ),
    "yolo: false as a name": Row(
        yolo({"data.yaml": "train: images/train\nnames: [cat, false]"}), "class-list", "class 1 needs a name"
    ),
    "yolo: UTF-16": Row(
        yolo({"data.yaml": "train: images/train\nnames: [cat]".encode("utf-16")}), "file-unreadable", "is not UTF-8"
    ),
    "yolo: no list of keys": Row(yolo({"data.yaml": "just text"}), "structure", "must hold keys"),
    "yolo: split folder missing": Row(
        yolo({"data.yaml": "train: images/nowhere\nnames: [cat, dog]"}), "path-missing", "names images/nowhere"
    ),
    "yolo: no split": Row(yolo({"data.yaml": "names: [cat]\n"}), "structure", "none of the keys 'train', 'val'"),
    "tags: no file column": Row(
        table("picture,tags\na.png,cat\n"), "structure", "needs a column of file names", "line 1"
    ),
    "tags: no tags": Row(tags("file\na.png\n"), "structure", "needs a column of tags"),
    "tags: an open quote": Row(table('file,tags\na.png,"cat\nb.png,cat\n'), "syntax", "is not valid CSV", "line 3"),
    "tags: a quote over lines": Row(
        table('file,tags\na.png,"cat\nb.png,cat"\n'), "syntax", "a quote that is not closed on the same", "line 2"
    ),
    "tags: a column twice": Row(
        table("file,cat,Cat\na.png,1,0\n"), "structure", "two columns of one name: file, cat, Cat", "line 1"
    ),
    "tags: no split in a row": Row(
        table("file,tags,split\na.png,cat,train\nb.png,cat,\n"), "annotation", "names no split", "line 3"
    ),
    "tags: rows missing": Row(tags("file,tags\n"), "split-empty", "lists no images"),
    # --- classes
    "coco: no categories": Row(coco({"categories": []}), "class-list", "lists no categories"),
    "coco: category twice": Row(
        coco({"categories.1.name": "cat"}), "class-list", "lists the class 'cat' more than once"
    ),
    "coco: category id twice": Row(coco({"categories.1.id": 3}), "class-list", "two categories have the same id"),
    "coco: category without a name": Row(
        coco({"categories.1.name": None}), "class-list", "an integer id and a name", "category 2"
    ),
    "coco: unknown category": Row(
        coco({"annotations.0.category_id": 5}),
        "class-unknown",
        "category_id 5 is not among the categories",
        "annotation 11",
    ),
    "coco: category id missing": Row(coco({"annotations.0.category_id": DELETE}), "class-unknown", "category_id None"),
    "voc: unknown class": Row(
        voc({"classes.txt": "cat\n"}), "class-unknown", "is of class 'dog', which is not", "object 2"
    ),
    "voc: object without a name": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object(""))}), "class-unknown", "has no <name>", "object 1"
    ),
    "voc: class listed twice": Row(
        voc({"classes.txt": "cat\ndog\ncat\n"}), "class-list", "the class 'cat' more than once"
    ),
    "voc: too few category ids": Row(
        voc({"classes.txt": "cat\ndog\n", "category_ids.txt": "5\n"}), "class-list", "must hold 2 different integers"
    ),
    "yolo: unknown class": Row(
        yolo({"labels/train/a.txt": "2 .5 .5 .1 .1\n"}),
        "class-unknown",
        "class 2 is not among the names (0..1)",
        "line 1",
    ),
    "yolo: nc differs": Row(
        yolo({"data.yaml": "train: images/train\nnames: [cat, dog]\nnc: 3\n"}),
        "class-list",
        "'nc' is 3, but 'names' has 2",
    ),
    "yolo: no category id": Row(
        yolo({"data.yaml": "train: images/train\nnames: [cat, dog]\ncategory_ids: [3, null]"}),
        "class-list",
        "must hold 2 different integers",
    ),
    "yolo: half a byte order mark": Row(yolo({"labels/train/a.txt": b"\xef\xbb"}), "file-unreadable", "(byte 0)"),
    "yolo: no names": Row(yolo({"data.yaml": "train: images/train\nnames:\n"}), "class-list", "'names' must list"),
    "tags: unknown tag": Row(tags(files={"classes.txt": "cat\n"}), "class-unknown", "has the tag 'dog'", "line 2"),
    # --- images
    "coco: image id twice": Row(
        coco({"images.+": {**COCO["images"][1], "id": 4}}), "image-id", "belongs to 'a.png' and to 'b.png'", "image 4"
    ),
    "coco: image id as a word": Row(coco({"images.0.id": "first"}), "image-id", "must be an integer; it is 'first'"),
    "coco: file name twice": Row(
        coco({"images.1.file_name": "a.png"}), "image-name", "is listed twice, also as image 4"
    ),
    "coco: no file name": Row(coco({"images.0.file_name": DELETE}), "image-name", "has no file name", "image 4"),
    "coco: climbing name": Row(coco({"images.0.file_name": "../a.png"}), "image-name", "leads out of the folder"),
    "coco: absolute name": Row(coco({"images.0.file_name": "/etc/a.png"}), "image-name", "is an absolute path"),
    "coco: a drive": Row(coco({"images.0.file_name": "C:\\a.png"}), "image-name", "is an absolute path"),
    "coco: image missing": Row(
        coco(files={"images/train/a.png": None}), "image-missing", "'a.png' does not exist", "image 4"
    ),
    "coco: other case": Row(coco({"images.0.file_name": "A.png"}), "image-missing", "there is 'a.png'", "image 4"),
    "coco: negative width": Row(coco({"images.0.width": -60}), "image-size", "they are -60 and 40", "image 4"),
    "coco: width as a word": Row(coco({"images.0.width": "wide"}), "image-size", "must be positive whole numbers"),
    "coco: size missing, image unreadable": Row(
        coco({"images.0.width": DELETE}, {"images/train/a.png": b"no image"}), "image-unreadable", "cannot be read"
    ),
    "voc: image missing": Row(voc({"JPEGImages/a1.png": None}), "image-missing", "'a1.png' does not exist"),
    "voc: listed twice": Row(
        voc({"ImageSets/Main/train.txt": "a1\nb2\na1\n"}), "image-name", "is listed more than once", "image a1"
    ),
    "voc: climbing name": Row(
        voc({"ImageSets/Main/train.txt": "../a1\nb2\n"}), "image-name", "leads out of the folder"
    ),
    "yolo: image unreadable": Row(yolo({"images/train/a.png": b""}), "image-unreadable", "cannot be read"),
    "yolo: climbing name in a list": Row(
        yolo({"data.yaml": "train: list.txt\nnames: [cat, dog]", "list.txt": "images/train/b.png\n../secret.png\n"}),
        "image-name",
        "leads out of the folder",
    ),
    "tags: image missing": Row(tags("file,tags\nc.png,cat\na.png,cat\n"), "image-missing", "'c.png' does not exist"),
    # --- objects
    "coco: annotation is no object": Row(
        coco({"annotations.+": 5}), "annotation", "must be an object with fields", "entry 3 of"
    ),
    "coco: unknown image": Row(
        coco({"annotations.0.image_id": 77}), "annotation-image", "image_id 77 is not among the images", "annotation 11"
    ),
    "coco: image id missing": Row(coco({"annotations.0.image_id": DELETE}), "annotation-image", "image_id None"),
    "coco: three numbers": Row(
        coco({BOX: [1, 2, 3]}), "annotation", "bbox must be four numbers; it is [1, 2, 3]", "annotation 11"
    ),
    "coco: words": Row(coco({BOX: [1, 2, 3, "four"]}), "annotation", "bbox must be four numbers", "annotation 11"),
    "coco: bbox as an object": Row(coco({BOX: {"x": 1}}), "annotation", "bbox must be four numbers", "annotation 11"),
    "coco: crowd as a word": Row(coco({"annotations.0.iscrowd": "maybe"}), "annotation", "iscrowd must be 0 or 1"),
    "voc: corner as a word": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object(box=(1, 1, "wide", 5)))}),
        "annotation",
        "'xmax': 'wide'",
        "object 1",
    ),
    "voc: corner missing": Row(
        voc({"Annotations/a1.xml": voc_xml("<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>")}),
        "annotation",
        "must hold the numbers xmin",
        "object 1",
    ),
    "yolo: three numbers": Row(
        yolo({"labels/train/a.txt": "0 .5 .5 .1\n"}), "annotation", "must hold a class number", "line 1"
    ),
    "yolo: words": Row(yolo({"labels/train/a.txt": "0 .5 .5 .1 wide\n"}), "annotation", "it holds '0 .5 .5 .1 wide'"),
    "yolo: a score behind": Row(
        yolo({"labels/train/a.txt": "0 .5 .5 .1 .1 .9\n"}), "annotation", "must hold a class number"
    ),
    "yolo: pixels": Row(
        yolo({"labels/train/a.txt": "0 30 20 20 10\n"}),
        "boxes-not-normalised",
        "must be fractions of the image, not pixels",
    ),
    "tags: cells missing": Row(
        tags("file,tags\na.png\nb.png,cat\n"), "annotation", "has 1 cells; the first line has 2", "line 2"
    ),
    "tags: a 2": Row(
        tags("file,cat,dog\na.png,1,2\n"), "annotation", "column 'dog' must be 0 or 1; it is '2'", "line 2"
    ),
}
