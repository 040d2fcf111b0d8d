"""What is written on pictures, how they are put together, and where predictions go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from boxcycle.data.check import DataError
from boxcycle.data.index import Strings
from boxcycle.evaluation.predictions import Prediction
from boxcycle.report.pictures import detection_marks, save_predictions, side_by_side, stack, truth_marks


def test_truth_says_what_is_difficult_and_what_a_crowd(index):
    crowded = replace(index, iscrowd=np.array([False] * 4 + [True, False]))
    found = truth_marks(crowded, 3)
    assert found.texts == ("dog & fox", "dog & fox (crowd)", "<b>cat</b> (difficult)")
    assert not found.dashed
    np.testing.assert_array_equal(found.boxes, index.boxes[3:])


def test_detections_come_best_first_with_their_scores():
    boxes = np.arange(12, dtype=np.float32).reshape(3, 4)
    prediction = Prediction(1, boxes, np.array([2, 1, 2]), np.array([0.3, 0.456, 0.9], dtype=np.float32))
    found = detection_marks(prediction, ("cat", "dog"), min_score=0.4)
    assert found.texts == ("dog 0.90", "cat 0.46")
    assert found.labels.tolist() == [2, 1]
    np.testing.assert_array_equal(found.boxes, boxes[[2, 1]])
    assert found.dashed


def test_side_by_side_and_stack_keep_pictures_whole():
    red, blue = Image.new("RGB", (60, 40), "red"), Image.new("RGB", (30, 50), "blue")
    row = side_by_side([("left", red), ("a title that is much too long for its picture", blue)])
    assert row.width == 60 + 8 + 30
    pixels = np.asarray(row)
    assert (pixels == (255, 0, 0)).all(2).sum() == 60 * 40
    assert (pixels == (0, 0, 255)).all(2).sum() == 30 * 50
    page = stack([row, red])
    assert page.size == (98, row.height + 8 + 40)


def test_one_picture_for_each_prediction(index, detect, tmp_path):
    files = save_predictions(tmp_path / "out", index, detect())
    assert [file.name for file in files] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert [Image.open(file).size for file in files] == [(540, 360), (300, 480), (512, 512), (480, 160)]


def test_the_least_score_decides_what_is_drawn(index, detect, tmp_path):
    (found,) = detect()[:1]
    (shown,) = save_predictions(tmp_path / "shown", index, [found], min_score=0.9)
    (bare,) = save_predictions(tmp_path / "bare", index, [found], min_score=0.95)
    assert np.abs(np.asarray(Image.open(shown)).astype(int) - np.asarray(Image.open(bare))).max() > 60


def test_files_stay_in_the_folder_and_apart(index, detect, tmp_path):
    for name in ("a", "b"):
        (index.root / name).mkdir()
        (index.root / name / "0.png").write_bytes((index.root / "0.png").read_bytes())
    names = ["a/0.png", "b/../b/0.png", "../images/a/0.png", "a/0.png"]
    four = replace(index, file_names=Strings(names), image_sizes=np.array([index.image_sizes[0]] * 4))
    files = save_predictions(tmp_path / "out", four, detect())
    assert [file.name for file in files] == ["a__0.jpg", "b__b__0.jpg", "images__a__0.jpg", "a__0_2.jpg"]
    assert {file.resolve().parent for file in files} == {(tmp_path / "out").resolve()}


def test_folders_that_all_images_share_are_no_part_of_the_name(index, detect, tmp_path):
    absolute = replace(index, file_names=Strings((index.root / f"{number}.png").as_posix() for number in range(4)))
    files = save_predictions(tmp_path / "out", absolute, detect())
    assert [file.name for file in files] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    (file,) = save_predictions(tmp_path / "one", absolute, detect()[:1])
    assert file.name == "0.jpg"


def test_no_predictions_are_no_pictures(index, tmp_path):
    assert save_predictions(tmp_path / "out", index, []) == []


def test_an_image_that_is_gone_is_named(index, detect, tmp_path):
    (index.root / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png"):
        save_predictions(tmp_path / "out", index, detect())
