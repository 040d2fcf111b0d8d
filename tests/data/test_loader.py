from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from boxcycle.data.check import DataError
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import Batch, ImageStream, make_loader
from boxcycle.data.transforms import ResizeConfig, make_transform

BOXES = [[(1, 2, 20, 30, 1)], [(5, 5, 25, 25, 2), (0, 0, 60, 40, 3)], [], [(30, 10, 50, 20, 1)], [(2, 2, 9, 9, 2)]]


@pytest.fixture
def dataset(make_index: Callable[..., Index]) -> DetectionDataset:
    return DetectionDataset(make_index(BOXES), make_transform(ResizeConfig(short=24, long=40), train=True))


def assert_same(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for (images, targets), (other_images, other_targets) in zip(left, right, strict=True):
        assert [t["seed"] for t in targets] == [t["seed"] for t in other_targets]
        assert [t["image_id"] for t in targets] == [t["image_id"] for t in other_targets]
        assert all(torch.equal(a, b) for a, b in zip(images, other_images, strict=True))
        assert all(torch.equal(a["boxes"], b["boxes"]) for a, b in zip(targets, other_targets, strict=True))


def test_workers_change_nothing(dataset: DetectionDataset) -> None:
    alone = list(make_loader(dataset, batch_size=3, steps=6, seed=1))
    assert_same(alone, list(make_loader(dataset, batch_size=3, steps=6, seed=1, workers=2)))
    assert len(alone) == 6


def test_ranks_share_the_batch_of_one_process(dataset: DetectionDataset) -> None:
    whole = list(make_loader(dataset, batch_size=4, steps=5, seed=1))
    ranks = [list(make_loader(dataset, batch_size=4, steps=5, seed=1, rank=r, world_size=2)) for r in (0, 1)]
    joined = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(*ranks, strict=True)]
    assert all(len(images) == 2 for images, _ in ranks[0])
    assert_same(whole, joined)


def test_resumes_where_it_stopped(dataset: DetectionDataset) -> None:
    whole = list(make_loader(dataset, batch_size=2, steps=9, seed=3))
    assert_same(whole[4:], list(make_loader(dataset, batch_size=2, steps=9, seed=3, start_step=4)))
    assert list(make_loader(dataset, batch_size=2, steps=9, seed=3, start_step=9)) == []


def test_each_epoch_is_a_new_permutation() -> None:
    stream = ImageStream(50, seed=0)
    epochs = [[stream[epoch * 50 + i].image for i in range(50)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [ImageStream(50, seed=1)[i].image for i in range(50)]


def test_every_use_has_its_own_seed() -> None:
    stream = ImageStream(3, seed=0)
    seeds = {stream[position].seed for position in range(1000)}
    assert len(seeds) == 1000
    assert stream[7] == ImageStream(3, seed=0)[7]


def test_an_image_is_seen_both_ways(dataset: DetectionDataset) -> None:
    """The flip is drawn anew for each use of an image, and about half of the uses are flipped."""
    first = [
        t["boxes"][0, 0].item()
        for _, targets in make_loader(dataset, batch_size=5, steps=60, seed=0)
        for t in targets
        if t["image_id"] == 100
    ]
    left, right = min(first), max(first)
    assert left < right
    assert set(first) == {left, right}
    assert 0.3 < first.count(left) / len(first) < 0.7


def test_set_smaller_than_a_batch_comes_round(make_index: Callable[..., Index]) -> None:
    dataset = DetectionDataset(make_index(BOXES[:2]))
    for images, targets in make_loader(dataset, batch_size=4, steps=3, seed=0):
        assert len(images) == 4
        assert sorted(t["image_id"] for t in targets) == [100, 100, 101, 101]


def test_leaves_global_random_state_alone(dataset: DetectionDataset) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    for workers in (0, 1):
        torch.manual_seed(5)
        list(make_loader(dataset, batch_size=2, steps=2, seed=0, workers=workers))
        assert torch.equal(torch.rand(3), expected)


def test_empty_set_is_refused(make_index: Callable[..., Index]) -> None:
    with pytest.raises(DataError, match="no images"):
        make_loader(DetectionDataset(make_index([])), batch_size=1, steps=1, seed=0)


def test_batch_must_divide_over_the_processes(dataset: DetectionDataset) -> None:
    with pytest.raises(ValueError, match="multiple of the 2 processes; got 3"):
        make_loader(dataset, batch_size=3, steps=1, seed=0, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_is_one_sentence(dataset: DetectionDataset, workers: int) -> None:
    dataset.index.image_path(3).write_bytes(b"not an image")
    with pytest.raises(DataError) as error:
        list(make_loader(dataset, batch_size=5, steps=1, seed=0, workers=workers))
    assert "0003.png" in str(error.value)
    assert "\n" not in str(error.value)
