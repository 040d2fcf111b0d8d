"""From what a reader found to a validated index: the one place where the policy of repairs lives, for all formats.

Classes are matched by name; images must exist, once, inside the data set's folder; boxes are judged in
:mod:`boxcycle.data.boxes`.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxcycle.data.boxes import judge_boxes
from boxcycle.data.check import Report
from boxcycle.data.images import name_fault, no_pixel_limit, read_size
from boxcycle.data.index import Index, Strings, Verified, offsets_of
from boxcycle.data.records import Records


def build_index(
    records: Records,
    report: Report,
    *,
    class_names: Sequence[str] | None = None,
    keep_classes: Sequence[str] | None = None,
) -> Index:
    """The images and objects of ``records`` that can be used, as an index; everything else becomes a finding.

    ``keep_classes`` leaves out the objects of all other classes; ``class_names`` are those of the split that this one
    goes with. With an error in ``report`` the index lacks what the error is about, and is only fit to look for more.
    """
    names, ids, new_label = _choose_classes(records, report, class_names, keep_classes)
    good_images, sizes = _judge_images(records, report)
    labels = new_label[np.asarray(records.labels, dtype=np.int64)]
    _report_left_out(records, report, labels)
    images = np.asarray(records.box_images, dtype=np.int64)
    chosen = (labels > 0) & good_images[images]
    boxes, areas, good_boxes = judge_boxes(records, report, sizes, labels, chosen)
    rows = np.flatnonzero(good_boxes)
    rows = rows[np.argsort(images[rows], kind="stable")]
    counts = np.bincount(images[rows], minlength=len(sizes))[good_images]
    annotated = np.asarray(records.annotated, dtype=bool)[good_images]
    _report_empty(records, report, int((annotated & (counts == 0)).sum()))
    tag_offsets, tags = _tags(records, new_label, good_images)
    return Index(
        root=records.root,
        class_names=tuple(names),
        category_ids=ids,
        image_ids=np.asarray(records.image_ids, dtype=np.int64)[good_images],
        file_names=Strings(records.file_names[i] for i in np.flatnonzero(good_images)),
        image_sizes=sizes[good_images].astype(np.int32),
        annotated=annotated,
        box_offsets=offsets_of(counts),
        boxes=boxes[rows],
        labels=labels[rows],
        box_ids=_box_ids(records, report)[rows],
        areas=areas[rows],
        iscrowd=np.asarray(records.iscrowd, dtype=bool)[rows],
        difficult=np.asarray(records.difficult, dtype=bool)[rows],
        segmentations=Strings(records.segmentations[row] for row in rows),
        tagged=np.asarray(records.tagged, dtype=bool)[good_images],
        tag_offsets=tag_offsets,
        tags=tags,
        verified=_verified(records, new_label, good_images, len(names), (images[rows], labels[rows])),
    )


def _choose_classes(
    records: Records, report: Report, wanted: Sequence[str] | None, keep: Sequence[str] | None
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Names [K] and category ids [K] of the classes, and the new label (0: left out) of each label in the records."""
    known = list(records.class_names)
    _check_class_list(records, report, known)
    if keep is not None:
        strange = [name for name in keep if name not in known and (records.declared or name not in (wanted or ()))]
        if strange:
            raise report.fatal(
                "class-unknown", records.file, "", f"has no class {listed(strange)}; it has {listed(known)}"
            )
    names = known if keep is None else list(keep)
    if wanted is not None:
        missing = [name for name in wanted if name not in names] if records.declared else []
        extra = [name for name in names if name not in wanted]
        if missing or extra:
            parts = [f"lacks {listed(missing)}"] * bool(missing) + [f"has {listed(extra)} besides"] * bool(extra)
            says = f"its classes are not those that it is to go with ({listed(wanted)}): it {' and '.join(parts)}"
            report.add("class-list-differs", records.file, "", says)
        else:
            names = list(wanted)
    position = {name: k for k, name in enumerate(names, start=1)}
    new_label = np.array([0, *(position.get(name, 0) for name in known)], dtype=np.int64)
    if records.declared:
        own = dict(zip(known, np.asarray(records.category_ids).tolist(), strict=True))
        return names, np.array([own[name] for name in names], dtype=np.int64), new_label
    return names, np.arange(1, len(names) + 1), new_label


def _check_class_list(records: Records, report: Report, names: list[str]) -> None:
    if "" in names:
        raise report.fatal("class-list", records.file, "", f"class {names.index('') + 1} has no name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise report.fatal("class-list", records.file, "", f"lists the class {listed(twice)} more than once")


def _judge_images(records: Records, report: Report) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which images [I] can be used, and the (height, width) of all [I, 2]. Makes the file names plain."""
    names = records.file_names = [_plain(name) for name in records.file_names]
    good = np.ones(len(names), dtype=bool)
    files_by_name: dict[str, int] = {}
    files_by_id: dict[int, int] = {}
    listing = _Listing(records.root)
    for position, (name, image_id) in enumerate(zip(names, np.asarray(records.image_ids).tolist(), strict=True)):
        first_of_id = files_by_id.setdefault(image_id, position)
        first_of_name = files_by_name.setdefault(name, position)
        unsafe = name_fault(name)
        fault = ("image-name", unsafe) if unsafe else None
        if first_of_id != position:
            fault = ("image-id", f"id {image_id} belongs to '{names[first_of_id]}' and to '{name}'; ids must differ")
        elif fault is None and first_of_name != position:
            fault = ("image-name", f"'{name}' is listed twice, also as image {records.image_ids[first_of_name]}")
        fault = fault or listing.fault(name)
        if fault:
            report.add(fault[0], *records.where_image(position), fault[1])
            good[position] = False
    return good, _image_sizes(records, report, good)


def _plain(name: str) -> str:
    forward = name.replace("\\", "/")
    return posixpath.normpath(forward) if "./" in forward and ".." not in forward else forward


class _Listing:
    """Which files exist below a folder, asking the file system once a folder instead of once a file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[str, frozenset[str]] = {}

    def fault(self, name: str) -> tuple[str, str] | None:
        folder, _, last = name.rpartition("/")
        present = self._files(folder)
        if last in present:
            return None
        alike = sorted(file for file in present if file.lower() == last.lower())
        hint = f"; there is '{alike[0]}'" if alike else ""
        return "image-missing", f"image file '{name}' does not exist in {self._root}{hint}"

    def _files(self, folder: str) -> frozenset[str]:
        if folder not in self._folders:
            try:
                self._folders[folder] = frozenset(file.name for file in (self._root / folder).iterdir())
            except OSError:
                self._folders[folder] = frozenset()
        return self._folders[folder]


def _image_sizes(records: Records, report: Report, good: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(height, width) of all images [I, 2], from the files where the annotations do not say.

    Takes the images that cannot be used out of ``good``.
    """
    sizes = np.array(records.image_sizes, dtype=np.float64).reshape(-1, 2)
    unknown = good & (np.isnan(sizes) | (sizes == 0)).any(1)
    with no_pixel_limit():
        for position in np.flatnonzero(unknown).tolist():
            name = records.file_names[position]
            try:
                sizes[position] = read_size(records.root / name)
            except Exception as error:
                message = f"image file '{name}' cannot be read: {error}"
                report.add("image-unreadable", *records.where_image(position), message)
                good[position] = False
    read = int((unknown & good).sum())
    if records.sizes_given and read:
        report.add(
            "image-size-missing", records.file, "", f"{read:,} image sizes are read from the image files", count=read
        )
    wrong = good & ~((sizes >= 1) & (sizes < 2**31) & (sizes == np.floor(sizes))).all(1)
    for position in np.flatnonzero(wrong).tolist():
        height, width = sizes[position].tolist()
        message = f"width and height must be positive whole numbers; they are {width:g} and {height:g}"
        report.add("image-size", *records.where_image(position), message)
    good &= ~wrong
    return sizes


def _report_left_out(records: Records, report: Report, labels: NDArray[np.int64]) -> None:
    objects = Counter(np.asarray(records.labels, dtype=np.int64)[labels == 0].tolist())
    for label, count in sorted(objects.items()):
        message = f"{count:,} objects of class '{records.class_names[label - 1]}' are left out"
        report.add("class-left-out", records.file, "", message, count=count)


def _report_empty(records: Records, report: Report, count: int) -> None:
    if count:
        message = f"{count:,} images have no object"
        report.add("image-without-objects", records.file, "", message, count=count)


def _box_ids(records: Records, report: Report) -> NDArray[np.int64]:
    """Unique annotation ids [N]: the file's own, and new ones above the highest for what has none (-1) or another's."""
    ids = np.array(records.box_ids, dtype=np.int64)
    count = len(ids)
    if (ids == -1).all():
        return np.arange(1, count + 1)
    first = np.zeros(count, dtype=bool)
    first[np.unique(ids, return_index=True)[1]] = True
    again = np.flatnonzero(~first | (ids == -1))
    old, ids[again] = ids[again], ids.max(initial=0) + 1 + np.arange(len(again))
    was = {
        int(row): "no id" if value == -1 else f"the id {value}, which an earlier one has"
        for row, value in zip(again, old, strict=True)
    }
    report.add_rows(
        "annotation-id", again.tolist(), records.where_object, lambda row: f"has {was[row]}; it becomes {ids[row]}"
    )
    return ids


def _tags(
    records: Records, new_label: NDArray[np.int64], good: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    images, labels = np.asarray(records.tag_images, dtype=np.int64), new_label[np.asarray(records.tags, dtype=np.int64)]
    used = (labels > 0) & good[images]
    pairs = np.unique(np.stack([images[used], labels[used]], 1), axis=0)
    counts = np.bincount(pairs[:, 0], minlength=len(good))[good]
    return offsets_of(counts), pairs[:, 1]


def _verified(
    records: Records,
    new_label: NDArray[np.int64],
    good: NDArray[np.bool_],
    num_classes: int,
    boxed: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> Verified | None:
    """The classes of which every object has a box, and those of which there is none; ``boxed``: images and labels of
    the boxes.
    """
    partly = np.asarray(records.partly_verified, dtype=bool)
    if not partly.any() or not partly[good].any():
        return None
    absent, incomplete = (
        np.array(pairs, dtype=np.int64).reshape(-1, 2) for pairs in (records.absent, records.incomplete)
    )
    pairs = [boxed, (incomplete[:, 0], new_label[incomplete[:, 1]]), (absent[:, 0], new_label[absent[:, 1]])]
    there, lacking, none = (image * (num_classes + 1) + label for image, label in pairs)
    image, label = np.divmod(np.union1d(np.setdiff1d(there, lacking), none), num_classes + 1)
    used = (label > 0) & (partly & good)[image]
    counts = np.bincount(image[used], minlength=len(good))[good]
    return Verified(partly[good], offsets_of(counts), label[used])


def listed(names: Sequence[str], most: int = 10) -> str:
    """Names in quotes for a sentence, the first few of many."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
