"""`boxcycle predict`: images by name, folder or pattern; pictures and ids."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxcycle.data.check import DataError
from boxcycle.methods.predict import PredictConfig, find_images, predict


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images in two folders, two of one name, and a text."""
    rng = np.random.default_rng(0)
    for name, size in {"b.jpg": (40, 64, 3), "a.png": (64, 48), "more/b.jpg": (64, 64, 3)}.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def test_images_are_found_sorted(photos: Path) -> None:
    everything = [photos / "a.png", photos / "b.jpg", photos / "more" / "b.jpg"]
    assert find_images(str(photos)) == everything
    assert find_images(str(photos / "b.jpg")) == [photos / "b.jpg"]
    assert find_images(str(photos / "*.jpg")) == [photos / "b.jpg"]
    assert find_images(str(photos / "**" / "*.jpg")) == everything[1:]
    (photos / "b.jpg").rename(photos / "[b].jpg")
    assert find_images(str(photos / "[b].jpg")) == [photos / "[b].jpg"], "a file's own name is no pattern"


@pytest.mark.parametrize("pattern", ["nothing-here", "*.bmp", "more/none/*"])
def test_no_image_is_one_sentence(photos: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=r"no image at .*; expected an image, a folder of images or a pattern"):
        find_images(str(photos / pattern))


def test_a_folder_becomes_pictures_and_results_with_ids(finished: Path, photos: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "found"
    predict(PredictConfig(run=finished, images=str(photos), out=out, min_score=0, device="cpu"))
    images, results = (json.loads((out / name).read_text()) for name in ("images.json", "predictions.json"))
    sizes = {row["file_name"]: (row["height"], row["width"]) for row in images["images"]}
    assert list(sizes.values()) == [(64, 48), (40, 64), (64, 64)]
    assert [Path(name) for name in sizes] == find_images(str(photos))
    by_id = {row["id"]: row for row in images["images"]}
    categories = {row["id"] for row in images["categories"]}
    assert {row["image_id"] for row in results} == by_id.keys() == {1, 2, 3}
    for row in results:
        x, y, width, height = row["bbox"]
        image = by_id[row["image_id"]]
        assert row["category_id"] in categories
        assert x >= 0
        assert y >= 0
        assert x + width <= image["width"] + 1e-3
        assert y + height <= image["height"] + 1e-3
    pictures = list(out.glob("*.jpg"))
    assert len(pictures) == 3, "images of one name in two folders have a picture each"
    assert f"3 images, {len(results)} objects of score 0.0 or more: {out}" in capsys.readouterr().out


def test_an_image_that_cannot_be_read_is_named(finished: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "c.jpg").write_bytes((photos / "b.jpg").read_bytes()[:300])
    (photos / "d.jpg").write_bytes(b"")
    for name in ("c.jpg", "d.jpg"):
        out = tmp_path / name
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            predict(PredictConfig(run=finished, images=str(photos / name), out=out, device="cpu"))
        assert not out.exists()


def test_the_detector_of_a_copied_file_is_enough(finished: Path, photos: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copy(finished / "checkpoints" / "best.safetensors", tmp_path / "model.safetensors"))
    predict(PredictConfig(run=alone, images=str(photos / "a.png"), out=tmp_path / "found", device="cpu"))
    assert (tmp_path / "found" / "predictions.json").exists()
