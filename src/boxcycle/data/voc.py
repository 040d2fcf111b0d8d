"""PASCAL VOC folders: an XML file an image, lists of the splits in ``ImageSets/Main``, perhaps masks as PNG files.

The classes are those of ``classes.txt`` if it is there (with ``category_ids.txt``, an addition of ours, where they are
not 1..K), else the sorted names of all objects of all splits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from boxcycle.data.check import Finding, Report
from boxcycle.data.images import SPLIT_FOLDERS, ids_from_names, images_in, name_fault, subfolders
from boxcycle.data.index import Index
from boxcycle.data.numbers import integer
from boxcycle.data.records import Records
from boxcycle.data.text import read_lines
from boxcycle.data.voc_masks import object_masks, write_masks
from boxcycle.data.voc_xml import VocImage, parse, to_xml


class Place(NamedTuple):
    """Where one split lies."""

    base: Path
    images: Path
    annotations: Path
    list: Path | None  # of its images; None: all that are there

    @property
    def file(self) -> Path:
        """What findings about the split as a whole name."""
        return self.list or self.annotations


def recognise(path: Path) -> bool:
    """Whether ``path`` is a folder with VOC's sub-folders, or with XML files beside images."""
    return path.is_dir() and bool(places(path))


def splits(path: Path) -> dict[str, Path]:
    """The list or folder of each split."""
    return {name: place.file for name, place in places(path).items()}


def places(path: Path) -> dict[str, Place]:
    """Where each split lies, for every accepted layout."""
    base = _base(path)
    images, annotations = _first(base, "JPEGImages", "images"), _first(base, "Annotations", "annotations")
    lists = [file for file in sorted((base / "ImageSets" / "Main").glob("*.txt")) if not _is_class_list(file)]
    if lists:
        return {file.stem: Place(base, images, annotations, file) for file in lists}
    if _has_xml(annotations):
        return {"train": Place(base, images, annotations, None)}
    folders = [folder for folder in subfolders(path) if folder.name in SPLIT_FOLDERS and _has_xml(folder)]
    return {SPLIT_FOLDERS[folder.name]: Place(path, folder, folder, None) for folder in folders}


def _base(path: Path) -> Path:
    if _is_base(path):
        return path
    around = [folder for folder in (path, path / "VOCdevkit") if folder.is_dir()]
    years = [folder for parent in around for folder in subfolders(parent) if _is_base(folder)]
    if len(years) > 1:
        message = f"holds several VOC data sets ({', '.join(year.name for year in years)}); give the folder of one"
        raise Report().fatal("format-unknown", path, "", message)
    return years[0] if years else path


def _is_base(folder: Path) -> bool:
    return (folder / "Annotations").is_dir() and (
        (folder / "JPEGImages").is_dir() or (folder / "ImageSets" / "Main").is_dir()
    )


def _first(base: Path, *names: str) -> Path:
    return next((base / name for name in names if (base / name).is_dir()), base)


def _has_xml(folder: Path) -> bool:
    return next(folder.glob("*.xml"), None) is not None


def _is_class_list(file: Path) -> bool:
    """Whether a list says of each image if it shows one class (``aeroplane_train.txt``: two columns)."""
    with file.open("rb") as lines:
        return len(lines.readline().split()) == 2


def read(path: Path, split: str, report: Report, *, class_names: Sequence[str] | None = None) -> Records:
    """The split's images and objects.

    Where no file lists the classes, ``class_names`` spare the look into the other splits.
    """
    all_places = places(path)
    place = all_places[split]
    stems = _stems(place, report)
    if not stems:
        raise report.fatal("split-empty", place.file, "", "has no images")
    parsed = {stem: parse(_xml(place, stem), report) for stem in stems if os.path.exists(_xml(place, stem))}
    records = Records(file=place.file, root=place.images, noun="object")
    _read_classes(records, place.base, report)
    if not records.declared:
        others = all_places.values() if class_names is None else ()
        found = _names(parsed) | _names_elsewhere(others, {_xml(place, stem) for stem in stems})
        records.class_names = [*(class_names or ()), *sorted(found - set(class_names or ()))]
    _read_images(records, place, stems, parsed, report)
    return records


def _xml(place: Place, stem: str) -> Path:
    return place.annotations / f"{stem}.xml"


def _stems(place: Place, report: Report) -> list[str]:
    """The names, without suffix, of the split's images."""
    if place.list is None:
        files = sorted(place.annotations.rglob("*.xml"))
        return [file.relative_to(place.annotations).with_suffix("").as_posix() for file in files]
    counts = Counter(line.split()[0] for line in read_lines(place.list, report))
    for stem, count in counts.items():
        fault = "is listed more than once" if count > 1 else name_fault(stem)
        if fault:
            report.add("image-name", place.list, f"image {stem}", fault)
    return [stem for stem in counts if name_fault(stem) is None]


def _read_classes(records: Records, base: Path, report: Report) -> None:
    file, ids_file = base / "classes.txt", base / "category_ids.txt"
    records.declared = file.is_file()
    if not records.declared:
        return
    records.class_names = read_lines(file, report)
    records.category_ids = range(1, len(records.class_names) + 1)
    if ids_file.is_file():
        ids = [integer(line) for line in read_lines(ids_file, report)]
        if len(ids) != len(records.class_names) or None in ids or len(set(ids)) < len(ids):
            message = f"must hold {len(records.class_names)} different integers, one for each line of classes.txt"
            raise report.fatal("class-list", ids_file, "", message)
        records.category_ids = [identity for identity in ids if identity is not None]


def _names(parsed: dict[str, VocImage | None]) -> set[str]:
    images = [image for image in parsed.values() if image is not None]
    return {item.name for image in images for item in image.objects} | {
        tag for image in images for tag in image.tags or ()
    }


def _names_elsewhere(places: Iterable[Place], done: set[Path]) -> set[str]:
    """The names in the XML files of the places but those ``done``; what is wrong there, their own split says."""
    files = {_xml(place, stem) for place in places for stem in _stems(place, Report())} - done
    return _names({str(file): parse(file, Report()) for file in files if file.exists()})


def _read_images(
    records: Records, place: Place, stems: list[str], parsed: dict[str, VocImage | None], report: Report
) -> None:
    files = images_in(place.images)
    label = {name: k for k, name in enumerate(records.class_names, start=1)}
    without_mask = 0
    for stem, image_id in zip(stems, _image_ids(stems, parsed), strict=True):
        if stem not in parsed:
            records.add_image(image_id, files.get(stem, f"{stem}.jpg"), annotated=False)
            message = f"has no annotation file {_xml(place, stem)}; kept as not annotated"
            report.add("image-not-annotated", place.file, f"image {stem}", message)
            continue
        image = parsed[stem]
        if image is None:
            continue  # what is wrong with its file is recorded
        image = _of_known_classes(image, label, _xml(place, stem), report)
        image, count = _with_masks(image, place, stem, label if records.declared else None, report)
        without_mask += count
        name = files.get(stem) or image.file_name or f"{stem}.jpg"
        _add(records, image._replace(file_name=name, image_id=image_id), _xml(place, stem), label)
    if without_mask:
        message = f"{without_mask:,} objects have no mask of their own in SegmentationObject"
        report.add("segment-unmatched", place.file, "", message, count=without_mask)


def _image_ids(stems: list[str], parsed: dict[str, VocImage | None]) -> list[int]:
    """The ``image_id`` elements if every file has its own, else numbers from the names."""
    images = [parsed.get(stem) for stem in stems]
    written = [image.image_id for image in images if image is not None and image.image_id is not None]
    return written if len(set(written)) == len(stems) else ids_from_names(stems)


def _of_known_classes(image: VocImage, label: dict[str, int], file: Path, report: Report) -> VocImage:
    for item in image.objects:
        if item.name not in label:
            message = f"is of class '{item.name}', which is not in the list of classes"
            report.add("class-unknown", file, f"object {item.number}", message)
    for tag in image.tags or []:
        if tag not in label:
            report.add("class-unknown", file, "", f"has the tag '{tag}', which is not in the list of classes")
    tags = None if image.tags is None else [tag for tag in image.tags if tag in label]
    return image._replace(tags=tags, objects=[item for item in image.objects if item.name in label])


def _with_masks(
    image: VocImage, place: Place, stem: str, label: dict[str, int] | None, report: Report
) -> tuple[VocImage, int]:
    """The image with masks of its PNG file where the XML has none, and how many objects the file leaves without."""
    objects = image.objects
    if not objects or all(item.segmentation for item in objects):
        return image, 0
    try:
        masks = object_masks(
            place.base, stem, [item.box for item in objects], [label[item.name] for item in objects] if label else None
        )
    except Exception as error:  # Pillow's plugins raise anything on bytes that are no image
        report.add("segment", place.base / "SegmentationObject" / f"{stem}.png", "", f"cannot be read: {error}")
        return image, 0
    if masks is None:
        return image, 0
    merged = [item._replace(segmentation=item.segmentation or mask) for item, mask in zip(objects, masks, strict=True)]
    return image._replace(objects=merged), sum(not item.segmentation for item in merged)


def _add(records: Records, image: VocImage, file: Path, label: dict[str, int]) -> None:
    tags = None if image.tags is None else [label[tag] for tag in image.tags]
    position = records.add_image(
        image.image_id or 0, image.file_name, size=image.size, annotated=image.annotated, file=file, tags=tags
    )
    for item in image.objects:
        records.add_object(
            position,
            item.number,
            item.box,
            label[item.name],
            box_id=item.id,
            area=item.area,
            iscrowd=item.iscrowd,
            difficult=item.difficult and not item.iscrowd,
            segmentation=item.segmentation,
        )


def write(index: Index, folder: Path, split: str) -> list[Finding]:
    """Write XML files, mask files and the lists; images belong into ``JPEGImages``.

    Returns what the format cannot hold.
    """
    listed = folder / "ImageSets" / "Main" / f"{split}.txt"
    stems = [name.rpartition(".")[0] or name for name in index.file_names]
    hidden = 0
    for image, stem in enumerate(stems):
        file = folder / "Annotations" / f"{stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(to_xml(index, image))
        hidden += _write_masks(index, image, folder, stem)
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in index.class_names), encoding="utf-8")
    if index.category_ids.tolist() != list(range(1, index.num_classes + 1)):
        (folder / "category_ids.txt").write_text("".join(f"{k}\n" for k in index.category_ids), encoding="utf-8")
    partly = int(index.partly_verified.sum())
    lost = {
        f"the masks of {hidden:,} objects are partly covered by others in the PNG files; the XML files hold them "
        "whole": hidden,
        f"no place for {partly:,} lists of an image's verified classes; all of its classes count as verified": partly,
    }
    return [
        Finding("format-cannot-hold", "warning", str(folder), "", message, count)
        for message, count in lost.items()
        if count
    ]


def _write_masks(index: Index, image: int, folder: Path, stem: str) -> int:
    rows = index.boxes_of(image)
    segmentations = index.segmentations[rows]
    if not any(segmentations):
        return 0
    height, width = index.image_sizes[image].tolist()
    return write_masks(folder, stem, segmentations, index.labels[rows].tolist(), (height, width))
