from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from boxcycle.data.images import best_folder, ids_from_names, name_fault, no_pixel_limit, read_size
from boxcycle.data.read import detect_format, find_splits, read_split

from .small_sets import put, save_image


def test_a_plain_folder_is_not_annotated(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "deep/er/c.webp"):
        save_image(tmp_path / name, size=(12, 8))
    put(tmp_path, {"notes.txt": "", ".hidden.png": "", ".cache/x.png": ""})
    assert detect_format(tmp_path) == "images"
    index = read_split(tmp_path, "train")
    assert list(index.file_names) == ["a.png", "b.JPG", "deep/er/c.webp"]
    assert index.image_sizes.tolist() == [[8, 12]] * 3
    assert not index.annotated.any()
    assert not index.tagged.any()
    assert index.class_names == ()


def test_folders_named_as_splits_are_splits(tmp_path: Path) -> None:
    for name in ("train/a.png", "valid/b.png"):
        save_image(tmp_path / name)
    assert detect_format(tmp_path) == "images"
    assert find_splits(tmp_path) == {"train": tmp_path / "train", "val": tmp_path / "valid"}
    assert list(read_split(tmp_path, "val").file_names) == ["b.png"]


def test_sizes_are_those_of_the_stored_pixels(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert read_size(save_image(tmp_path / "a.jpg", size=(12, 8), exif=exif)) == (8, 12)


def test_headers_of_any_size_can_be_read_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = save_image(tmp_path / "a.png", size=(40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(Image.DecompressionBombError):
        read_size(file)
    with no_pixel_limit():
        assert read_size(file) == (40, 40)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["img_0012.jpg", "img_0002.jpg"], [12, 2]),
        (["2007_000027.jpg", "2007_000032.jpg"], [2007000027, 2007000032]),
        (["b.jpg", "a.jpg", "c7.jpg"], [2, 1, 3]),  # not every name has a number
        (["x1.jpg", "y01.jpg"], [1, 2]),  # two have the same
        ([f"{'9' * 30}.jpg"], [1]),  # too long a number
        ([], []),
    ],
)
def test_ids_from_names(names: list[str], ids: list[int]) -> None:
    assert ids_from_names(names) == ids


@pytest.mark.parametrize("name", ["a.png", "deep/a.png", "a..png", "..a/b.png", "ü/日本.png"])
def test_names_that_are_safe(name: str) -> None:
    assert name_fault(name) is None


@pytest.mark.parametrize("name", ["", ".", "/a.png", "C:/a.png", "c:a.png", "../a.png", "a/../../b.png", "a\0b.png"])
def test_names_that_are_not(name: str) -> None:
    assert name_fault(name)


def test_the_folder_with_most_of_the_files_is_chosen(tmp_path: Path) -> None:
    for name in ("one/a.png", "two/a.png", "two/b.png"):
        save_image(tmp_path / name)
    folders = [tmp_path / name for name in ("nowhere", "one", "two")]
    assert best_folder(folders, ["a.png", "b.png"]) == tmp_path / "two"
    assert best_folder(folders, ["a.png"]) == tmp_path / "one"
    assert best_folder(folders, []) == tmp_path / "one"
