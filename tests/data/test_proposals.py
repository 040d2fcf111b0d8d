"""Proposals: what a search gives, what is kept, and files that others published."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxcycle.data import proposals
from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.proposals import ProposalConfig, find_proposals, open_proposals, tidy
from boxcycle.data.read import read_split

pytest.importorskip("cv2")


def scene(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A bright and a dark rectangle on a noisy ground."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 110, (*size, 3)).astype(np.uint8)
    pixels[10:30, 20:50] = (230, 40, 40)
    pixels[35:55, 5:25] = (20, 30, 120)
    return pixels


def iou(box: list[float], boxes: np.ndarray) -> np.ndarray:
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.clip(high - low, 0, None).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shared / (areas + (box[2] - box[0]) * (box[3] - box[1]) - shared)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A data set of tags: three photos, one of them twice."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, seed in (("a", 1), ("b", 2), ("c", 3), ("d", 3)):
        Image.fromarray(scene(seed)).save(folder / f"{name}.png")
    rows = "\n".join(f"{name}.png,red" for name in "abcd")
    (folder / "train.csv").write_text(f"file,tags\n{rows}\n", encoding="utf-8")
    return folder


def index_of(folder: Path) -> Index:
    return read_split(folder, "train")


@pytest.mark.parametrize("method", ["fast", "quality", "edge_boxes"])
def test_a_search_finds_the_rectangles_and_the_whole(method: str) -> None:
    found = find_proposals(scene(0), ProposalConfig(method=method))
    assert found.dtype == np.float32
    assert found[0].tolist() == [0, 0, 80, 60]
    for box in ([20, 10, 50, 30], [5, 35, 25, 55]):
        assert iou(box, found).max() > (0.5 if method == "edge_boxes" else 0.7)


@pytest.mark.parametrize("method", ["fast", "edge_boxes"])
def test_the_same_image_has_the_same_boxes_in_the_same_order(method: str) -> None:
    config = ProposalConfig(method=method)
    first, again = (find_proposals(scene(4), config) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_large_image_is_searched_smaller_and_answers_in_its_own_pixels() -> None:
    large = np.asarray(Image.fromarray(scene(0)).resize((640, 480), Image.Resampling.NEAREST))
    found = find_proposals(large, ProposalConfig(pixels=80))
    assert found[0].tolist() == [0, 0, 640, 480]
    assert iou([160, 80, 400, 240], found).max() > 0.7


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (8, 8), (40, 3)])
@pytest.mark.parametrize("method", ["fast", "edge_boxes"])
def test_tiny_images_have_at_least_their_whole(method: str, size: tuple[int, int]) -> None:
    found = find_proposals(np.full((*size, 3), 77, dtype=np.uint8), ProposalConfig(method=method))
    assert found[0].tolist() == [0, 0, size[1], size[0]]
    assert np.isfinite(found).all()


def test_a_failing_search_leaves_the_whole_image(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    def fail() -> None:
        raise cv2.error("(-215:Assertion failed)")

    monkeypatch.setattr(cv2.ximgproc.segmentation, "createSelectiveSearchSegmentation", fail)
    assert find_proposals(scene(0), ProposalConfig()).tolist() == [[0, 0, 80, 60]]


def test_tidy_by_hand() -> None:
    boxes = [[5, 5, 25, 25], [-3, 2, 40, 300], [5, 5, 25, 25], [0, 0, 100, 50], [7, 7, 8, 30], [9, 9, 9, 9]]
    config = ProposalConfig(min_side=0.05)
    found = tidy(np.array(boxes), (50, 100), config)
    assert found.tolist() == [[0, 0, 100, 50], [0, 2, 40, 50], [5, 5, 25, 25]]
    assert tidy(np.array(boxes)[::-1], (50, 100), config).tolist() == found.tolist()
    assert tidy(np.zeros((0, 4)), (50, 100), config).tolist() == [[0, 0, 100, 50]]


def test_too_many_keep_all_sizes_or_the_best() -> None:
    boxes = np.array([[0, 0, side, side] for side in range(10, 50)])
    found = tidy(boxes, (50, 50), ProposalConfig(limit=5))
    assert len(found) == 5
    assert found[1:, 2].tolist() == [49, 39, 29, 19]
    best = tidy(boxes, (50, 50), ProposalConfig(limit=5), ranked=True)
    assert sorted(best[1:, 2].tolist()) == [10, 11, 12, 13]


def test_what_was_found_is_kept_and_the_rest_is_searched(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ProposalConfig(cache=photos.parent / "cache", workers=0)
    searched: list[int] = []
    search = proposals.find_proposals
    monkeypatch.setattr(proposals, "find_proposals", lambda *given: searched.append(1) or search(*given))
    first = open_proposals(index_of(photos), config)
    assert len(searched) == 3  # two of the four are one picture
    next(iter((photos.parent / "cache").rglob("*.npy"))).unlink()
    again = open_proposals(index_of(photos), config)
    assert len(searched) == 4
    assert len(first) == len(again) == 4
    for one, two, name in zip(first, again, "abcd", strict=True):
        assert np.array_equal(one, two)
        pixels = np.asarray(Image.open(photos / f"{name}.png"))
        assert np.array_equal(one, search(pixels, config))


def test_the_cache_survives_a_kill(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found before is kept, and a file that was being written is not taken for one."""
    config = ProposalConfig(cache=photos.parent / "cache", workers=0)
    whole = [boxes.copy() for boxes in open_proposals(index_of(photos), config)]
    files = sorted((photos.parent / "cache").rglob("*.npy"))
    half = files[0].read_bytes()[:40]
    for file in files:
        file.unlink()
    searched: list[int] = []
    search = proposals.find_proposals

    def stopped(*given: Any) -> Any:
        searched.append(1)
        if len(searched) == 2:
            raise KeyboardInterrupt
        return search(*given)

    monkeypatch.setattr(proposals, "find_proposals", stopped)
    with pytest.raises(KeyboardInterrupt):
        open_proposals(index_of(photos), config)
    [kept] = (photos.parent / "cache").rglob("*.npy")
    lost = next(file for file in files if file != kept)
    lost.with_suffix(".1.partial").write_bytes(half)  # a process that was killed while it wrote
    again = open_proposals(index_of(photos), config)
    assert len(searched) == 2 + 2
    for one, two in zip(whole, again, strict=True):
        assert np.array_equal(one, two)


def test_other_settings_have_other_files(photos: Path) -> None:
    cache = photos.parent / "cache"
    many = open_proposals(index_of(photos), ProposalConfig(cache=cache, workers=0))
    few = open_proposals(index_of(photos), ProposalConfig(cache=cache, workers=0, limit=3))
    assert len(few[0]) == 3 < len(many[0])


@pytest.mark.slow
def test_processes_find_what_one_finds(photos: Path) -> None:
    one = open_proposals(index_of(photos), ProposalConfig(cache=photos.parent / "one", workers=0))
    two = open_proposals(index_of(photos), ProposalConfig(cache=photos.parent / "two", workers=1))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_an_image_that_cannot_be_read_is_named(photos: Path) -> None:
    index = index_of(photos)
    (photos / "b.png").write_bytes((photos / "b.png").read_bytes()[:200])
    with pytest.raises(DataError, match=r"b\.png cannot be read"):
        open_proposals(index, ProposalConfig(cache=photos.parent / "cache", workers=0))
    (photos / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png does not exist"):
        open_proposals(index, ProposalConfig(cache=photos.parent / "cache", workers=0))


def test_a_missing_package_is_answered_with_the_command(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ValueError, match=r"pip install 'boxcycle\[proposals\]'"):
        open_proposals(index_of(photos), ProposalConfig(cache=photos.parent / "cache"))


# --- published files


def save_mat(file: Path, **variables: Any) -> Path:
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(file, variables)
    return file


def cells(values: list[Any]) -> np.ndarray:
    column = np.empty((1, len(values)), dtype=object)
    column[0, :] = values
    return column


def test_one_file_for_a_split(photos: Path) -> None:
    rows = [np.array([[1.0, 1, 60, 80], [11, 21, 30, 50]]) + 0 * i for i in range(4)]
    names = [np.array([name]) for name in ("d", "c", "b", "a")]
    file = save_mat(photos.parent / "ss.mat", boxes=cells(rows), images=cells(names))
    found = open_proposals(index_of(photos), ProposalConfig(method="file", file=file))
    assert [its.tolist() for its in found] == [[[0, 0, 80, 60], [20, 10, 50, 30]]] * 4


def test_a_file_for_each_image_and_the_best_first(photos: Path) -> None:
    folder = photos.parent / "mcg"
    folder.mkdir()
    for name in "abcd":
        save_mat(
            folder / f"{name}.mat", boxes=np.array([[1.0, 1, 9, 9], [11, 21, 30, 50]]), scores=np.array([0.1, 0.9])
        )
    config = ProposalConfig(method="file", file=folder, limit=2)
    assert open_proposals(index_of(photos), config)[2].tolist() == [[0, 0, 80, 60], [20, 10, 50, 30]]
    (folder / "c.mat").unlink()
    with pytest.raises(DataError, match=r"no proposals for image 'c' \(1 of 4 lack them\)"):
        open_proposals(index_of(photos), config)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"bboxes": np.ones((2, 4))}, "must have the cells 'boxes' and 'images'; it has bboxes"),
        ({"boxes": cells([np.ones((2, 4))]), "images": cells(["a", "b"])}, "2 images but boxes of 1"),
        (
            {"boxes": cells([np.ones((2, 5))] * 4), "images": cells(list("abcd"))},
            r"rows of four numbers; got shape \(2, 5\)",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(photos: Path, variables: dict[str, Any], sentence: str) -> None:
    file = save_mat(photos.parent / "wrong.mat", **variables)
    with pytest.raises(DataError, match=sentence):
        open_proposals(index_of(photos), ProposalConfig(method="file", file=file))


def test_no_matlab_file_at_all(photos: Path) -> None:
    file = photos.parent / "text.mat"
    file.write_text("boxes", encoding="utf-8")
    with pytest.raises(DataError, match="is no MATLAB file that can be read"):
        open_proposals(index_of(photos), ProposalConfig(method="file", file=file))
    with pytest.raises(DataError, match="do not exist"):
        open_proposals(index_of(photos), ProposalConfig(method="file", file=file.with_name("none.mat")))


def test_a_file_and_a_search_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="method=file needs file="):
        ProposalConfig(method="file")
    with pytest.raises(ValueError, match="no other method takes one"):
        ProposalConfig(file=Path("ss.mat"))
