from __future__ import annotations

from pathlib import Path

import pytest

from boxcycle.data.read import detect_format, find_splits, read_split

from .small_sets import put, save_image, tags


@pytest.mark.parametrize(
    "table",
    [
        "file,tags\na.png,cat;dog\nb.png,cat\n",
        "filename,labels\na.png,dog|cat\nb.png,cat\n",
        "image,class\na.png,cat dog\nb.png,cat\n",
        'file,tags\n"a.png","cat; dog;cat"\n"b.png"," cat "\n',
        "file\ttags\na.png\tcat;dog\nb.png\tcat\n",
        "path,cat,dog\na.png,1,1\nb.png,1,0\n",
        "\ufefffile,tags\r\na.png,cat;dog\r\nb.png,cat\r\n",
    ],
)
def test_ways_to_write_tags(tmp_path: Path, table: str) -> None:
    folder = tags(table)(tmp_path)
    assert detect_format(folder) == "tags"
    for path in (folder, folder / "train.csv"):
        index = read_split(path, "train")
        assert index.class_names == ("cat", "dog")
        assert index.tagged.all()
        assert not index.annotated.any()
        assert [index.tags_of(i).tolist() for i in range(2)] == [[1, 2], [1]]
        assert len(index.boxes) == 0


def test_class_columns_list_the_classes_even_unused_ones(tmp_path: Path) -> None:
    index = read_split(tags("file,dog,cow,cat\na.png,0,0,1\nb.png,1,0,0\n")(tmp_path), "train")
    assert index.class_names == ("dog", "cow", "cat")
    assert index.tags_of(0).tolist() == [3]


def test_a_column_cuts_the_splits_and_classes_are_those_of_all(tmp_path: Path) -> None:
    folder = tags("file,tags,split\na.png,dog,train\nb.png,cat,valid\n")(tmp_path)
    assert list(find_splits(folder)) == ["train", "val"]
    val = read_split(folder, "val")
    assert list(val.file_names) == ["b.png"]
    assert val.class_names == read_split(folder, "train").class_names == ("cat", "dog")


def test_a_file_for_each_split(tmp_path: Path) -> None:
    files = {"val.csv": "file,tags\nv.png,emu\n"}
    folder = tags("file,tags\na.png,cat\n", files)(tmp_path)
    save_image(folder / "images" / "val" / "v.png")
    assert list(find_splits(folder)) == ["train", "val"]
    val = read_split(folder, "val")
    assert val.image_path(0) == folder / "images" / "val" / "v.png"
    assert val.class_names == ("cat", "emu")


def test_roboflows_class_files(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        put(tmp_path / split, {"_classes.csv": "filename, cat, dog\na.png, 0, 1\n"})
        save_image(tmp_path / split / "a.png")
    index = read_split(tmp_path, "val")
    assert index.class_names == ("cat", "dog")
    assert index.image_path(0) == tmp_path / "valid" / "a.png"
    assert index.tags_of(0).tolist() == [2]


@pytest.mark.parametrize("split", ["", "train"])
def test_a_folder_for_each_class(tmp_path: Path, split: str) -> None:
    for name in ("dog/a1.png", "cat/b2.png", "cat/c3.png"):
        save_image(tmp_path / split / name)
    assert detect_format(tmp_path) == "tags"
    index = read_split(tmp_path, "train")
    assert index.class_names == ("cat", "dog")
    assert list(index.file_names) == ["cat/b2.png", "cat/c3.png", "dog/a1.png"]
    assert [index.tags_of(i).tolist() for i in range(3)] == [[1], [1], [2]]
    assert index.image_ids.tolist() == [2, 3, 1]


def test_kept_classes_leave_the_others_tags_out(tmp_path: Path) -> None:
    index = read_split(tags()(tmp_path), "train", keep_classes=["dog"])
    assert [index.tags_of(i).tolist() for i in range(2)] == [[1], []]
    assert index.tagged.all()
