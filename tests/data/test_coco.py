from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxcycle.data import coco as coco_format
from boxcycle.data.check import DataError, Finding, count_dropped
from boxcycle.data.masks import decode
from boxcycle.data.read import find_splits, read_split

from .small_sets import COCO, DELETE, changed, coco, differences, put, save_image


def read(folder: Path, **options: Any) -> Any:
    return read_split(folder, "train", **options)


def test_everything_is_read_as_it_stands(tmp_path: Path) -> None:
    index = read(coco()(tmp_path))
    assert index.class_names == ("cat", "dog")
    assert index.category_ids.tolist() == [3, 7]
    assert index.image_ids.tolist() == [4, 9]
    assert list(index.file_names) == ["a.png", "b.png"]
    assert index.image_sizes.tolist() == [[40, 60], [40, 60]]
    assert index.boxes.tolist() == [[10, 10, 30, 25], [30, 5, 50.5, 25], [0, 0, 60, 40]]
    assert index.labels.tolist() == [1, 2, 1]
    assert index.box_ids.tolist() == [11, 12, 13]
    assert index.areas.tolist() == [300, 410, 2400]
    assert index.box_offsets.tolist() == [0, 2, 3]
    assert index.image_path(0) == tmp_path / "images" / "train" / "a.png"
    assert index.annotated.all()
    assert not index.tagged.any()


def test_boxes_come_by_image_in_the_order_of_the_file(tmp_path: Path) -> None:
    order = [2, 1, 0]
    annotations = [COCO["annotations"][k] for k in order]
    index = read(coco({"annotations": annotations})(tmp_path))
    assert index.box_ids.tolist() == [12, 11, 13]


def test_crowds_and_all_kinds_of_segmentations_are_kept(tmp_path: Path) -> None:
    polygons = [[10, 10, 20.5, 10, 20, 20], [1, 1, 3, 1, 3, 3]]
    plain = {"size": [40, 60], "counts": [400, 100, 1900]}
    compressed = {"size": [40, 60], "counts": "PPY11"}
    changes = {
        "annotations.0.segmentation": polygons,
        "annotations.1.segmentation": plain,
        "annotations.1.iscrowd": 1,
        "annotations.2.segmentation": compressed,
        "annotations.2.difficult": 1,
    }
    index = read(coco(changes)(tmp_path))
    assert [json.loads(text) for text in index.segmentations] == [polygons, plain, compressed]
    assert index.iscrowd.tolist() == [False, True, False]
    assert index.difficult.tolist() == [False, False, True]
    assert decode(index.segmentations[1], 40, 60).sum() == 100


@pytest.mark.parametrize("empty", [[], [[]], None, DELETE])
def test_an_empty_segmentation_is_none(tmp_path: Path, empty: Any) -> None:
    changes = {} if empty is DELETE else {"annotations.0.segmentation": empty}
    findings: list[Finding] = []
    assert list(read(coco(changes)(tmp_path), findings=findings).segmentations) == ["", "", ""]
    assert not findings


@pytest.mark.parametrize(
    ("annotations", "images", "split"),
    [
        ("annotations/instances_train.json", "images/train", "train"),
        ("annotations/instances_val2017.json", "val2017", "val"),
        ("annotations/instances_val2017.json", "images/val2017", "val"),
        ("annotations/instances_train2017.1@10.json", "train2017", "train2017.1@10"),
        ("annotations/test.json", "images", "test"),
        ("train/_annotations.coco.json", "train", "train"),
        ("valid/_annotations.coco.json", "valid", "val"),
        ("annotations.json", "images", "train"),
        ("instances_train.json", ".", "train"),
        ("result.json", "images", "train"),
    ],
)
def test_layouts(tmp_path: Path, annotations: str, images: str, split: str) -> None:
    put(tmp_path, {annotations: json.dumps(COCO)})
    for name in ("a.png", "b.png"):
        save_image(tmp_path / images / name)
    assert find_splits(tmp_path) == {split: tmp_path / annotations}
    index = read_split(tmp_path, split)
    assert index.image_path(0).resolve() == (tmp_path / images / "a.png").resolve()
    assert not differences(index, read_split(tmp_path / annotations, split))


def test_two_years_of_a_split_keep_their_years(tmp_path: Path) -> None:
    put(tmp_path, {f"annotations/instances_train{year}.json": json.dumps(COCO) for year in (2014, 2017)})
    assert list(find_splits(tmp_path)) == ["train2014", "train2017"]


@pytest.mark.parametrize("ids", [(0, 1), (1, 2), (10, 90), (90, 10)])
def test_classes_are_numbered_in_the_order_of_the_file_whatever_their_ids(tmp_path: Path, ids: tuple[int, int]) -> None:
    categories = [{"id": ids[0], "name": "cat"}, {"id": ids[1], "name": "dog"}]
    changes = {"categories": categories, **{f"annotations.{k}.category_id": ids[k == 1] for k in range(3)}}
    index = read(coco(changes)(tmp_path))
    assert index.labels.tolist() == [1, 2, 1]
    assert index.category_ids.tolist() == list(ids)


def test_another_split_is_matched_by_name_not_by_id_or_order(tmp_path: Path) -> None:
    swapped = {"categories": [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]}  # as somebody else numbered them
    index = read(coco(swapped)(tmp_path), class_names=("cat", "dog"))
    assert index.class_names == ("cat", "dog")
    assert index.category_ids.tolist() == [7, 3]
    assert index.labels.tolist() == [2, 1, 2]


def test_other_classes_than_those_of_the_first_split_are_listed(tmp_path: Path) -> None:
    coco()(tmp_path)
    with pytest.raises(DataError, match="it lacks 'cow' and has 'dog' besides"):
        read(tmp_path, class_names=("cat", "cow"))


def test_kept_classes_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    findings: list[Finding] = []
    index = read(coco()(tmp_path), keep_classes=["dog"], findings=findings)
    assert index.class_names == ("dog",)
    assert index.category_ids.tolist() == [7]
    assert index.box_ids.tolist() == [12]
    assert len(index) == 2
    assert [(finding.check, finding.count) for finding in findings if finding.check == "class-left-out"] == [
        ("class-left-out", 2)
    ]
    assert read(tmp_path, keep_classes=["dog", "cat"]).labels.tolist() == [2, 1, 2]
    with pytest.raises(DataError, match="has no class 'cow'; it has 'cat', 'dog'"):
        read(tmp_path, keep_classes=["cow"])


def test_roboflows_class_over_all_is_left_out_only_while_unused(tmp_path: Path) -> None:
    pet = {"id": 0, "name": "pet", "supercategory": "none"}
    categories = [pet, *({**category, "supercategory": "pet"} for category in COCO["categories"])]
    assert read(coco({"categories": categories})(tmp_path / "a")).class_names == ("cat", "dog")
    used = {"categories": categories, "annotations.0.category_id": 0}
    assert read(coco(used)(tmp_path / "b")).class_names == ("pet", "cat", "dog")


def test_numbers_as_texts_are_taken_as_numbers(tmp_path: Path) -> None:
    changes = {
        "annotations.0": {
            "id": "11",
            "image_id": "4",
            "category_id": "3",
            "bbox": ["10", 10, "20.0", 15],
            "area": "300",
        },
        "images.0.id": "4",
        "images.0.width": "60",
    }
    findings: list[Finding] = []
    index = read(coco(changes)(tmp_path / "a"), findings=findings)
    assert not differences(index, read(coco()(tmp_path / "b")))
    assert not findings


def test_the_polygons_extent_is_the_box_of_an_object_without_one(tmp_path: Path) -> None:
    changes = {"annotations.0.bbox": [], "annotations.0.segmentation": [[5, 6, 9.5, 6, 9, 12]]}
    assert read(coco(changes)(tmp_path)).boxes[0].tolist() == [5, 6, 9.5, 12]


def test_a_run_length_extent_works_without_the_images_size(tmp_path: Path) -> None:
    rle = {"size": [40, 60], "counts": [400, 100, 1900]}  # columns 10, 11 and half of 12
    changes = {"annotations.0.bbox": None, "annotations.0.segmentation": rle, "images.0.width": DELETE}
    assert read(coco(changes)(tmp_path)).boxes[0].tolist() == [10, 0, 13, 40]


def test_correct_boxes_over_the_border_do_not_look_like_corners(tmp_path: Path) -> None:
    boxes = [[40, 30, 25, 20], [45, 25, 30, 30], [30, 35, 40, 10], [5, 5, 10, 10]]
    annotations = [{"id": k, "image_id": 4, "category_id": 3, "bbox": box} for k, box in enumerate(boxes)]
    findings: list[Finding] = []
    read(coco({"annotations": annotations})(tmp_path), findings=findings)
    assert {finding.check for finding in findings} == {"box-clipped", "image-without-objects"}


def test_unannotated_images_and_tags_survive_writing(tmp_path: Path) -> None:
    changes = {"images.1.annotated": False, "images.1.tags": ["dog"], "annotations.2": DELETE}
    index = read(coco(changes)(tmp_path / "a"))
    assert index.annotated.tolist() == [True, False]
    assert index.tags_of(1).tolist() == [2]
    assert index.tags_of(0).tolist() == [1, 2]
    assert coco_format.write(index, tmp_path / "b", "train") == []
    for name in ("a.png", "b.png"):
        save_image(tmp_path / "b" / "images" / "train" / name)
    assert not differences(index, read(tmp_path / "b"))


def test_a_written_file_is_plain_coco(tmp_path: Path) -> None:
    coco_format.write(read(coco()(tmp_path / "a")), tmp_path / "b", "train")
    written = json.loads((tmp_path / "b" / "annotations" / "instances_train.json").read_text())
    assert written == changed(COCO, {})


def test_indexing_is_vectorised(tmp_path: Path) -> None:
    """Twenty thousand boxes leave arrays behind, no Python object a box."""
    rng = np.random.default_rng(0)
    corners, sides = rng.uniform(0, 40, (20_000, 2)), rng.uniform(2, 15, (20_000, 2))
    boxes = np.concatenate([corners, sides], axis=1).round(2).tolist()
    annotations = [{"id": k, "image_id": 4, "category_id": 3, "bbox": box} for k, box in enumerate(boxes)]
    findings: list[Finding] = []
    index = read(coco({"annotations": annotations})(tmp_path), findings=findings)
    assert isinstance(index.boxes, np.ndarray)
    assert len(index.segmentations.bytes) == 0
    assert len(index.boxes) + count_dropped(findings) == 20_000
    assert len(findings) < 350
