"""The batches of a pretraining: the priors of the images are made when they are due, and are what the images teach."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor

from boxcycle.data.check import DataError
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.jitter import large_scale_jitter
from boxcycle.data.loader import Batch
from boxcycle.data.one_class import with_boxes
from boxcycle.data.proposals import open_proposals
from boxcycle.data.transforms import ResizeConfig, Transform, make_transform
from boxcycle.evaluation.predictions import evaluation_mode
from boxcycle.methods.experiment import batches_of
from boxcycle.methods.joindet.detector import JoinDet
from boxcycle.methods.joindet.labels import random_boxes
from boxcycle.methods.joindet.priors import View, first_view, next_view, search_priors
from boxcycle.methods.joindet.store import Found, Priors, load_priors, sweep
from boxcycle.methods.joindet.viewer import WATCHED, save_view

if TYPE_CHECKING:
    from boxcycle.methods.joindet.train import Pretraining

PRIORS = "priors"  # folder within the run's


class Batches:
    """The batches of a run, which makes its priors when they are due: what ``engine.fit`` calls.

    R_n is of the weights after ``n * every`` steps, and is made before the next one. A run that is resumed finds it in
    its folder, or makes it again from the same weights.
    """

    def __init__(self, run: Pretraining, model: JoinDet) -> None:
        self.run, self.config, self.model, self.index = run, run.config, model, run.train_index
        self.plain = DetectionDataset(self.index, make_transform(run.config.data.resize, train=False))

    def __call__(self, start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        """This process's batches from ``start_step`` on."""
        settings, every = self.config.fit, self.config.priors.every
        [folder] = broadcast_object_list([str(self.run.folder)])
        self.folder, self.rank, self.world_size = Path(folder) / PRIORS, rank, world_size
        step = start_step
        while step < settings.steps:
            number = step // every if every else 0
            end = min((number + 1) * every, settings.steps) if every else settings.steps
            priors = self.priors(number) if step == number * every else load_priors(self.file(number))
            yield from self._load(priors, step, end)
            step = end

    def file(self, number: int) -> Path:
        """Where R_n is."""
        return self.folder / f"{number}.npz"

    def priors(self, number: int) -> Priors:
        """R_n of all images, by the weights as they are."""
        previous = load_priors(self.file(number - 1)) if number else None
        self.folder.mkdir(parents=True, exist_ok=True)
        wait = PartialState().wait_for_everyone
        find = self._first() if previous is None else self._next(previous)
        with evaluation_mode(self.model):
            self._draw(number, previous)
            priors = sweep(
                self.file(number),
                self._fingerprint(previous),
                len(self.index),
                find,
                rank=self.rank,
                world_size=self.world_size,
                wait=wait,
            )
        if self.rank == 0:
            print(f"priors {number}: {priors.describe()}")
        return priors

    def view(self, image: int, previous: Priors | None) -> View:
        """One look at image number ``image``."""
        pixels = self.plain[image][0].to(next(self.model.parameters()).device)
        if previous is None:
            return first_view(self.model.detector, pixels, self.config.priors)
        return next_view(self.model.detector, pixels, previous.of(image), self.config.priors)

    def _draw(self, number: int, previous: Priors | None) -> None:
        """Pictures of the first images; of R_0 only where it comes from a map."""
        if self.rank == 0 and (number or self.config.priors.first == "regions"):
            for image in range(min(WATCHED, len(self.index))):
                save_view(self.folder, self.index, image, number, self.view(image, previous))

    def _first(self) -> Callable[[int], Found]:
        config = self.config.priors
        if config.first == "regions":
            return lambda image: _found(self.view(image, None))
        if config.first == "random":
            return lambda image: _given(random_boxes(config.most, self._generator(image)))
        if self.rank == 0:
            open_proposals(self.index, self.config.proposals)
        PartialState().wait_for_everyone()  # the others find all of them in the cache
        proposals, sizes = open_proposals(self.index, self.config.proposals), self.index.image_sizes

        def search(image: int) -> Found:
            size = (int(sizes[image, 0]), int(sizes[image, 1]))
            return _given(search_priors(proposals[image], size, config.most, self._generator(image)))

        return search

    def _next(self, previous: Priors) -> Callable[[int], Found]:
        return lambda image: _found(self.view(image, previous))

    def _generator(self, image: int) -> torch.Generator:
        seed = np.random.SeedSequence((self.config.fit.seed, image)).generate_state(1)[0]
        return torch.Generator().manual_seed(int(seed))

    def _fingerprint(self, previous: Priors | None) -> str:
        """A text that differs if images, settings, weights or the priors before do."""
        config = self.config
        found = config.proposals.model_dump_json(exclude={"cache", "workers"})
        settings = config.data.resize.model_dump_json() + config.priors.model_dump_json() + found
        digest = hashlib.sha256(settings.encode())
        digest.update(f"{config.fit.seed} {previous.fingerprint if previous else ''}".encode())
        for array in (self.index.image_ids, self.index.image_sizes, self.index.file_names.bytes):
            digest.update(array.tobytes())
        state = self.model.detector.state_dict()
        for name in sorted(state):
            digest.update(state[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _load(self, priors: Priors, step: int, end: int) -> Iterable[Batch]:
        learnt, transform = learnable(self.index, priors), augmentation(self.config.data.resize, self.config.jitter)
        dataset = DetectionDataset(learnt, transform, cache=self.config.data.cache)
        return batches_of(dataset, self.config.fit, step, self.rank, self.world_size, stop=end)


def augmentation(config: ResizeConfig, scales: tuple[float, float] | None) -> Transform:
    """The resize and flip of all methods; with ``scales``, large-scale jitter on a canvas of the longer side."""
    plain = make_transform(config, train=True)
    if scales is None:
        return plain
    jitter, flip = large_scale_jitter(config.long, scales), plain.random
    return Transform(plain.fixed, jitter if flip is None else lambda image, target: jitter(*flip(image, target)))


def learnable(index: Index, priors: Priors) -> Index:
    """The images that have priors, with them: one without teaches nothing, rather than that it is all background.

    Raises :class:`DataError` if none has.
    """
    counts = np.diff(priors.offsets)
    sizes = np.repeat(index.image_sizes[:, ::-1], counts, axis=0).astype(np.float64)
    full = with_boxes(index, priors.offsets, priors.boxes.astype(np.float64) * np.tile(sizes, 2))
    chosen = counts.nonzero()[0]
    if not len(chosen):
        raise DataError(f"no image in {index.root} has a prior to learn from: {priors.describe()}")
    return full.subset(chosen)


def _found(view: View) -> Found:
    return (*view.priors, len(view.regions), len(view.instances[0]), view.density)


def _given(boxes: tuple[Tensor, Tensor]) -> Found:
    return (*boxes, 0, 0, float("nan"))
