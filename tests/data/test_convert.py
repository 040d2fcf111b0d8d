from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxcycle.data.check import DataError, Finding
from boxcycle.data.convert import ConvertConfig, convert, run_convert
from boxcycle.data.index import Index
from boxcycle.data.masks import encode
from boxcycle.data.read import find_splits, read_split

from .small_sets import COCO, coco, differences, put, save_image, tags, voc, yolo

TO = ("coco", "voc", "yolo", "tags")


def rich(folder: Path) -> Path:
    """COCO with all it can say: ids with gaps, crowds, each kind of segmentation, difficult marks, tags, folders."""
    mask = np.zeros((40, 60), dtype=bool)
    mask[3:20, 5:30:2] = True
    triangle = [10.25, 10.5, 30.375, 10.5, 30.375, 25.5]
    objects = [
        {"bbox": [10.25, 10.5, 20.125, 15], "segmentation": [triangle], "area": 150.9375},
        {"bbox": [30, 5, 20.3333, 20], "segmentation": [[30, 5, 40, 5, 40, 25], [45, 5, 50.3333, 5, 50.3333, 25]]},
        {"bbox": [5, 3, 25, 17], "segmentation": json.loads(encode(mask)), "area": float(mask.sum()), "iscrowd": 1},
        {"bbox": [10, 0, 3, 40], "segmentation": {"size": [40, 60], "counts": [400, 100, 1900]}, "area": 100.0},
        {"bbox": [0, 0, 60, 40], "area": 2400.0, "difficult": 1, "image_id": 9},
        {"bbox": [1.000001, 2, 3, 4], "area": 12.0, "image_id": 9},
    ]
    base = {"image_id": 4, "category_id": 3, "iscrowd": 0, "area": 306.666}
    annotations = [{**base, **item, "id": 100 - 7 * k, "category_id": (3, 7)[k % 2]} for k, item in enumerate(objects)]
    more = {"width": 60, "height": 40}
    images = [
        *COCO["images"],
        {"id": 70, "file_name": "deep/c.png", "annotated": False, "tags": ["dog"], **more},
        {"id": 71, "file_name": "d.png", **more},
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 90, "name": "traffic light"}]
    for image in images[2:]:
        save_image(folder / "images" / "train" / image["file_name"])
    data = {"images": images, "annotations": annotations, "categories": categories}
    return coco(files={"annotations/instances_train.json": json.dumps(data)})(folder)


def converted(source: Path, *formats: Any) -> tuple[Index, list[Finding]]:
    """The train split after one conversion after another, with all findings."""
    findings: list[Finding] = []
    for step, to in enumerate(formats):
        destination = source.parent / f"step{step}-{to}"
        findings += convert(source, destination, to=to)
        source = destination
    return read_split(source, "train"), [finding for finding in findings if finding.check == "format-cannot-hold"]


def test_everything_comes_back_from_coco(tmp_path: Path) -> None:
    source = rich(tmp_path / "source")
    index, lost = converted(source, "coco")
    assert not differences(read_split(source, "train"), index, atol=1e-9)
    assert not lost


def test_everything_comes_back_through_voc(tmp_path: Path) -> None:
    source = rich(tmp_path / "source")
    index, lost = converted(source, "voc", "coco")
    assert not differences(read_split(source, "train"), index, atol=1e-6)
    assert [finding.count for finding in lost] == [2]  # masks that others cover, in the PNG files only


def test_the_masks_alone_come_back_through_voc(tmp_path: Path) -> None:
    """Without our own element the PNG files still hold every pixel that no other object covers."""
    polygons = {f"annotations.{k}.segmentation": [[x, 8, x + 9, 8, x + 9, 20, x, 20]] for k, x in ((0, 11), (1, 31))}
    source = coco(polygons)(tmp_path / "source")
    convert(source, tmp_path / "voc", to="voc")
    file = tmp_path / "voc" / "Annotations" / "a.xml"
    text = file.read_text()
    file.write_text("".join(part.split("</segmentation>")[-1] for part in text.split("<segmentation>")))
    assert "counts" not in file.read_text()
    index = read_split(tmp_path / "voc", "train")
    masks = [json.loads(segmentation) for segmentation in index.segmentations[:2]]
    expected = np.zeros((2, 40, 60), dtype=bool)
    expected[0, 8:20, 11:20] = expected[1, 8:20, 31:40] = True
    assert masks == [json.loads(encode(mask)) for mask in expected]


def test_yolo_keeps_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    source = rich(tmp_path / "source")
    before, (after, lost) = read_split(source, "train"), converted(source, "yolo", "coco")
    kept = ~before.iscrowd
    assert after.class_names == before.class_names
    assert after.category_ids.tolist() == before.category_ids.tolist()
    assert sorted(after.file_names) == sorted(before.file_names)
    names = {name: position for position, name in enumerate(after.file_names)}
    for image, name in enumerate(before.file_names):
        rows = np.arange(len(kept))[before.boxes_of(image)][kept[before.boxes_of(image)]]
        there = after.boxes_of(names[name])
        assert np.allclose(after.boxes[there], before.boxes[rows], rtol=0, atol=1e-4)
        assert after.labels[there].tolist() == before.labels[rows].tolist()
    polygon = next(json.loads(text) for text in after.segmentations if text)
    assert np.allclose(polygon, json.loads(before.segmentations[0]), rtol=0, atol=1e-4)
    told = {finding.message.partition(" for ")[2]: finding.count for finding in lost}
    assert told == {
        "1 crowd regions, which are left out": 1,
        "1 'difficult' marks": 1,
        "3 segmentations of several parts, as RLE or wider than their box (the boxes stay)": 3,
        "1 tags of images": 1,
        "4 image ids": 4,
        "6 annotation ids": 6,
        "1 images that are not annotated, which become images without objects": 1,
    }


def test_mixed_images_have_polygons_only(tmp_path: Path) -> None:
    convert(coco({"annotations.0.segmentation": [[10, 10, 30, 10, 30, 25]]})(tmp_path / "s"), tmp_path / "d", to="yolo")
    lines = (tmp_path / "d" / "labels" / "train" / "a.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines] == [7, 9]
    assert not differences(
        read_split(tmp_path / "d", "train"),
        read_split(tmp_path / "s", "train"),
        ignore=["image_ids", "box_ids", "category_ids", "segmentations", "areas"],
    )


def test_tags_keep_the_classes_of_the_boxes(tmp_path: Path) -> None:
    source = rich(tmp_path / "source")
    before, (after, lost) = read_split(source, "train"), converted(source, "tags")
    assert after.class_names == before.class_names
    assert list(after.file_names) == list(before.file_names)
    for image in range(len(before)):
        assert after.tags_of(image).tolist() == before.tags_of(image).tolist()
    assert lost[0].message == "no place for 6 boxes; their classes are kept as tags of the image"


@pytest.mark.parametrize(("source", "to"), list(itertools.product(("voc", "yolo", "tags"), TO)))
def test_every_format_into_every_other(tmp_path: Path, source: str, to: str) -> None:
    build = {"voc": voc({"classes.txt": "cat\ndog\n"}), "yolo": yolo(), "tags": tags()}[source]
    before = read_split(build(tmp_path / "source"), "train")
    after, _ = converted(tmp_path / "source", to)
    lossless = to in ("coco", "voc") or source == to
    ignore = [] if lossless else ["image_ids", "box_ids", "annotated", "tagged", "tags", "tag_offsets", "category_ids"]
    if to == "tags" and source != "tags":
        ignore += ["boxes", "labels", "areas", "box_offsets", "iscrowd", "difficult", "segmentations"]
    assert not differences(before, after, ignore=ignore)
    assert sorted(path.read_bytes() for path in (tmp_path / f"step0-{to}").rglob("*.png")) == sorted(
        before.image_path(i).read_bytes() for i in range(len(before))
    )


def test_all_splits_with_one_list_of_classes(tmp_path: Path) -> None:
    coco()(tmp_path / "s")
    swapped = {"categories": [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]}
    coco(swapped, split="val")(tmp_path / "s")
    convert(tmp_path / "s", tmp_path / "d", to="yolo")
    assert list(find_splits(tmp_path / "d")) == ["train", "val"]
    assert read_split(tmp_path / "d", "val").labels.tolist() == [2, 1, 2]
    convert(tmp_path / "s", tmp_path / "only", to="coco", splits=["val"])
    assert list(find_splits(tmp_path / "only")) == ["val"]


def test_two_images_of_one_name_are_not_written_over_each_other(tmp_path: Path) -> None:
    coco()(tmp_path / "s")
    coco(split="val")(tmp_path / "s")
    assert convert(tmp_path / "s", tmp_path / "same", to="voc") == []  # the same picture in both splits
    save_image(tmp_path / "s" / "images" / "val" / "a.png", seed=1)
    with pytest.raises(DataError, match="and another image would both be written as"):
        convert(tmp_path / "s", tmp_path / "d", to="voc")


def test_links_instead_of_copies(tmp_path: Path) -> None:
    convert(coco()(tmp_path / "s"), tmp_path / "d", to="voc", copy_images=False)
    link = tmp_path / "d" / "JPEGImages" / "a.png"
    assert link.is_symlink()
    assert link.resolve() == tmp_path / "s" / "images" / "train" / "a.png"


def test_destinations_that_are_refused(tmp_path: Path) -> None:
    source = coco()(tmp_path / "s")
    put(tmp_path / "d", {"mine.txt": "keep me", "labels/old.txt": "0 0 0 0 0"})
    with pytest.raises(DataError, match="is not empty; choose another destination or set overwrite=true"):
        convert(source, tmp_path / "d", to="yolo")
    for inside in (source, source / "new"):
        with pytest.raises(DataError, match="is the data set that is read, or lies in it"):
            convert(source, inside, to="yolo", overwrite=True)
    convert(source, tmp_path / "d", to="yolo", overwrite=True)
    assert (tmp_path / "d" / "mine.txt").read_text() == "keep me"
    assert not (tmp_path / "d" / "labels" / "old.txt").exists()
    with pytest.raises(ValueError, match="to must be one of coco, voc, yolo, tags; got 'images'"):
        convert(source, tmp_path / "e", to="images")  # type: ignore[arg-type]


def test_nothing_is_written_of_a_broken_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="category_id 5"):
        convert(coco({"annotations.0.category_id": 5})(tmp_path / "s"), tmp_path / "d", to="voc")
    assert not (tmp_path / "d").exists()


def test_a_plain_folder_of_images_becomes_coco_only(tmp_path: Path) -> None:
    save_image(tmp_path / "s" / "a.png")
    index, _ = converted(tmp_path / "s", "coco")
    assert not index.annotated.any()
    with pytest.raises(DataError, match="has no classes, which yolo must list"):
        convert(tmp_path / "s", tmp_path / "d", to="yolo")


def test_the_verb_prints_what_happened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = coco({"annotations.0.bbox": [5, 5, 0, 9], "annotations.1.iscrowd": 1})(tmp_path / "s")
    run_convert(ConvertConfig(data=source, to="yolo", destination=tmp_path / "d"))
    printed = capsys.readouterr().out
    assert "annotation 11: box (5, 5, 5, 14)" in printed
    assert "no place for 1 crowd regions" in printed
    assert printed.endswith("written as yolo; 1 objects dropped\n")


def test_real_masks_survive_three_formats(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "coco-mini" / "Annotations", tmp_path / "s" / "Annotations")
    for name in ("SegmentationObject", "SegmentationClass", "JPEGImages", "classes.txt"):
        (tmp_path / "s" / name).symlink_to(shared_data / "coco-mini" / name)
    names = (shared_data / "coco-mini" / "ImageSets" / "Main" / "val.txt").read_text().split()[:15]
    put(tmp_path / "s", {"ImageSets/Main/train.txt": "\n".join(names)})
    index, _ = converted(tmp_path / "s", "coco", "voc", "coco")
    assert not differences(read_split(tmp_path / "s", "train"), index, atol=1e-6)
