"""Data sets with faults that are repaired and counted, or that only the doctor sees, since it decodes every image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from PIL import Image

from .broken_errors import BOX, Row
from .small_sets import COCO, DELETE, Builder, changed, coco, put, save_image, tags, voc, voc_object, voc_xml, yolo


def with_image(name: str, **options: Any) -> Builder:
    def build(folder: Path) -> Path:
        coco()(folder)
        save_image(folder / "images" / "train" / name, **options)
        return folder

    return build


def truncated(builder: Builder, name: str, keep: int) -> Builder:
    def build(folder: Path) -> Path:
        builder(folder)
        file = folder / name
        file.write_bytes(file.read_bytes()[:keep])
        return folder

    return build


def xyxy(folder: Path) -> Path:
    boxes = [[5, 5, 40, 30], [10, 8, 58, 39], [30, 20, 55, 38], [25, 15, 59, 37]]
    annotations = [{"id": k, "image_id": 4, "category_id": 3, "bbox": box} for k, box in enumerate(boxes)]
    return coco({"annotations": annotations})(folder)


def rotated(folder: Path) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 6
    return with_image("a.png", exif=exif)(folder)


def val_beside(changes: dict[str, Any]) -> Builder:
    def build(folder: Path) -> Path:
        coco()(folder)
        for name in ("a.png", "b.png"):
            save_image(folder / "images" / "val" / name, seed=1000 + ord(name[0]))
        return put(folder, {"annotations/instances_val.json": json.dumps(changed(COCO, changes))})

    return build


REPAIRS = {
    "coco: partly outside": Row(
        coco({BOX: [50, 30, 20, 20]}), "box-clipped", "reaches over the border", "annotation 11"
    ),
    "coco: entirely outside": Row(
        coco({BOX: [60, 0, 5, 5]}), "box-outside", "lies outside its image of 60 x 40", "annotation 11", 2
    ),
    "coco: above and left": Row(coco({BOX: [-9, -9, 9, 9]}), "box-outside", "lies outside", "annotation 11", 2),
    "coco: a sliver inside": Row(
        coco({BOX: [59.5, 0, 9, 9]}), "box-empty", "less than one pixel inside", "annotation 11", 2
    ),
    "coco: no width": Row(coco({BOX: [5, 5, 0, 9]}), "box-empty", "a side below one pixel", "annotation 11", 2),
    "coco: half a pixel": Row(coco({BOX: [5, 5, 9, 0.5]}), "box-empty", "a side below one pixel", "annotation 11", 2),
    "coco: negative height": Row(
        coco({BOX: [20, 20, 9, -9]}), "box-empty", "a side below one pixel", "annotation 11", 2
    ),
    "coco: NaN": Row(coco({BOX: [5, math.nan, 9, 9]}), "box-not-finite", "is not finite", "annotation 11", 2),
    "coco: infinity": Row(coco({BOX: [5, 5, math.inf, 9]}), "box-not-finite", "is not finite", "annotation 11", 2),
    "coco: no box": Row(coco({BOX: DELETE}), "box-missing", "neither a bbox nor a segmentation", "annotation 11", 2),
    "coco: segment only": Row(
        coco({BOX: DELETE, "annotations.0.segmentation": [[5, 5, 9, 5, 9, 9]]}),
        "box-from-segment",
        "extent of its",
        "annotation 11",
    ),
    "coco: twice": Row(
        coco({"annotations.+": {**COCO["annotations"][0], "id": 99}}),
        "box-duplicate",
        "is there already",
        "annotation 99",
    ),
    "coco: annotation id twice": Row(
        coco({"annotations.1.id": 11}), "annotation-id", "has the id 11, which an earlier one has"
    ),
    "coco: annotation id missing": Row(coco({"annotations.1.id": DELETE}), "annotation-id", "has no id; it becomes 14"),
    "coco: polygon of two points": Row(
        coco({"annotations.0.segmentation": [[1, 2, 3, 4]]}), "segment", "at least 3 points", "annotation 11"
    ),
    "coco: polygon with NaN": Row(
        coco({"annotations.0.segmentation": [[1, 2, 3, 4, math.nan, 6]]}), "segment", "finite pixel coordinates"
    ),
    "coco: RLE of another size": Row(
        coco({"annotations.0.segmentation": {"size": [9, 9], "counts": "1"}}), "segment", "RLE size must be [40, 60]"
    ),
    "coco: RLE too short": Row(
        coco({"annotations.0.segmentation": {"size": [40, 60], "counts": [5, 5]}}), "segment", "must add up to 2400"
    ),
    "coco: RLE of nonsense": Row(
        coco({"annotations.0.segmentation": {"size": [40, 60], "counts": "zz"}, "annotations.0.area": DELETE}),
        "segment",
        "is malformed",
    ),
    "coco: segmentation as a word": Row(
        coco({"annotations.0.segmentation": "all"}), "segment", "neither a list of polygons"
    ),
    "coco: corners for sides": Row(xyxy, "boxes-look-like-xyxy", "the boxes look like xyxy", "", 4, 3),
    "coco: no sizes": Row(
        coco({"images.0.width": DELETE, "images.1.height": 0}), "image-size-missing", "2 image sizes are read", "", 3, 2
    ),
    "coco: an empty class over all": Row(
        coco({"categories": [{"id": 0, "name": "pet"}, *({**c, "supercategory": "pet"} for c in COCO["categories"])]}),
        "class-unused",
        "supercategory of all other",
        "category 'pet'",
    ),
    "coco: an image without objects": Row(
        coco({"annotations.2": DELETE}), "image-without-objects", "1 images have no object", "", 2
    ),
    "voc: no XML": Row(
        voc({"Annotations/b2.xml": None}), "image-not-annotated", "kept as not annotated", "image b2", 2
    ),
    "voc: no bndbox": Row(
        voc({"Annotations/a1.xml": voc_xml("<object><name>cat</name></object>", voc_object("dog"))}),
        "box-missing",
        "has no <bndbox>",
        "object 1",
        2,
    ),
    "voc: corners swapped": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object("dog"), voc_object(box=(30, 25, 11, 11)))}),
        "box-empty",
        "below one pixel",
        "object 2",
        2,
    ),
    "voc: counted from zero": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object(box=(0, 0, 20, 20)), voc_object("dog"))}),
        "box-clipped",
        "(-1, -1, 20, 20)",
        "object 1",
    ),
    "voc: no size": Row(
        voc({"Annotations/a1.xml": voc_xml(voc_object(), voc_object("dog"), size=(0, 0))}),
        "image-size-missing",
        "1 image sizes are read",
    ),
    "voc: a mask file that is none": Row(voc({"SegmentationObject/a1.png": b"no image"}), "segment", "cannot be read"),
    "yolo: outside": Row(
        yolo({"labels/train/a.txt": "0 1.4 .5 .2 .2\n1 .5 .5 .2 .2\n"}), "box-outside", "lies outside", "line 1", 1
    ),
    "yolo: over the border": Row(
        yolo({"labels/train/a.txt": "0 .9 .5 .4 .2\n1 .5 .5 .2 .2\n"}), "box-clipped", "over the border", "line 1", 2
    ),
    "yolo: NaN": Row(
        yolo({"labels/train/a.txt": "0 nan .5 .2 .2\n1 .5 .5 .2 .2\n"}), "box-not-finite", "is not finite", "line 1", 1
    ),
    "yolo: NaN in a polygon": Row(
        yolo({"labels/train/a.txt": "0 .1 .1 nan .2 .3 .3\n1 .5 .5 .2 .2\n"}),
        "box-not-finite",
        "is not finite",
        "line 1",
        1,
    ),
    "yolo: a label file missing": Row(
        yolo({"labels/train/b.txt": None}), "labels-missing", "1 images have no label file", "", 2
    ),
    "yolo: all label files missing": Row(
        yolo({"labels/train/a.txt": None, "labels/train/b.txt": None}),
        "image-not-annotated",
        "none of the 2 images",
        "",
        0,
        2,
    ),
    "tags: no tag": Row(tags("file,tags\na.png,cat\nb.png,\n"), "tags-empty", "1 images have no tag", "", 0),
}

LOOKED_AT = {  # what only the doctor sees: it decodes every image and compares the splits
    "truncated": Row(truncated(coco(), "images/train/a.png", 3000), "image-unreadable", "truncated", "image 4"),
    "no image at all": Row(
        coco(files={"images/train/a.png": b"GIF"}), "image-unreadable", "cannot identify image", "image 4"
    ),
    "another size": Row(with_image("a.png", size=(40, 60)), "image-size-differs", "is 40 x 60 pixels", "image 4"),
    "rotated": Row(rotated, "image-rotated", "EXIF orientation 6", "image 4"),
    "same content twice": Row(with_image("b.png", seed=ord("a")), "image-duplicate", "same content as", "image 9"),
    "classes differ": Row(
        val_beside({"categories.1.name": "cow"}), "class-list-differs", "it lacks 'dog' and has 'cow' besides"
    ),
    "a class without boxes": Row(
        coco({"annotations.1": DELETE}), "class-without-boxes", "no box of the class 'dog'", "split train"
    ),
}
