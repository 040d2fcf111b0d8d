"""The stream of training batches: one seeded permutation of the images after another, cut into steps.

Position p of the stream is image ``permutation(seed, epoch)[p mod I]``, with a seed of its own drawn from (seed, p).
Steps, ranks and workers only cut the stream: a run gives the same samples however many processes share it and wherever
it was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from boxcycle.data.check import DataError
from boxcycle.data.dataset import DetectionDataset, SampleKey
from boxcycle.types import Target

Batch = tuple[list[Tensor], list[Target]]


def make_loader(
    dataset: DetectionDataset,
    *,
    batch_size: int,
    steps: int,
    seed: int,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> Iterable[Batch]:
    """The batches of the steps ``start_step`` to ``steps`` - 1, each as (images, targets), this rank's share of them.

    ``batch_size`` is the number of images of one step over all ranks; the ranks' shares, one after another, are the
    batch of a single process. Where gradients are accumulated, a step of the loader is one micro-batch. A set smaller
    than a batch comes round within it. Raises :class:`DataError` for an empty set, and that of a bad image unchanged,
    also from a worker.
    """
    if not len(dataset):
        raise DataError(f"the data set in {dataset.index.root} has no images to train on")
    if batch_size < 1 or batch_size % world_size:
        raise ValueError(f"batch_size must be a positive multiple of the {world_size} processes; got {batch_size}")
    stream = ImageStream(len(dataset), seed)
    share = batch_size // world_size
    starts = range(start_step * batch_size + rank * share, steps * batch_size, batch_size)
    loader = DataLoader(
        _ErrorsAsSamples(dataset),
        batch_sampler=([stream[position] for position in range(start, start + share)] for start in starts),
        collate_fn=list,
        num_workers=workers,
        generator=torch.Generator(),  # of its own: the loader must not move torch's global random state
    )
    return _batches(loader)


class ImageStream:
    """The endless sequence of sample keys over ``length`` images."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed = length, seed
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def __getitem__(self, position: int) -> SampleKey:
        epoch, offset = divmod(position, self.length)
        sample_seed = np.random.SeedSequence((self.seed, position)).generate_state(1)[0]
        return SampleKey(int(self._permutation(epoch)[offset]), int(sample_seed))

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.length)


class _ErrorsAsSamples(Dataset[tuple[Tensor, Target] | Exception]):
    """Hands a sample's error over as a value: raised in a worker, it would reach the user inside a traceback."""

    def __init__(self, dataset: DetectionDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, Target] | Exception:
        try:
            return self.dataset[key]
        except DataError as error:
            return error


def _batches(loader: DataLoader) -> Iterator[Batch]:
    for samples in loader:
        for sample in samples:
            if isinstance(sample, Exception):
                raise sample
        yield [image for image, _ in samples], [target for _, target in samples]
