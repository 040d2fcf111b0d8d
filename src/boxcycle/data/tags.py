"""Image tags without boxes: a CSV file, or a folder of images for each class.

A CSV file has a column of file names (``file``, ``filename``, ``image``, ``path``) and either one of tags (``tags``,
``labels``, ``classes``), separated by ``;`` or ``|``, or by spaces where no row has either, or a column of 0 and 1 for
each class. A column ``split`` cuts it into splits.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from boxcycle.data.check import DataError, Finding, Report
from boxcycle.data.images import SPLIT_FOLDERS, best_folder, find_images, ids_from_names, subfolders
from boxcycle.data.index import Index, offsets_of
from boxcycle.data.records import Records
from boxcycle.data.text import read_lines, read_text

FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_name", "path")
TAG_COLUMNS = ("tags", "tag", "labels", "label", "classes", "class")
NO_CLASSES = frozenset({*SPLIT_FOLDERS, "images", "labels", "annotations"})


class Row(NamedTuple):
    """One image: the line of the file it stands in, its file name, its tags and its split."""

    line: int
    file: str
    tags: list[str]
    split: str


def recognise(path: Path) -> bool:
    """Whether ``path`` is a CSV file with a column of file names, a folder with such, or a folder of class folders."""
    files = _tables(path)
    return path.suffix == ".csv" or any(_header(file) for file in files) or bool(_class_roots(path))


def splits(path: Path) -> dict[str, Path]:
    """The CSV file or folder of each split."""
    files = _tables(path)
    if not files:
        return _class_roots(path)
    found = {}
    for file in files:
        rows, _ = _read_table(file, Report())
        found.update({row.split: file for row in rows} or {_split_of(file): file})
    return found


def _tables(path: Path) -> list[Path]:
    if path.suffix == ".csv":
        return [path]
    top = sorted(path.glob("*.csv"))
    return [file for file in (top or sorted(path.glob("*/_classes.csv"))) if _header(file)]


def _header(file: Path) -> list[str]:
    """The column names, if one of them is a column of files."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        first = lines.readline()
    names = [name.strip() for name in next(csv.reader([first], delimiter=_delimiter(first)), [])]
    return names if any(name.lower() in FILE_COLUMNS for name in names) else []


def _delimiter(header: str) -> str:
    return next((mark for mark in ",\t;" if mark in header), ",")


def _split_of(file: Path) -> str:
    return SPLIT_FOLDERS.get(file.parent.name if file.name == "_classes.csv" else file.stem, "train")


def _class_roots(path: Path) -> dict[str, Path]:
    """The folders whose sub-folders are the classes: those of the splits, or ``path`` itself."""
    if not path.is_dir():
        return {}
    roots = {SPLIT_FOLDERS[folder.name]: folder for folder in subfolders(path) if folder.name in SPLIT_FOLDERS}
    return {name: folder for name, folder in (roots or {"train": path}).items() if _holds_classes(folder)}


def _holds_classes(folder: Path) -> bool:
    classes = subfolders(folder)
    direct = next((image for image in find_images(folder) if image.parent == folder), None)
    named = not any(entry.name.lower() in NO_CLASSES for entry in classes)
    return direct is None and named and any(next(find_images(entry), None) for entry in classes)


def read(path: Path, split: str, report: Report) -> Records:
    """The split's images with their tags; no image counts as annotated with boxes."""
    return _read_csv(path, split, report) if _tables(path) else _read_folders(path, split)


def _read_folders(path: Path, split: str) -> Records:
    roots = _class_roots(path)
    root = roots[split]
    names = sorted({folder.name for place in roots.values() for folder in subfolders(place)})
    records = Records(file=root, root=root, class_names=names, declared=False, sizes_given=False)
    images = [image.relative_to(root).as_posix() for image in find_images(root)]
    for name, image_id in zip(images, ids_from_names(images), strict=True):
        records.add_image(image_id, name, annotated=False, tags=[names.index(name.partition("/")[0]) + 1])
    return records


def _read_csv(path: Path, split: str, report: Report) -> Records:
    file = splits(path)[split]
    all_rows, columns = _read_table(file, report)
    rows = [row for row in all_rows if row.split == split]
    if not rows:
        raise report.fatal("split-empty", file, "", "lists no images")
    names, declared = columns, True
    list_file = file.parent / "classes.txt"
    if list_file.is_file():
        names = read_lines(list_file, report)
    elif not columns:
        others = [row for other in _tables(path) if other != file for row in _read_table(other, Report())[0]]
        names, declared = sorted({tag for row in (*all_rows, *others) for tag in row.tags}), False
    candidates = [file.parent / "images" / split, file.parent / split, file.parent / "images", file.parent]
    records = Records(
        file=file,
        root=best_folder(candidates, [row.file for row in rows]),
        class_names=names,
        category_ids=range(1, len(names) + 1),
        declared=declared,
        sizes_given=False,
    )
    _add_rows(records, rows, report)
    return records


def _add_rows(records: Records, rows: list[Row], report: Report) -> None:
    label = {name: k for k, name in enumerate(records.class_names, start=1)}
    for row, image_id in zip(rows, ids_from_names([row.file for row in rows]), strict=True):
        for tag in row.tags:
            if tag not in label:
                message = f"has the tag '{tag}', which is not in the list of classes"
                report.add("class-unknown", records.file, f"line {row.line}", message)
        tags = [label[tag] for tag in row.tags if tag in label]
        records.add_image(image_id, row.file, annotated=False, tags=tags)
    empty = sum(not row.tags for row in rows)
    if empty:
        message = f"{empty:,} images have no tag; taken as images that show none of the classes"
        report.add("tags-empty", records.file, "", message, count=empty)


def _read_table(file: Path, report: Report) -> tuple[list[Row], list[str]]:
    """The rows of a CSV file, and its class columns (none where a column lists tags)."""
    text = read_text(file, report)
    table = _rows(text, file, report)
    header = [name.strip() for name in table[0]]
    lower = [name.lower() for name in header]
    if len(set(lower)) < len(lower):
        raise report.fatal("structure", file, "line 1", f"has two columns of one name: {', '.join(header)}")
    place = next((lower.index(name) for name in FILE_COLUMNS if name in lower), None)
    if place is None:
        message = f"needs a column of file names ({', '.join(FILE_COLUMNS)}); its columns are {', '.join(header)}"
        raise report.fatal("structure", file, "line 1", message)
    listed = next((lower.index(name) for name in TAG_COLUMNS if name in lower), None)
    others = [k for k in range(len(header)) if k != place and lower[k] != "split"]
    if listed is None and not others:
        raise report.fatal("structure", file, "line 1", "needs a column of tags, or one for each class")
    mark = None if listed is None else _tag_mark([row[listed] for row in table[1:] if len(row) > listed])
    rows = []
    for number, cells in _full_rows(table, file, report):
        if listed is None:
            tags = _one_hot(cells, others, header, file, number, report)
        else:
            tags = [tag.strip() for tag in cells[listed].split(mark) if tag.strip()]
        named = cells[lower.index("split")].strip() if "split" in lower else _split_of(file)
        if not named:
            report.add("annotation", file, f"line {number}", "names no split in its column 'split'")
        rows.append(Row(number, cells[place].strip(), tags, SPLIT_FOLDERS.get(named, named)))
    return rows, [header[k] for k in others] if listed is None else []


def _rows(text: str, file: Path, report: Report) -> list[list[str]]:
    """The cells of each line. A quote that nobody closes would take the lines behind it into one cell."""
    lines = csv.reader(text.splitlines(), delimiter=_delimiter(text.splitlines()[0]), strict=True)
    table = []
    try:
        for number, cells in enumerate(lines, start=1):
            if lines.line_num != number:
                raise report.fatal("syntax", file, f"line {number}", "has a quote that is not closed on the same line")
            table.append(cells)
    except csv.Error as error:
        raise report.fatal("syntax", file, f"line {lines.line_num}", f"is not valid CSV: {error}") from None
    return table


def _full_rows(table: list[list[str]], file: Path, report: Report) -> Iterator[tuple[int, list[str]]]:
    for number, cells in enumerate(table[1:], start=2):
        if len(cells) == len(table[0]):
            yield number, cells
        elif cells:
            message = f"has {len(cells)} cells; the first line has {len(table[0])}"
            report.add("annotation", file, f"line {number}", message)


def _tag_mark(cells: Sequence[str]) -> str | None:
    return next((mark for mark in ";|" if any(mark in cell for cell in cells)), None)  # None: at spaces


def _one_hot(
    cells: list[str], columns: list[int], header: list[str], file: Path, number: int, report: Report
) -> list[str]:
    tags = []
    for k in columns:
        value = cells[k].strip()
        if value not in ("0", "1", "0.0", "1.0"):
            report.add("annotation", file, f"line {number}", f"column '{header[k]}' must be 0 or 1; it is '{value}'")
        elif value.startswith("1"):
            tags.append(header[k])
    return tags


def without_boxes(index: Index) -> Index:
    """The images whose tags are known, with their tags and nothing else: what a method that learns from tags may see.

    The tags of an annotated image without tags of its own are the classes of its boxes.
    """
    known = [i for i in range(len(index)) if index.tagged[i] or index.annotated[i]]
    tags = [index.tags_of(i) for i in known]
    return replace(
        index.subset(known).only_boxes(np.zeros(int(np.diff(index.box_offsets)[known].sum()), dtype=bool)),
        annotated=np.zeros(len(known), dtype=bool),
        tagged=np.ones(len(known), dtype=bool),
        tag_offsets=offsets_of([len(labels) for labels in tags]),
        tags=np.concatenate([np.zeros(0, dtype=np.int64), *tags]),
    )


def write(index: Index, folder: Path, split: str) -> list[Finding]:
    """Write ``{split}.csv`` with a column for each class; images belong into ``images/{split}``.

    The tags of an annotated image are the classes of its boxes. Returns what the format cannot hold.
    """
    known = [i for i in range(len(index)) if index.tagged[i] or index.annotated[i]]
    file = folder / f"{split}.csv"
    reserved = [name for name in index.class_names if name.lower() in (*FILE_COLUMNS, *TAG_COLUMNS, "split")]
    if reserved:
        raise DataError(f"class '{reserved[0]}' cannot be a column of {file}: the name says something else there")
    with file.open("w", encoding="utf-8", newline="") as lines:
        table = csv.writer(lines)
        table.writerow(["file", *index.class_names])
        for image in known:
            tags = set(index.tags_of(image).tolist())
            table.writerow([index.file_names[image], *(int(k in tags) for k in range(1, index.num_classes + 1))])
    lost = {
        "boxes; their classes are kept as tags of the image": len(index.boxes),
        "images that are neither annotated nor tagged": len(index) - len(known),
        "lists of an image's verified classes; all of its classes count as verified": int(index.partly_verified.sum()),
        "image ids": sum(a != b for a, b in zip(index.image_ids, ids_from_names(list(index.file_names)), strict=True)),
        "category ids": sum(a != b for a, b in zip(index.category_ids, range(1, index.num_classes + 1), strict=True)),
    }
    return [
        Finding("format-cannot-hold", "warning", str(file), f"split {split}", f"no place for {count:,} {what}", count)
        for what, count in lost.items()
        if count
    ]
