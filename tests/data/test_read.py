from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from boxcycle.data.check import DataError, Finding, count_dropped
from boxcycle.data.convert import WRITERS, Format
from boxcycle.data.read import FORMATS, AnyFormat, detect_format, find_splits, read_split

from .small_sets import COCO, DELETE, Builder, coco, differences, put, save_image, tags, voc, yolo

BUILDERS: dict[str, Builder] = {"coco": coco(), "voc": voc(), "yolo": yolo(), "tags": tags()}


@pytest.mark.parametrize("name", BUILDERS)
def test_formats_are_recognised(tmp_path: Path, name: str) -> None:
    folder = BUILDERS[name](tmp_path)
    assert detect_format(folder) == name
    assert not differences(read_split(folder, "train"), read_split(folder, "train", format=name))


def test_settings_offer_every_format() -> None:
    assert set(get_args(AnyFormat)) == {"auto", *FORMATS}
    assert set(get_args(Format)) == {*WRITERS}


def test_what_was_looked_for_is_listed(tmp_path: Path) -> None:
    put(tmp_path, {"notes.txt": "nothing here"})
    with pytest.raises(DataError, match=r"is no data set that can be read; looked for a YOLO data.yaml; a COCO \.json"):
        detect_format(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        find_splits(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="format must be one of auto, yolo, coco, voc, tags, images; got 'csv'"):
        find_splits(tmp_path, "csv")


def test_splits_come_in_the_order_of_use(tmp_path: Path) -> None:
    names = ("test", "val2017", "fold3", "train", "calibration")
    put(tmp_path, {f"annotations/instances_{name}.json": json.dumps(COCO) for name in names})
    assert list(find_splits(tmp_path)) == ["train", "val", "test", "calibration", "fold3"]


def test_paths_may_be_texts_and_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco()(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    assert len(read_split("set", "train").boxes) == 3  # type: ignore[arg-type]
    assert list(find_splits("set")) == ["train"]  # type: ignore[arg-type]


def test_findings_are_handed_over_even_if_reading_fails(tmp_path: Path) -> None:
    changes = {"annotations.0.bbox": [5, 5, 0, 9], "annotations.1.image_id": 77, "annotations.2.bbox": "wide"}
    findings: list[Finding] = []
    with pytest.raises(DataError, match=r"\(and 1 more errors; `boxcycle doctor` lists them\)"):
        read_split(coco(changes)(tmp_path), "train", findings=findings)
    assert [finding.check for finding in findings if finding.severity == "error"] == ["annotation-image", "annotation"]
    assert "box-empty" in {finding.check for finding in findings}


def test_what_is_dropped_is_counted(tmp_path: Path) -> None:
    findings: list[Finding] = []
    changes = {"annotations.0.bbox": [5, 5, 0, 9], "annotations.1.bbox": DELETE}
    index = read_split(coco(changes)(tmp_path), "train", findings=findings)
    assert (len(index), len(index.boxes), count_dropped(findings)) == (2, 1, 2)


def test_names_with_other_signs(tmp_path: Path) -> None:
    changes = {"images.0.file_name": ".\\deep\\ü 1.png", "images.1.file_name": "./b.png"}
    coco(changes)(tmp_path)
    save_image(tmp_path / "images" / "train" / "deep" / "ü 1.png")
    index = read_split(tmp_path, "train")
    assert list(index.file_names) == ["deep/ü 1.png", "b.png"]
    assert all(index.image_path(i).is_file() for i in range(2))


def test_reading_does_not_need_torch(tmp_path: Path) -> None:
    code = (
        "import sys; import boxcycle.data.doctor, boxcycle.data.convert; from boxcycle.data.read import read_split; "
        f"read_split({str(coco()(tmp_path))!r}, 'train'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
