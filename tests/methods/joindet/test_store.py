"""The priors store: killed at any point it goes on, and any number of processes give the same priors."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from boxcycle.methods.joindet import store
from boxcycle.methods.joindet.store import Found, Priors, collect, joined, load_priors, save_priors, sweep

COUNT = 11


class Killed(BaseException):
    """What no handler catches."""


def find(image: int) -> Found:
    """Image i has i mod 4 priors."""
    generator = torch.Generator().manual_seed(image)
    count = image % 4
    density = float("nan") if image == 3 else 0.1 * image
    return torch.rand(count, 4, generator=generator), torch.rand(count, generator=generator), count, image % 2, density


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "CHUNK", 3)


def assert_equal(one: Priors, other: Priors) -> None:
    assert one.fingerprint == other.fingerprint
    for name in ("offsets", "boxes", "scores", "found", "density"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    priors = collect(map(find, range(COUNT)), "weights of step 7")
    save_priors(tmp_path / "0.npz", priors)
    again = load_priors(tmp_path / "0.npz")
    assert_equal(priors, again)
    assert len(again) == COUNT
    for image in range(COUNT):
        boxes, scores = again.of(image)
        assert boxes.equal(find(image)[0])
        assert scores.equal(find(image)[1])
    assert [path.name for path in tmp_path.iterdir()] == ["0.npz"]


def test_parts_in_order_are_the_whole() -> None:
    whole = collect(map(find, range(COUNT)), "f")
    assert_equal(joined([collect(map(find, part), "f") for part in (range(4), range(4, 4), range(4, COUNT))]), whole)


def test_a_sweep_is_done_once(tmp_path: Path) -> None:
    looked: list[int] = []

    def look(image: int) -> Found:
        looked.append(image)
        return find(image)

    one = sweep(tmp_path / "1.npz", "f", COUNT, look)
    assert_equal(one, collect(map(find, range(COUNT)), "f"))
    assert_equal(sweep(tmp_path / "1.npz", "f", COUNT, look), one)
    assert looked == list(range(COUNT))
    sweep(tmp_path / "1.npz", "other weights", COUNT, look)
    assert looked == 2 * list(range(COUNT))


@pytest.mark.parametrize("moment", range(COUNT))
def test_killed_at_any_image_it_goes_on_to_the_same(tmp_path: Path, moment: int) -> None:
    def die(image: int) -> Found:
        if image == moment:
            raise Killed
        return find(image)

    with pytest.raises(Killed):
        sweep(tmp_path / "1.npz", "f", COUNT, die)
    looked: list[int] = []

    def look(image: int) -> Found:
        looked.append(image)
        return find(image)

    assert_equal(sweep(tmp_path / "1.npz", "f", COUNT, look), collect(map(find, range(COUNT)), "f"))
    assert looked == list(range(moment - moment % 3, COUNT)), "whole chunks are kept"


@pytest.mark.parametrize("write", range(5))
def test_killed_at_any_write_it_goes_on_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    """Half of the file is there, not yet in its place; the fifth write is that of the whole."""
    count, whole = 0, np.savez

    def die(stream: object, **columns: object) -> None:
        nonlocal count
        count += 1
        if count == write + 1:
            stream.write(b"PK\x03\x04 half")  # type: ignore[attr-defined]
            raise Killed
        whole(stream, **columns)  # type: ignore[arg-type]

    with monkeypatch.context() as context:
        context.setattr(np, "savez", die)
        with pytest.raises(Killed):
            sweep(tmp_path / "1.npz", "f", COUNT, find)
    assert not (tmp_path / "1.npz").exists()
    assert_equal(sweep(tmp_path / "1.npz", "f", COUNT, find), collect(map(find, range(COUNT)), "f"))


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_the_images_and_each_reads_all(tmp_path: Path, processes: int) -> None:
    meeting, found, looked = threading.Barrier(processes), {}, []

    def look(image: int) -> Found:
        looked.append(image)
        return find(image)

    def work(rank: int) -> None:
        found[rank] = sweep(tmp_path / "1.npz", "f", COUNT, look, rank=rank, world_size=processes, wait=meeting.wait)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(processes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(looked) == list(range(COUNT))
    for rank in range(processes):
        assert_equal(found[rank], collect(map(find, range(COUNT)), "f"))


def test_more_processes_go_on_where_one_was_killed(tmp_path: Path) -> None:
    def die(image: int) -> Found:
        if image == 7:
            raise Killed
        return find(image)

    with pytest.raises(Killed):
        sweep(tmp_path / "1.npz", "f", COUNT, die)
    test_processes = threading.Barrier(2)
    looked: list[int] = []

    def work(rank: int) -> None:
        sweep(
            tmp_path / "1.npz",
            "f",
            COUNT,
            lambda image: looked.append(image) or find(image),  # type: ignore[func-returns-value]
            rank=rank,
            world_size=2,
            wait=test_processes.wait,
        )

    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(looked) == list(range(6, COUNT))
    assert_equal(load_priors(tmp_path / "1.npz"), collect(map(find, range(COUNT)), "f"))


def test_a_damaged_or_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no priors at .*0\.npz"):
        load_priors(tmp_path / "0.npz")
    (tmp_path / "0.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match="is no file of priors, or damaged"):
        load_priors(tmp_path / "0.npz")
    np.savez(tmp_path / "1.npz", boxes=np.zeros((0, 4)))
    with pytest.raises(ValueError, match="is no file of priors"):
        load_priors(tmp_path / "1.npz")


def test_a_prior_takes_20_bytes_and_an_image_16() -> None:
    priors = collect(map(find, range(COUNT)), "f")
    arrays = (priors.offsets, priors.boxes, priors.scores, priors.found, priors.density)
    assert sum(array.nbytes for array in arrays) == 20 * len(priors.boxes) + 16 * COUNT + 8


def test_what_was_found_in_one_line() -> None:
    line = collect(map(find, range(4)), "f").describe()
    assert line == "1.5 priors an image, from 1.5 regions and 0.5 instances; 25% of the images without a map"
