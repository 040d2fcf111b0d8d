"""The priors of all images as a few flat arrays, and the sweep that makes them: killed at any moment, it goes on.

A sweep over a data set is cut into chunks of images. Each chunk is a file, written whole; processes take chunks in
turn, and whoever comes later, in whatever number, finds what is done. When all are, they become one file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from boxcycle.data.index import offsets_of
from boxcycle.engine.checkpoint import write_atomically

CHUNK = 64  # images of a file while a sweep is under way: what a kill costs at most

Found = tuple[Tensor, Tensor, int, int, float]  # boxes [N, 4], scores [N], regions, instances, density of the graph


@dataclass(frozen=True, eq=False)
class Priors:
    """The priors of I images, N over all of them: 20 bytes a prior and 16 an image.

    Boxes are xyxy as parts of the un-augmented image. ``fingerprint`` says what the priors were made with.
    """

    fingerprint: str
    offsets: NDArray[np.int64]  # [I + 1] priors of image i are offsets[i]:offsets[i + 1]
    boxes: NDArray[np.float32]  # [N, 4]
    scores: NDArray[np.float32]  # [N]
    found: NDArray[np.uint16]  # [I, 2] region and instance priors that this update found
    density: NDArray[np.float32]  # [I] part of the token pairs that are alike; NaN: no map, tokens form no two groups

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, image: int) -> tuple[Tensor, Tensor]:
        """Boxes [K, 4] and scores [K] of image number ``image``."""
        rows = slice(int(self.offsets[image]), int(self.offsets[image + 1]))
        return torch.from_numpy(self.boxes[rows].copy()), torch.from_numpy(self.scores[rows].copy())

    def describe(self) -> str:
        """One line on what was found."""
        regions, instances = self.found.mean(0) if len(self) else (0.0, 0.0)
        flat = float(np.isnan(self.density).mean()) if len(self) else 0.0
        return (
            f"{len(self.boxes) / max(len(self), 1):.1f} priors an image, from {regions:.1f} regions and "
            f"{instances:.1f} instances; {flat:.0%} of the images without a map"
        )


def collect(images: Iterable[Found], fingerprint: str) -> Priors:
    """The results of images, in order, as arrays."""
    boxes, scores, found, density = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)], [], []
    for box, score, regions, instances, alike in images:
        boxes.append(box.float().numpy())
        scores.append(score.float().numpy())
        found.append((regions, instances))
        density.append(alike)
    return Priors(
        fingerprint,
        offsets_of([len(one) for one in scores[1:]]),
        np.concatenate(boxes),
        np.concatenate(scores),
        np.array(found, dtype=np.uint16).reshape(-1, 2),
        np.array(density, dtype=np.float32),
    )


def joined(parts: list[Priors]) -> Priors:
    """The priors of several runs of images as one, in order."""
    counts = np.concatenate([np.diff(part.offsets) for part in parts])
    columns = {
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Priors)
        if field.name not in ("fingerprint", "offsets")
    }
    return Priors(parts[0].fingerprint, offsets_of(counts), **columns)


def save_priors(path: Path, priors: Priors) -> None:
    """Write the arrays as one .npz file, atomically."""

    def write(file: Path) -> None:
        with file.open("wb") as stream:
            columns: dict[str, Any] = {field.name: np.asarray(getattr(priors, field.name)) for field in fields(Priors)}
            np.savez(stream, **columns)

    write_atomically(path, write)


def load_priors(path: Path) -> Priors:
    """Read what :func:`save_priors` wrote. Raises ``ValueError`` if the file is absent, damaged or of another kind."""
    try:
        with np.load(path, allow_pickle=False) as content:
            columns = {field.name: content[field.name] for field in fields(Priors)}
    except FileNotFoundError:
        raise ValueError(f"no priors at {path}") from None
    except (ValueError, KeyError, OSError, EOFError, BadZipFile) as error:
        raise ValueError(f"{path} is no file of priors, or damaged: {' '.join(str(error).split())}") from None
    return Priors(**columns | {"fingerprint": str(columns["fingerprint"])})


def sweep(
    file: Path,
    fingerprint: str,
    count: int,
    find: Callable[[int], Found],
    *,
    rank: int = 0,
    world_size: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> Priors:
    """The priors of ``count`` images in ``file``: read, if they are there, else found, image by image.

    ``find(i)`` may depend on the image and on what ``fingerprint`` stands for alone, so that any number of processes
    give the same priors, and a sweep goes on where another was killed. All processes must call this; ``wait`` returns
    when all have called it.
    """
    if not _is_of(file, fingerprint):
        folder = file.with_suffix("")
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
        wait()
        chunks = [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]
        for chunk in _missing(folder, fingerprint, chunks[rank::world_size]):
            save_priors(_chunk_file(folder, chunk), collect(map(find, chunk), fingerprint))
        wait()
        if rank == 0:
            save_priors(file, joined([load_priors(_chunk_file(folder, chunk)) for chunk in chunks]))
            shutil.rmtree(folder)
    wait()
    return load_priors(file)


def _missing(folder: Path, fingerprint: str, chunks: list[range]) -> Iterator[range]:
    return (chunk for chunk in chunks if not _is_of(_chunk_file(folder, chunk), fingerprint))


def _chunk_file(folder: Path, chunk: range) -> Path:
    return folder / f"{chunk.start}-{chunk.stop}.npz"


def _is_of(file: Path, fingerprint: str) -> bool:
    return file.is_file() and load_priors(file).fingerprint == fingerprint
