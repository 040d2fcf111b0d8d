from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from boxcycle.data.check import CHECKS, Finding
from boxcycle.data.doctor import DoctorConfig, doctor, examine, run_doctor, summarise, to_json
from boxcycle.data.read import read_split

from .small_sets import COCO, Builder, changed, coco, put, save_image, tags, voc, voc_object, voc_xml, yolo


def checks(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]


@pytest.mark.parametrize("build", [coco(), voc(), yolo({"labels/train/b.txt": "0 .5 .5 .5 .5"}), tags()])
def test_a_sound_set_has_no_findings(tmp_path: Path, build: Builder, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(build(tmp_path)) == []
    assert run_doctor(DoctorConfig(data=tmp_path)) == 0
    assert "nothing found" in capsys.readouterr().out


def test_all_that_is_wrong_is_found_at_once(tmp_path: Path) -> None:
    changes = {
        "annotations.0.bbox": [70, 5, 9, 9],
        "annotations.1.category_id": 5,
        "annotations.2.bbox": "wide",
        "images.+": {"id": 5, "file_name": "gone.png", "width": 60, "height": 40},
        "images.1.width": 61,
    }
    coco(changes)(tmp_path)
    put(tmp_path, {"annotations/instances_val.json": "{", "annotations/instances_test.json": json.dumps(COCO)})
    found = checks(doctor(tmp_path))
    assert found.count("image-missing") == 1 + 2  # and those of test, which has no folder
    assert {"box-outside", "class-unknown", "annotation", "image-size-differs", "syntax"} < set(found)


def test_no_finding_is_summed_up(tmp_path: Path) -> None:
    annotations = [{"id": k, "image_id": 4, "category_id": 3, "bbox": [5, 5, 0, 9]} for k in range(150)]
    found = [
        finding for finding in doctor(coco({"annotations": annotations})(tmp_path)) if finding.check == "box-empty"
    ]
    assert len(found) == 150
    assert {finding.count for finding in found} == {1}


def test_every_object_of_a_broken_voc_set_is_named(tmp_path: Path) -> None:
    files = {
        "Annotations/a1.xml": voc_xml(voc_object(box=(5, 5, "x", 9)), voc_object(""), voc_object(box=(90, 90, 95, 95))),
        "Annotations/b2.xml": "<annotation>",
    }
    named = {(Path(f.file).name, f.object, f.check) for f in doctor(voc(files)(tmp_path)) if f.severity != "info"}
    assert named == {
        ("a1.xml", "object 1", "annotation"),
        ("a1.xml", "object 2", "class-unknown"),
        ("a1.xml", "object 3", "box-outside"),
        ("b2.xml", "", "syntax"),
    }


def test_pictures_in_two_splits(tmp_path: Path) -> None:
    coco()(tmp_path)
    coco(split="val")(tmp_path)
    save_image(tmp_path / "images" / "val" / "b.png", seed=1)
    found = [finding for finding in doctor(tmp_path) if finding.check == "split-overlap"]
    assert [(Path(f.file).name, f.object, f.severity) for f in found] == [("a.png", "split val", "warning")]
    assert "as " + str(tmp_path / "images" / "train" / "a.png") in found[0].message


def test_splits_may_contain_each_other_by_other_names(tmp_path: Path) -> None:
    assert doctor(voc({"ImageSets/Main/trainval.txt": "a1\nb2\n"})(tmp_path)) == []


def test_huge_images_are_told_but_not_decoded(tmp_path: Path) -> None:
    size = (10_001, 10_000)
    coco({"images.0.width": size[0], "images.0.height": size[1]})(tmp_path)
    Image.new("1", size).save(tmp_path / "images" / "train" / "a.png")
    found = doctor(tmp_path)
    assert checks(found) == ["image-huge"]
    assert found[0].message == "has 100 megapixels"


def test_what_a_split_holds(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "annotations.0.area": 32**2 - 1,
        "annotations.1.area": 32**2,
        "annotations.2.area": 96**2,
        "annotations.1.iscrowd": 1,
        "images.+": {"id": 5, "file_name": "a2.png", "width": 60, "height": 40},
    }
    coco(changes)(tmp_path)
    save_image(tmp_path / "images" / "train" / "a2.png")
    held = summarise(read_split(tmp_path, "train"))
    assert held == {
        "images": 3,
        "not_annotated": 0,
        "without_objects": 1,
        "tagged": 0,
        "partly_verified": 0,
        "boxes": 3,
        "crowds": 1,
        "difficult": 0,
        "segmentations": 0,
        "sizes": {"small": 1, "medium": 1, "large": 1},
        "classes": {"cat": {"boxes": 2, "images": 2, "tags": 0}, "dog": {"boxes": 1, "images": 1, "tags": 0}},
    }


def test_json_has_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco({"annotations.0.bbox": [5, 5, 0, 9], "annotations.1.category_id": 5})(tmp_path)
    assert run_doctor(DoctorConfig(data=tmp_path, json=True)) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(to_json(examine(tmp_path)))
    assert printed["format"] == "coco"
    assert printed["counts"] == {"error": 1, "warning": 1, "info": 2}
    assert printed["splits"]["train"]["dropped"] == 1
    assert {
        "check": "box-empty",
        "severity": "warning",
        "file": str(tmp_path / "annotations" / "instances_train.json"),
        "object": "annotation 11",
        "message": "box (5, 5, 5, 14) (x1, y1, x2, y2) has a side below one pixel; dropped",
        "count": 1,
    } in printed["findings"]


def test_text_shows_errors_first_and_a_few_examples_of_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = [{"id": k, "image_id": 4, "category_id": 3, "bbox": [5, 5, 0, 9]} for k in range(15)]
    annotations.append({"id": 99, "image_id": 4, "category_id": 5, "bbox": [5, 5, 9, 9]})
    assert run_doctor(DoctorConfig(data=coco({"annotations": annotations})(tmp_path))) == 1
    printed = capsys.readouterr().out
    assert printed.index("error class-unknown: 1 x") < printed.index("warning box-empty: 15 x")
    assert CHECKS["box-empty"].meaning in printed
    assert printed.count("has a side below one pixel; dropped") == 10
    assert "and 5 more (--json lists all)" in printed
    assert "1 error, 15 warning" in printed
    assert "boxes dropped" in printed


def test_no_data_set_at_all_is_a_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_doctor(DoctorConfig(data=tmp_path / "nowhere")) == 1
    assert "does not exist" in capsys.readouterr().out
    assert checks(doctor(tmp_path)) == ["format-unknown"]
    assert checks(doctor(put(tmp_path, {"data.yaml": "names: ["}))) == ["syntax"]


def test_splits_are_compared_with_the_first(tmp_path: Path) -> None:
    coco()(tmp_path)
    more = {"categories.+": {"id": 8, "name": "emu"}}
    put(tmp_path, {"annotations/instances_val.json": json.dumps(changed(COCO, more))})
    for name, seed in (("a.png", 1), ("b.png", 2)):
        save_image(tmp_path / "images" / "val" / name, seed=seed)
    found = [finding for finding in doctor(tmp_path) if finding.severity == "error"]
    assert checks(found) == ["class-list-differs"]
    assert "has 'emu' besides" in found[0].message


def test_real_data(shared_data: Path) -> None:
    examination = examine(shared_data / "bccd")
    assert examination.findings == []
    assert {name: held["boxes"] for name, held in examination.splits.items()} == {
        "train": 2804,
        "val": 1137,
        "test": 945,
        "trainval": 3941,
    }
