from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxcycle.data.check import Finding
from boxcycle.data.masks import decode
from boxcycle.data.read import detect_format, find_splits, read_split
from boxcycle.data.voc_masks import object_masks, write_masks

from .small_sets import put, save_image, voc, voc_object, voc_xml


def save_numbers(file: Path, numbers: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(numbers.astype(np.uint8))
    image.putpalette([0] * 768)
    image.save(file)


def test_corners_from_one_become_half_open_from_zero(tmp_path: Path) -> None:
    index = read_split(voc()(tmp_path), "train")
    assert index.boxes.tolist() == [[10, 10, 30, 25], [30, 5, 50.5, 25], [0, 0, 60, 40]]
    assert index.class_names == ("cat", "dog")
    assert index.labels.tolist() == [1, 2, 1]
    assert index.image_sizes.tolist() == [[40, 60], [40, 60]]
    assert list(index.file_names) == ["a1.png", "b2.png"]
    assert index.image_ids.tolist() == [1, 2]
    assert index.box_ids.tolist() == [1, 2, 3]
    assert index.areas.tolist() == [300, 410, 2400]


@pytest.mark.parametrize("base", ["", "VOCdevkit/VOC2007", "VOC2012"])
def test_layouts_with_lists(tmp_path: Path, base: str) -> None:
    folder = voc({"ImageSets/Main/val.txt": "b2\n", "ImageSets/Main/cat_train.txt": "a1  1\nb2 -1\n"})(tmp_path / base)
    assert detect_format(tmp_path) == "voc"
    assert find_splits(tmp_path) == {name: folder / f"ImageSets/Main/{name}.txt" for name in ("train", "val")}
    assert len(read_split(tmp_path, "val")) == 1


def test_layouts_without_lists(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        put(tmp_path / "export" / split, {"a.xml": voc_xml(voc_object())})
        save_image(tmp_path / "export" / split / "a.png")
    assert list(find_splits(tmp_path / "export")) == ["train", "val"]
    assert read_split(tmp_path / "export", "val").image_path(0) == tmp_path / "export" / "valid" / "a.png"
    put(tmp_path / "pair", {"annotations/a.xml": voc_xml(voc_object())})
    save_image(tmp_path / "pair" / "images" / "a.png")
    assert len(read_split(tmp_path / "pair", "train").boxes) == 1


def test_without_a_list_the_classes_are_those_of_all_splits(tmp_path: Path) -> None:
    files = {"ImageSets/Main/val.txt": "c3\n", "Annotations/c3.xml": voc_xml(voc_object("ant"), stem="c3")}
    voc(files)(tmp_path)
    save_image(tmp_path / "JPEGImages" / "c3.png")
    train, val = (read_split(tmp_path, split) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("ant", "cat", "dog")
    assert train.labels.tolist() == [2, 3, 2]
    assert read_split(tmp_path, "val", class_names=("dog", "ant")).labels.tolist() == [2]


def test_the_listed_classes_keep_their_order_and_ids(tmp_path: Path) -> None:
    index = read_split(voc({"classes.txt": "dog\ncow\ncat\n", "category_ids.txt": "9\n8\n70\n"})(tmp_path), "train")
    assert index.class_names == ("dog", "cow", "cat")
    assert index.labels.tolist() == [3, 1, 3]
    assert index.category_ids.tolist() == [9, 8, 70]


def test_difficult_and_parts(tmp_path: Path) -> None:
    part = "<part><name>ear</name><bndbox><xmin>1</xmin></bndbox></part>"
    files = {"Annotations/a1.xml": voc_xml(voc_object(more=f"<difficult>1</difficult>{part}"), voc_object("dog"))}
    index = read_split(voc(files)(tmp_path), "train")
    assert index.difficult.tolist() == [True, False, False]
    assert index.class_names == ("cat", "dog")


def test_image_ids_are_numbers_of_the_names_where_they_differ(tmp_path: Path) -> None:
    for names, ids in ((("2007_27", "2007_32"), [200727, 200732]), (("x1y", "y1"), [1, 2]), (("b", "a"), [2, 1])):
        folder = tmp_path / names[0]
        put(folder, {"ImageSets/Main/train.txt": "\n".join(names)})
        for name in names:
            put(folder, {f"Annotations/{name}.xml": voc_xml(voc_object(), stem=name)})
            save_image(folder / "JPEGImages" / f"{name}.png")
        assert read_split(folder, "train").image_ids.tolist() == ids


def test_masks_in_the_order_of_the_objects(tmp_path: Path) -> None:
    numbers = np.zeros((40, 60))
    numbers[10:25, 10:30], numbers[5:25, 35:50], numbers[0, 0] = 1, 2, 255
    save_numbers(tmp_path / "SegmentationObject" / "a1.png", numbers)
    findings: list[Finding] = []
    index = read_split(voc()(tmp_path), "train", findings=findings)
    assert [decode(text, 40, 60).sum() for text in index.segmentations[:2]] == [300, 300]
    assert index.segmentations[2] == ""
    assert index.areas.tolist() == [300, 300, 2400]
    assert not findings


def test_masks_in_another_order_are_found_by_their_boxes(tmp_path: Path) -> None:
    numbers = np.zeros((40, 60))
    numbers[10:25, 10:30], numbers[5:25, 30:50] = 2, 1
    save_numbers(tmp_path / "SegmentationObject" / "a.png", numbers)
    cat, dog = [10, 10, 30, 25], [30, 5, 50.5, 25]
    masks = object_masks(tmp_path, "a", [cat, dog, [0, 30, 9, 40]], None)
    assert masks is not None
    assert [decode(text, 40, 60).sum() if text else 0 for text in masks] == [300, 400, 0]


def test_the_order_is_believed_where_boxes_do_not_decide(tmp_path: Path) -> None:
    """Two equal boxes: a mask for each; the class file or the order says which."""
    numbers, classes = np.zeros((40, 60)), np.zeros((40, 60))
    numbers[10:20, 10:20], numbers[20:30, 10:20] = 1, 2
    classes[10:20, 10:20], classes[20:30, 10:20] = 2, 1
    save_numbers(tmp_path / "SegmentationObject" / "a.png", numbers)
    both = [[10, 10, 20, 30], [10, 10, 20, 30]]
    first = object_masks(tmp_path, "a", both, None)
    assert first is not None
    assert decode(first[0], 40, 60)[10, 10]
    save_numbers(tmp_path / "SegmentationClass" / "a.png", classes)
    second = object_masks(tmp_path, "a", both, [1, 2])
    assert second is not None
    assert decode(second[0], 40, 60)[20, 10]


def test_written_masks_are_palette_files_of_numbers(tmp_path: Path) -> None:
    segmentations = ["", json.dumps([[1, 1, 9, 1, 9, 9, 1, 9]]), json.dumps([[5, 5, 15, 5, 15, 15, 5, 15]])]
    hidden = write_masks(tmp_path, "a", segmentations, [1, 1, 2], (20, 20))
    with Image.open(tmp_path / "SegmentationObject" / "a.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        assert np.unique(np.asarray(image)).tolist() == [0, 2, 3]
    with Image.open(tmp_path / "SegmentationClass" / "a.png") as image:
        assert np.unique(np.asarray(image)).tolist() == [0, 1, 2]
    assert hidden == 1


@pytest.mark.parametrize(("name", "images", "boxes", "classes"), [("bccd", 205, 2804, 3), ("coco-mini", 172, 1647, 80)])
def test_real_data(shared_data: Path, name: str, images: int, boxes: int, classes: int) -> None:
    findings: list[Finding] = []
    index = read_split(shared_data / name, "train", findings=findings)
    assert (len(index), len(index.boxes), index.num_classes) == (images, boxes, classes)
    assert {finding.severity for finding in findings} <= {"info"}


def test_real_masks_lie_in_their_boxes(shared_data: Path) -> None:
    index = read_split(shared_data / "coco-mini", "val")
    found = 0
    for image in range(0, len(index), 10):
        rows = index.boxes_of(image)
        for text, box in zip(index.segmentations[rows], index.boxes[rows].tolist(), strict=True):
            if text:
                y, x = np.nonzero(decode(text, *index.image_sizes[image].tolist()))
                inside = (x >= box[0] - 2) & (x < box[2] + 2) & (y >= box[1] - 2) & (y < box[3] + 2)
                assert inside.mean() >= 0.8
                found += 1
    assert found > 50


def test_a_subset_of_real_classes(shared_data: Path) -> None:
    names = (shared_data / "coco-mini" / "classes_voc20.txt").read_text().split("\n")
    wanted = [name.strip() for name in names if name.strip()]
    findings: list[Finding] = []
    index = read_split(shared_data / "coco-mini", "voc20_train", keep_classes=wanted, findings=findings)
    assert index.class_names == tuple(wanted)
    left_out = sum(finding.count for finding in findings if finding.check == "class-left-out")
    assert len(index.boxes) + left_out == 1515
    assert (np.diff(index.box_offsets) > 0).all()
