from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from boxcycle.config import load_config
from boxcycle.data import coco
from boxcycle.data.check import DataError
from boxcycle.data.index import Index
from boxcycle.data.splits import SplitConfig, budget, read_budget, run_split, write_budget

ABOUT = {"source": "photos", "split": "train", "unit": "images", "amount": 0.1, "seed": 0}


@pytest.fixture
def index(make_index: Callable[..., Index]) -> Index:
    """120 images: class 1 in most, class 2 in a third, class 3 in four of them; every tenth is empty."""
    rng = np.random.default_rng(0)
    boxes = []
    for image in range(120):
        labels = [1] * int(rng.integers(1, 4)) + [2] * (image % 3 == 0) + [3] * (image % 30 == 7)
        boxes.append([] if image % 10 == 9 else [(i, i, i + 10, i + 10, label) for i, label in enumerate(labels)])
    return make_index(boxes, files=False)


def classes(index: Index, positions: np.ndarray) -> set[int]:
    return set(index.subset(positions).labels.tolist())


@pytest.mark.parametrize(("amount", "expected"), [(0.05, 6), (0.1, 12), (1.0, 120), (7, 7), (0.5, 60)])
def test_budget_of_images(index: Index, amount: float, expected: int) -> None:
    chosen = budget(index, unit="images", amount=amount, seed=0)
    assert len(chosen) == len(set(chosen)) == expected
    assert chosen.tolist() == sorted(chosen)
    assert classes(index, chosen) == {1, 2, 3}


def test_budget_of_boxes_takes_whole_images_until_reached(index: Index) -> None:
    per_image = np.diff(index.box_offsets)
    for amount, target in ((20, 20), (0.25, round(0.25 * len(index.boxes)))):
        chosen = budget(index, unit="boxes", amount=amount, seed=1)
        assert target <= per_image[chosen].sum() < target + per_image.max()
        assert classes(index, chosen) == {1, 2, 3}


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_budget_of_shots(index: Index, shots: int) -> None:
    chosen = budget(index, unit="shots", amount=shots, seed=0)
    labels = index.subset(chosen).labels
    assert all((labels == label).sum() >= shots for label in (1, 2, 3))
    assert len(chosen) <= 3 * shots


def test_crowds_are_no_shots(index: Index) -> None:
    crowded = replace(index, iscrowd=index.labels == 3)
    with pytest.raises(DataError, match="class 'class3' has 0 boxes"):
        budget(crowded, unit="shots", amount=1, seed=0)


@pytest.mark.parametrize(
    ("unit", "amounts"), [("images", (0.05, 0.1, 0.3)), ("boxes", (20, 40, 90)), ("shots", (1, 2, 3))]
)
def test_larger_budgets_contain_smaller_ones(index: Index, unit: str, amounts: tuple[float, ...]) -> None:
    for seed in range(5):
        small, middle, large = (set(budget(index, unit=unit, amount=a, seed=seed)) for a in amounts)  # type: ignore[arg-type]
        assert small <= middle <= large


def test_seeds_differ_and_repeat(index: Index) -> None:
    one, other, again = (set(budget(index, unit="images", amount=20, seed=seed)) for seed in (0, 1, 0))
    assert one == again != other


def test_proportions_are_kept(index: Index) -> None:
    """Class 2 is in a third of the images, and in a third of a budget."""
    for seed in range(5):
        chosen = budget(index, unit="images", amount=0.25, seed=seed)
        with_two = sum(2 in index.labels[index.boxes_of(image)] for image in chosen)
        everywhere = sum(2 in index.labels[index.boxes_of(image)] for image in range(120))
        assert abs(with_two - everywhere / 4) <= 1.5


def test_budget_too_small_for_all_classes(make_index: Callable[..., Index]) -> None:
    apart = make_index([[(0, 0, 9, 9, 1)], [(0, 0, 9, 9, 2)], [(0, 0, 9, 9, 3)], []], files=False)
    with pytest.raises(DataError, match=r"2 images .* all 3 classes.* smallest that can is 3 images \(75 % of 4\)"):
        budget(apart, unit="images", amount=2, seed=0)
    assert budget(apart, unit="images", amount=3, seed=0).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"smallest that can is 3 boxes \(100 % of 3\)"):
        budget(apart, unit="boxes", amount=0.5, seed=0)


def test_class_without_boxes_is_not_asked_for(make_index: Callable[..., Index]) -> None:
    """Class 3 is in the list of classes, but nowhere in the split."""
    index = make_index([[(0, 0, 9, 9, 1)], [(0, 0, 9, 9, 2)]], files=False)
    assert len(budget(index, unit="images", amount=2, seed=0)) == 2
    assert len(budget(index, unit="shots", amount=1, seed=0)) == 2


def test_only_annotated_images_are_drawn(index: Index) -> None:
    half = replace(index, annotated=np.arange(120) < 60)
    chosen = budget(half, unit="images", amount=0.5, seed=0)
    assert len(chosen) == 30
    assert chosen.max() < 60
    with pytest.raises(DataError, match="no annotated images"):
        budget(replace(index, annotated=np.zeros(120, dtype=bool)), unit="images", amount=1, seed=0)


@pytest.mark.parametrize(
    ("unit", "amount", "message"),
    [
        ("images", 0, "between 1 and the 120"),
        ("images", 121, "between 1 and the 120"),
        ("images", 1.5, "at most at 1"),
        ("boxes", -0.1, "above 0"),
        ("shots", 0.1, "whole number"),
        ("shots", 5, "class 'class3' has 4 boxes"),
    ],
)
def test_impossible_amounts(index: Index, unit: str, amount: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        budget(index, unit=unit, amount=amount, seed=0)  # type: ignore[arg-type]


def test_written_budget_reads_back(index: Index, tmp_path: Path) -> None:
    file, chosen = tmp_path / "b" / "one.json", np.array([3, 70, 11])
    write_budget(file, index, chosen, **ABOUT)  # type: ignore[arg-type]
    assert read_budget(file, index).tolist() == [3, 11, 70]
    record = json.loads(file.read_text())
    assert {key: record[key] for key in ABOUT} == ABOUT
    assert record["labelled"] == ["0003.png", "0011.png", "0070.png"]
    assert len(record["unlabelled"]) == 117
    assert [f.name for f in file.parent.iterdir()] == ["one.json"]
    write_budget(file, index, chosen, **ABOUT)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="other content"):
        write_budget(file, index, chosen[:2], **ABOUT)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            '{"labelled": ["0001.png", "gone.png", "lost.png"]}',
            r"'gone\.png' and 1 more, which the split .* does not have",
        ),
        ('{"labelled": ["0001.png", "0001.png"]}', "more than once"),
        ('{"labelled": []}', "must have a list 'labelled'"),
        ('{"labelled": [3]}', "must have a list 'labelled'"),
        ("[]", "must have a list 'labelled'"),
        ("{", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_bad_budget_files(index: Index, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_budget(tmp_path / "bad.json", index)
    with pytest.raises(DataError, match="does not exist"):
        read_budget(tmp_path / "absent.json", index)


def test_run_split_from_files(make_index: Callable[..., Index], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    index = make_index([[(1, 1, 20, 20, 1 + i % 3)] for i in range(40)])
    photos = tmp_path / "photos"
    (photos / "images" / "train").mkdir(parents=True)
    for name in index.file_names:
        (index.root / name).rename(photos / "images" / "train" / name)
    coco.write(index, photos, "train")
    settings = [f"data={photos}", f"destination={tmp_path / 'budgets'}", "amounts=[10%, 20]", "seeds=[0, 1]"]
    files = run_split(load_config(SplitConfig, overrides=settings))
    names = [f"train.images-{amount}.seed{seed}.json" for seed in (0, 1) for amount in ("10pct", "20")]
    assert [file.name for file in files] == names
    assert [len(read_budget(file, index)) for file in files] == [4, 20, 4, 20]
    assert "4 of 40 images, 4 boxes, 1 of the rarest class" in capsys.readouterr().out
    assert run_split(load_config(SplitConfig, overrides=settings)) == files


def test_amounts_as_typed() -> None:
    def amounts(text: str) -> tuple[float, ...]:
        return load_config(SplitConfig, overrides=["data=x", f"amounts={text}"]).amounts

    assert amounts("0.1") == (0.1,)
    assert amounts("5%") == (0.05,)
    assert amounts("10") == (10,)
    assert isinstance(amounts("10")[0], int)
    with pytest.raises(ValueError, match="percentage"):
        amounts("ten%")
