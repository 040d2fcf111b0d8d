"""Images in which annotators looked for some classes only: read, kept by all that is done to an index, written."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxcycle.data import coco as coco_format
from boxcycle.data.convert import convert
from boxcycle.data.dataset import DetectionDataset, SampleKey
from boxcycle.data.doctor import summarise
from boxcycle.data.index import Index
from boxcycle.data.one_class import one_class
from boxcycle.data.pool import Pool
from boxcycle.data.read import read_split
from boxcycle.data.tags import without_boxes
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.types import Target, check_target

from .small_sets import coco, differences, save_image

NAMES = {3: "cat", 7: "dog", 2: "ant", 9: "bee"}  # labels 1..4 in this order
CHANGES: dict[str, Any] = {
    "categories": [{"id": identity, "name": name} for identity, name in NAMES.items()],
    "images.0.neg_category_ids": [9],  # with a cat and a dog, of which there are more dogs than boxes
    "images.0.not_exhaustive_category_ids": [7],
    "images.+": {"id": 5, "file_name": "c.png", "width": 60, "height": 40, "neg_category_ids": ["2", 3]},
}


def lvis(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Three images: one partly verified, one wholly, one without boxes in which two classes were looked for."""
    coco(copy.deepcopy(CHANGES) | dict(changes or {}))(folder)
    save_image(folder / "images" / "train" / "c.png")
    return folder


def unverified(index: Index) -> dict[int, list[str]]:
    """The names of the unverified classes of each image, by image id."""
    names = np.array(index.class_names)
    return {int(index.image_ids[i]): names[index.unverified_of(i)].tolist() for i in range(len(index))}


def test_verified_are_classes_whose_objects_all_have_boxes_and_those_looked_for_in_vain(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path), "train")
    assert unverified(index) == {4: ["dog", "ant"], 9: [], 5: ["dog", "bee"]}
    assert index.partly_verified.tolist() == [True, False, True]
    assert index.verified is not None
    assert index.verified.offsets.tolist() == [0, 2, 2, 4]
    assert index.verified.labels.tolist() == [1, 4, 1, 3]
    assert summarise(index)["partly_verified"] == 2


@pytest.mark.parametrize("field", [None, [], [7]])
def test_without_negative_classes_every_class_is_verified(tmp_path: Path, field: list[int] | None) -> None:
    changes = {"images.0.neg_category_ids": None, "images.1.not_exhaustive_category_ids": field}
    index = read_split(coco(changes)(tmp_path), "train")
    assert index.verified is None
    assert not index.partly_verified.any()
    assert not index.unverified_of(0).any()
    assert "unverified" not in DetectionDataset(index)[0][1]


def test_an_image_may_have_no_verified_class(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path, {"images.2.neg_category_ids": []}), "train")
    assert unverified(index)[5] == ["cat", "dog", "ant", "bee"]


def test_classes_that_are_kept_or_in_another_order_stay_what_they_are(tmp_path: Path) -> None:
    lvis(tmp_path)
    kept = read_split(tmp_path, "train", keep_classes=["bee", "dog"])
    assert unverified(kept) == {4: ["dog"], 9: [], 5: ["bee", "dog"]}
    ordered = read_split(tmp_path, "train", class_names=["ant", "bee", "cat", "dog"])
    assert unverified(ordered) == {4: ["ant", "dog"], 9: [], 5: ["bee", "dog"]}


def test_a_class_of_which_only_dropped_boxes_were_drawn_is_not_verified(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path, {"annotations.0.bbox": [5, 5, 0, 9]}), "train")
    assert unverified(index)[4] == ["cat", "dog", "ant"]


def test_a_slow_second_reading(tmp_path: Path) -> None:
    """Thirty images with random fields, image by image with sets."""
    rng = np.random.default_rng(0)
    ids = list(NAMES)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(30):
        image: dict[str, Any] = {"id": 100 - number, "file_name": f"{number}.png", "width": 60, "height": 40}
        if rng.random() < 0.7:
            image["neg_category_ids"] = rng.choice(ids, rng.integers(0, 4)).tolist()
            image["not_exhaustive_category_ids"] = rng.choice(ids, rng.integers(0, 3)).tolist()
        images.append(image)
        save_image(tmp_path / "images" / "train" / image["file_name"])
        for category in rng.choice(ids, rng.integers(0, 4)).tolist():
            box = [1, 2, 9 + len(annotations) / 10, 9]
            annotations.append({"id": len(annotations), "image_id": image["id"], "category_id": category, "bbox": box})
    shuffled = [annotations[k] for k in rng.permutation(len(annotations))]
    changes = {"categories": CHANGES["categories"], "images": images, "annotations": shuffled}
    index = read_split(coco(changes)(tmp_path), "train")
    for position, image in enumerate(images):
        there = {box["category_id"] for box in annotations if box["image_id"] == image["id"]}
        good = (there - set(image.get("not_exhaustive_category_ids", []))) | set(image.get("neg_category_ids", []))
        expected = [identity not in good and "neg_category_ids" in image for identity in ids]
        assert index.unverified_of(position).tolist() == expected


def _file(folder: Path) -> Path:
    return folder / "annotations" / "instances_train.json"


def test_written_as_coco_and_read_again(tmp_path: Path) -> None:
    before = read_split(lvis(tmp_path / "s"), "train")
    findings = convert(tmp_path / "s", tmp_path / "d", to="coco")
    assert [finding.check for finding in findings] == ["image-without-objects"]
    after = read_split(tmp_path / "d", "train")
    assert not differences(before, after)
    assert unverified(after) == unverified(before)
    images = {image["id"]: image for image in json.loads(_file(tmp_path / "d").read_text())["images"]}
    assert (images[4]["neg_category_ids"], images[4]["not_exhaustive_category_ids"]) == ([9], [7])
    assert images[5]["neg_category_ids"] == [3, 2]
    assert "not_exhaustive_category_ids" not in images[5]
    assert images[9].keys() == {"id", "file_name", "width", "height"}


@pytest.mark.parametrize("to", ["voc", "yolo", "tags"])
def test_other_formats_say_that_they_have_no_place_for_it(tmp_path: Path, to: Any) -> None:
    lost = [finding for finding in convert(lvis(tmp_path / "s"), tmp_path / "d", to=to) if "verified" in str(finding)]
    assert [finding.count for finding in lost] == [2]
    assert lost[0].check == "format-cannot-hold"
    assert "no place for 2 lists of an image's verified classes" in lost[0].message


def test_a_subset_keeps_what_belongs_to_its_images(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path), "train")
    assert unverified(index.subset([2, 0])) == {5: ["dog", "bee"], 4: ["dog", "ant"]}
    assert unverified(index.subset([2, 1, 1]).subset([0])) == {5: ["dog", "bee"]}
    assert unverified(index.subset([])) == {}


def test_tags_keep_it_and_one_class_has_none(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path), "train")
    assert unverified(without_boxes(index)) == unverified(index)
    assert one_class(index).verified is None
    coco_format.write(one_class(index), tmp_path / "d", "train")


def test_a_pool_forgets_it_with_the_boxes_that_nobody_paid_for(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path), "train")
    pool = Pool.start(index, np.array([0, 1]))
    assert unverified(pool.index) == {4: ["dog", "ant"], 9: [], 5: []}
    assert pool.index.verified is not None
    assert pool.index.verified.labels.tolist() == [1, 4]
    assert unverified(pool.training_index()) == {4: ["dog", "ant"], 9: []}
    last = Pool.start(index, np.array([2])).index
    assert unverified(last) == {4: [], 9: [], 5: ["dog", "bee"]}
    assert not Pool.start(replace(index, verified=None), np.array([0])).index.partly_verified.any()


def test_targets_have_it_where_the_image_has(tmp_path: Path) -> None:
    index = read_split(lvis(tmp_path), "train")
    transform = make_transform(ResizeConfig(short=20, long=30, flip=1.0), train=True)
    for cache in (False, True):
        dataset = DetectionDataset(index, transform, cache=cache)
        targets = [dataset[SampleKey(image, 7)][1] for image in (0, 1, 2, 0)]
        assert [target["unverified"].tolist() for target in targets if "unverified" in target] == [
            [False, True, True, False],
            [False, True, False, True],
            [False, True, True, False],
        ]
        assert "unverified" not in targets[1]
        for target in targets:
            check_target(target, (20, 30), 4)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(3, dtype=torch.bool), torch.zeros(4), torch.zeros(1, 4, dtype=torch.bool)]
)
@pytest.mark.parametrize("boxes", [0, 1])
def test_a_target_of_another_shape_is_refused(wrong: torch.Tensor, boxes: int) -> None:
    target = Target(
        boxes=torch.tensor([[1.0, 2, 3, 4]])[:boxes], labels=torch.tensor([4])[:boxes], image_id=8, unverified=wrong
    )
    with pytest.raises(
        ValueError, match=r"unverified of image 8 must have shape \[4\], one for each class, and be bool"
    ):
        check_target(target, (20, 30), 4)
