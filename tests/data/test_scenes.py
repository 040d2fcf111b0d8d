from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxcycle.data.masks import decode
from boxcycle.data.read import read_split
from boxcycle.data.scenes import CLASS_NAMES, SceneConfig, boxes_of_masks, draw_scene, make_scenes
from boxcycle.data.scenes_brush import Brush
from boxcycle.data.scenes_layout import THINGS, Item, Layout, lay_out
from boxcycle.data.scenes_places import PLACES, QUAY
from boxcycle.data.scenes_render import Patch, Rendered, draw_patch, draw_weather, seen

SMALL = SceneConfig(size=96)


@pytest.fixture(scope="module")
def scenes() -> list[Rendered]:
    return [draw_scene(SMALL, "train", number) for number in range(300)]


def patch(left: int, top: int, side: int, role: str = "object") -> Patch:
    """A full square."""
    item = Item("ball", left, top + side, side, 1.0, 0.0, False, True, float(top), role)  # type: ignore[arg-type]
    return Patch(item, left, top, np.zeros((side, side, 3), np.float32), np.ones((side, side), np.float32))


def test_same_seed_same_picture() -> None:
    one, again = (draw_scene(SMALL, "train", 3) for _ in range(2))
    assert np.array_equal(one.pixels, again.pixels)
    assert np.array_equal(one.masks, again.masks)
    assert one.names == again.names
    for other in (SceneConfig(size=96, seed=1), SceneConfig(size=96, difficulty="hard")):
        assert draw_scene(other, "train", 3).names != one.names
    assert draw_scene(SMALL, "val", 3).names != one.names


def test_two_to_ten_objects_with_disjoint_visible_masks(scenes: list[Rendered]) -> None:
    for scene in scenes:
        assert 2 <= len(scene.names) - sum(scene.crowds) <= 10
        assert len(scene.names) == len(scene.masks) == len(scene.crowds)
        assert scene.masks.sum(axis=0).max() <= 1
        assert scene.pixels.dtype == np.uint8
        assert max(scene.pixels.shape) == 96
        boxes = boxes_of_masks(scene.masks)
        sides = (boxes[:, 2:] - boxes[:, :2])[~np.array(scene.crowds)]
        assert sides.min() >= 4


def test_boxes_fit_masks_tightly(scenes: list[Rendered]) -> None:
    for mask, box in zip(scenes[0].masks, boxes_of_masks(scenes[0].masks).astype(int), strict=True):
        inside = mask[box[1] : box[3], box[0] : box[2]]
        assert inside.sum() == mask.sum()
        assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_every_class_and_some_crowds_occur(scenes: list[Rendered]) -> None:
    names = [name for scene in scenes for name in scene.names]
    assert set(names) == set(CLASS_NAMES)
    assert min(names.count(name) for name in CLASS_NAMES) >= 15
    assert 2 <= sum(any(scene.crowds) for scene in scenes) <= 30


def test_shapes_of_images_differ(scenes: list[Rendered]) -> None:
    shapes = [scene.pixels.shape[:2] for scene in scenes]
    assert (72, 96) in shapes
    assert (96, 72) in shapes


def neighbours(scenes: Sequence[Rendered]) -> tuple[np.ndarray, np.ndarray]:
    """For each object the counts of the other objects' classes in its image [N, K] (and a constant), and its class."""
    features, labels = [], []
    for scene in scenes:
        classes = np.array([CLASS_NAMES.index(name) for name in scene.names])
        counts = np.bincount(classes, minlength=len(CLASS_NAMES))
        for label in classes:
            features.append(np.append(np.minimum(counts - (np.arange(len(CLASS_NAMES)) == label), 1), 1.0))
            labels.append(label)
    return np.array(features), np.array(labels)


def softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_neighbours_tell_the_class(scenes: list[Rendered]) -> None:
    """Objects keep company: logistic regression on the neighbours' classes, fitted on 200 scenes, tried on 100."""
    features, labels = neighbours(scenes[:200])
    wanted = np.eye(len(CLASS_NAMES))[labels]
    weights = np.zeros((features.shape[1], len(CLASS_NAMES)))
    for _ in range(300):
        weights -= features.T @ (softmax(features @ weights) - wanted) / len(labels) * 2 + 1e-3 * weights
    held_out, truth = neighbours(scenes[200:])
    predicted, prior = softmax(held_out @ weights), np.tile(wanted.mean(axis=0), (len(truth), 1))
    accuracy, prior_accuracy = (np.mean(p.argmax(axis=1) == truth) for p in (predicted, prior))
    loss, prior_loss = (-np.mean(np.log(p[np.arange(len(truth)), truth])) for p in (predicted, prior))
    assert accuracy > 2 * prior_accuracy
    assert accuracy > prior_accuracy + 0.15
    assert loss < prior_loss - 0.5


@pytest.mark.parametrize(("one", "other"), [("orange", "ball"), ("mouse", "stone"), ("spoon", "oar"), ("cone", "buoy")])
def test_look_alikes_live_apart(one: str, other: str) -> None:
    """Where the one is usual, the other is rare."""
    for place in PLACES.values():
        rare, usual = sorted(place.company.get(name, 0.0) for name in (one, other))
        assert rare <= 0.2 * usual or usual < 1


def test_things_stand_where_they_can() -> None:
    rng = np.random.default_rng(0)
    layouts = [lay_out(rng, (96, 128), "easy") for _ in range(200)]
    for layout in layouts:
        ground = 96 - layout.top
        for item in layout.items:
            depth = (item.foot - layout.top) / ground
            if layout.place == "harbour" and item.name in ("boat", "buoy"):
                assert depth < QUAY
            if layout.place == "harbour" and item.name in ("oar", "stone", "cone"):
                assert depth > QUAY
        assert [item.order for item in layout.items] == sorted(item.order for item in layout.items)


def test_perspective_scales_with_depth() -> None:
    """Twice as far below the horizon is twice as large."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        layout = lay_out(rng, (120, 160), "hard")
        for item in layout.items:
            metres = item.length * layout.camera / (item.foot - layout.horizon)
            low, high = THINGS[item.name].height
            if item.foot - layout.horizon > 1 and item.order == item.foot:
                assert low * 0.999 <= metres <= high * 1.001


def test_hidden_objects_are_taken_out() -> None:
    far, near = patch(10, 10, 20), patch(15, 10, 20)  # a quarter of the far one, 5 of 20 columns, is seen
    assert [p.left for p in seen([far, near], (60, 60))] == [10, 15]
    assert [p.left for p in seen([far, patch(14, 10, 20)], (60, 60))] == [14]
    assert seen([patch(-16, 10, 20)], (60, 60)) == []  # four columns of twenty are inside the image
    assert len(seen([patch(-14, 10, 20)], (60, 60))) == 1
    assert seen([patch(10, 10, 3)], (60, 60)) == []


def test_clutter_hides_but_stays() -> None:
    assert [p.item.role for p in seen([patch(10, 10, 20), patch(10, 10, 20, "clutter")], (60, 60))] == ["clutter"]


def test_what_is_taken_out_uncovers_the_rest() -> None:
    """The middle one is hidden by the nearest and goes; the farthest, hidden by the middle one alone, stays."""
    farthest, middle, nearest = patch(0, 10, 20), patch(16, 10, 20), patch(18, 10, 40)
    kept = seen([farthest, middle, nearest], (60, 60))
    assert [p.left for p in kept] == [0, 18]


@pytest.mark.parametrize("name", sorted(THINGS))
@pytest.mark.parametrize("length", [3.0, 80.0])
def test_every_thing_can_be_drawn_at_any_size(name: str, length: float) -> None:
    rng = np.random.default_rng(1)
    layout = Layout("meadow", (96, 128), 40.0, 40.0, 1.0, 0.5, ())
    item = Item(name, 50, 80, length, np.mean(THINGS[name].aspect), 0.2, False, not THINGS[name].lying, 80, "object")
    weather = draw_weather(rng, "easy")
    drawn = draw_patch(item, layout, weather, rng)
    assert np.isfinite(drawn.colour).all()
    assert drawn.alpha.max() > 0.5 or length < 10
    turned = draw_patch(replace(item, upright=True, mirrored=True), layout, weather, rng)
    assert abs(turned.top + turned.alpha.shape[0] - 80) <= 1  # what is upright stands on its foot


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_drawings_fill_their_patch(name: str) -> None:
    """Otherwise sizes in metres would mean little."""
    for seed in range(8):
        brush = Brush(round(120 * np.mean(THINGS[name].aspect)), 120)
        THINGS[name].draw(brush, np.random.default_rng(seed))
        left, top, right, bottom = brush.image.getbbox() or (0, 0, 0, 0)
        assert bottom - top >= 0.9 * brush.height
        assert right - left >= 0.6 * brush.width


def test_hard_is_smaller_and_noisier(scenes: list[Rendered]) -> None:
    hard = [draw_scene(SceneConfig(size=96, difficulty="hard"), "train", number) for number in range(100)]

    def typical_area(some: Sequence[Rendered]) -> float:
        return float(np.median([mask.mean() for scene in some for mask in scene.masks]))

    def grain(some: Sequence[Rendered]) -> float:
        return float(np.mean([np.abs(np.diff(scene.pixels[:8].astype(int), axis=1)).mean() for scene in some]))

    assert typical_area(hard) < 0.75 * typical_area(scenes)
    assert grain(hard) > grain(scenes[:100])


def test_written_scenes_read_back(tmp_path: Path) -> None:
    make_scenes(tmp_path / "s", SMALL, {"train": 4, "val": 2})
    for split, count in (("train", 4), ("val", 2)):
        index = read_split(tmp_path / "s", split)
        assert index.class_names == CLASS_NAMES
        assert len(index) == count
        for image in range(count):
            scene, rows = draw_scene(SMALL, split, image), index.boxes_of(image)
            assert np.array_equal(index.boxes[rows], boxes_of_masks(scene.masks))
            assert tuple(index.class_names[label - 1] for label in index.labels[rows]) == scene.names
            assert index.iscrowd[rows].tolist() == list(scene.crowds)
            assert index.areas[rows].tolist() == scene.masks.sum(axis=(1, 2)).tolist()
            masks = [decode(index.segmentations[row], *scene.pixels.shape[:2]) for row in range(rows.start, rows.stop)]
            assert np.array_equal(masks, scene.masks)
            written = np.asarray(Image.open(index.image_path(image))).astype(int)
            assert np.abs(written - scene.pixels).mean() < 8  # JPEG
            assert {index.class_names[k - 1] for k in index.tags_of(image)} == set(scene.names)


def test_written_as_voc(tmp_path: Path) -> None:
    make_scenes(tmp_path / "s", SMALL, {"train": 2, "val": 2}, format="voc")
    index = read_split(tmp_path / "s", "val")
    assert len(index) == 2
    scene = draw_scene(SMALL, "val", 1)
    assert sorted(index.class_names[label - 1] for label in index.labels[index.boxes_of(1)]) == sorted(scene.names)
    assert (tmp_path / "s" / "Annotations" / "train_000000.xml").is_file()


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_larger_set_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small, large = (make_scenes(tmp_path / str(n), SMALL, {"train": n}) / "images" / "train" for n in (2, 4))
    for file in small.iterdir():
        assert file.read_bytes() == (large / file.name).read_bytes()


def test_scenes_that_are_there_are_left_alone(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "s", SMALL, {"train": 2})
    before = contents(folder)
    image = next(file for file in before if file.suffix == ".jpg")
    image.write_bytes(b"touched")  # shows whether it is written again
    make_scenes(folder, SMALL, {"train": 2})
    assert image.read_bytes() == b"touched"
    note = folder / "scenes.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"complete": False}))  # as an interruption leaves it
    make_scenes(folder, SMALL, {"train": 2})
    assert contents(folder) == before


def test_never_writes_over_something_else(tmp_path: Path) -> None:
    folder = make_scenes(tmp_path / "s", SMALL, {"train": 2})
    with pytest.raises(ValueError, match="other scenes"):
        make_scenes(folder, SMALL, {"train": 3})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        make_scenes(tmp_path / "mine", SMALL)


def test_default_splits(tmp_path: Path) -> None:
    make_scenes(tmp_path / "s", SceneConfig(size=64, images=3))
    assert len(read_split(tmp_path / "s", "train")) == 3
    assert len(read_split(tmp_path / "s", "val")) == 1
