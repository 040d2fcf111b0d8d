from __future__ import annotations

import json
from pathlib import Path

import pytest

from boxcycle.data.check import Finding
from boxcycle.data.read import detect_format, find_splits, read_split

from .small_sets import put, save_image, yolo


def test_fractions_become_pixels(tmp_path: Path) -> None:
    index = read_split(yolo()(tmp_path), "train")
    assert index.boxes.tolist() == [[15, 15, 45, 25], [7.5, 5, 22.5, 15]]
    assert index.labels.tolist() == [1, 2]
    assert index.class_names == ("cat", "dog")
    assert index.category_ids.tolist() == [0, 1]
    assert list(index.file_names) == ["a.png", "b.png"]
    assert index.image_sizes.tolist() == [[40, 60], [40, 60]]
    assert index.annotated.tolist() == [True, True]
    assert index.box_offsets.tolist() == [0, 2, 2]


def test_polygons_keep_their_shape_and_get_their_extent_as_box(tmp_path: Path) -> None:
    labels = "0 0.1 0.2 0.5 0.2 0.5 0.75\n1 0.1 0.1 0.3 0.1 0.3 0.2 0.1 0.2\n"
    index = read_split(yolo({"labels/train/a.txt": labels})(tmp_path), "train")
    assert json.loads(index.segmentations[0]) == [[6, 8, 30, 8, 30, 30]]
    assert index.boxes[0].tolist() == [6, 8, 30, 30]
    assert index.segmentations[1] == ""  # an upright rectangle is a box
    assert index.boxes[1] == pytest.approx([6, 4, 18, 8])


@pytest.mark.parametrize(
    "config",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n",
        "path: /somebody/elses/machine\ntrain: images/train\nvalid: images/val\nnames: [cat, dog]\n",
        "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n",  # as Roboflow writes it
        "train: [images/train]\nval: list.txt\nnames: [cat, dog]\ntest:\n",
    ],
)
def test_ways_to_name_the_splits(tmp_path: Path, config: str) -> None:
    yolo({"data.yaml": config, "labels/val/c.txt": "1 .5 .5 .5 .5", "list.txt": "./images/val/c.png\n"})(tmp_path)
    save_image(tmp_path / "images" / "val" / "c.png")
    assert detect_format(tmp_path) == "yolo"
    assert list(find_splits(tmp_path)) == ["train", "val"]
    for path in (tmp_path, tmp_path / "data.yaml"):
        index = read_split(path, "val", class_names=("cat", "dog"))
        assert index.image_path(0) == tmp_path / "images" / "val" / "c.png"
        assert index.labels.tolist() == [2]


def test_a_split_of_several_folders(tmp_path: Path) -> None:
    config = "train: [images/train, more/images]\nnames: [cat, dog]\n"
    yolo({"data.yaml": config, "more/labels/a.txt": "0 .5 .5 .5 .5"})(tmp_path)
    save_image(tmp_path / "more" / "images" / "a.png")
    index = read_split(tmp_path, "train")
    assert index.root == tmp_path
    assert list(index.file_names) == ["images/train/a.png", "images/train/b.png", "more/images/a.png"]
    assert len(index.boxes) == 3


def test_labels_beside_the_images_and_gaps_between_class_numbers(tmp_path: Path) -> None:
    put(tmp_path, {"data.yaml": "train: pictures\nnames: {3: cat, 8: dog}\n", "pictures/a.txt": "8 .5 .5 .5 .5\n"})
    save_image(tmp_path / "pictures" / "a.png")
    index = read_split(tmp_path, "train")
    assert index.category_ids.tolist() == [3, 8]
    assert index.labels.tolist() == [2]


def test_key_points_are_not_read_as_polygons(tmp_path: Path) -> None:
    config = "train: images/train\nnames: [cat, dog]\nkpt_shape: [2, 3]\n"
    labels = {"labels/train/a.txt": "0 .5 .5 .5 .5 .1 .1 2 .2 .2 2\n"}
    index = read_split(yolo({"data.yaml": config, **labels})(tmp_path), "train")
    assert index.boxes.tolist() == [[15, 10, 45, 30]]
    assert list(index.segmentations) == [""]


def test_an_image_without_labels_beside_others_has_no_objects(tmp_path: Path) -> None:
    some = read_split(yolo({"labels/train/b.txt": None})(tmp_path / "some"), "train")
    assert some.annotated.tolist() == [True, True]
    none = read_split(yolo({f"labels/train/{name}.txt": None for name in "ab"})(tmp_path / "none"), "train")
    assert none.annotated.tolist() == [False, False]


def test_numbers_rounded_to_six_digits_are_not_clipped_loudly(tmp_path: Path) -> None:
    findings: list[Finding] = []
    labels = {"labels/train/a.txt": "0 0.500000 0.500000 1.000001 1.000001\n"}
    index = read_split(yolo(labels)(tmp_path), "train", findings=findings)
    assert index.boxes.tolist() == [[0, 0, 60, 40]]
    assert not [finding for finding in findings if finding.check.startswith("box")]
