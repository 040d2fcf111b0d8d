"""Cross image validation: what a detector finds in an unlabelled image, pasted into annotated ones.

What is measured for an image depends on that image, the detector, the annotated images and the seed alone: not on the
order of images, on batches or on shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.pool import SAME, Pool
from boxcycle.data.questions import Paste
from boxcycle.data.stratify import Positions
from boxcycle.data.transforms import ResizeConfig, make_transform, to_original
from boxcycle.methods.ssm.config import MiningConfig
from boxcycle.methods.ssm.labels import Candidates, consistency_score, paste_value, reused, unmeasured
from boxcycle.methods.ssm.pasting import cut, draw_places, fitted, pack, paste, seeded, window_around
from boxcycle.methods.ssm.selection import QuestionConfig, can_be_selected, is_torn
from boxcycle.types import Detections

CLUSTER = 0.7  # IoU from which two detections are one candidate, whatever their classes
OMEGA = 0.05  # least score of a detection that counts in the validation
VIEW_SCALES = (0.8, 1.25)


class Detector(Protocol):
    """What mining needs of a detector; every detector of the package has it."""

    def predict(self, images: list[Tensor]) -> list[Detections]:
        """Detections of each image [3, H, W] in [0, 1], image frame, without a change of mode or weights."""
        ...


class Sample(NamedTuple):
    """An image as the detector sees it: pixels [3, H, W], boxes of its objects [N, 4] in that frame."""

    image: Tensor
    boxes: Tensor
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.image.shape[1], self.image.shape[2]


class Copy(NamedTuple):
    """A copy of the annotated image at a position, with crops ``placed`` on it: row -> place [4], in its frame.

    ``pixels`` [3, h, w] are all of its ``size`` (height, width), or a window with its ``corner`` [4] at (x, y, x, y).
    """

    target: int
    size: tuple[int, int]
    pixels: Tensor
    corner: Tensor
    placed: dict[int, Tensor]


class Trial(NamedTuple):
    """One finding of a candidate elsewhere: where it was pasted [4], and what was found in that image."""

    box: Tensor
    found: Detections


class Miner:
    """Finds and validates the candidates of a pool's images with one detector.

    ``canvases`` and ``pasted`` count the images that were detected in and the crops that were pasted for it;
    ``spared`` is how many whole images' pixels the windows left out.
    ``pastes`` shows, for each candidate of the image that was mined last, where it was pasted and what came of it.
    """

    def __init__(
        self,
        detector: Detector,
        pool: Pool,
        resize: ResizeConfig,
        config: MiningConfig,
        questions: QuestionConfig,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        cache: bool = False,
        previous: Candidates | None = None,
    ) -> None:
        self.detector, self.pool, self.config, self.questions = detector, pool, config, questions
        self.seed, self.device, self.previous = seed, device, previous
        index, transform = pool.known(), make_transform(resize, train=False)
        self.index = index
        self.images, self.targets = DetectionDataset(index, transform), DetectionDataset(index, transform, cache=cache)
        self.eligible = [_eligible(index, label, config.any_context) for label in range(1, index.num_classes + 1)]
        self.canvases, self.pasted, self.spared = 0, 0, 0.0
        self.pastes: list[tuple[Paste, ...]] = []

    @torch.no_grad()
    def mine(self, position: int) -> Candidates:
        """The candidates of the image at a position of the pool, with their consistency where it was measured."""
        image_id, sample = int(self.index.image_ids[position]), _sample(self.images, position, self.device)
        [found] = self.detect([sample.image])
        boxes, probs = self.regions(image_id, sample, found)
        self.pastes = [()] * len(boxes)
        candidates = unmeasured(image_id, to_original(boxes, sample.size, sample.original_size).cpu(), probs.cpu())
        if self.previous is not None:
            candidates = reused(candidates, self.previous, self.config.targets, self.config.keep_rounds)
        if self.config.validate_by == "nothing":
            return candidates
        open_rows = (candidates.tests == 0).nonzero().flatten()
        if self.config.prune:
            open_rows = open_rows[can_be_selected(candidates.probs[open_rows], 1.0, self.config.pace)]
        open_rows = open_rows[candidates.labels[open_rows] > 0]
        if self.config.validate_by == "views":
            return self._with_scores(candidates, self.view_trials(sample, boxes, open_rows))
        return self._with_scores(candidates, self.paste_trials(image_id, sample, boxes, candidates, open_rows))

    def regions(self, image_id: int, sample: Sample, found: Detections) -> tuple[Tensor, Tensor]:
        """One box [D, 4] (image frame) and distribution [D, K+1] for each cluster of detections that is large enough.

        What a person has answered is left out.
        """
        best = found["probs"][:, 1:].argmax(1) + 1
        solid = (found["boxes"][:, 2:] - found["boxes"][:, :2]).amin(1) >= self.config.min_side
        kept = ((best == found["labels"]) & (found["scores"] >= self.config.min_score) & solid).nonzero().flatten()
        kept = kept[nms(found["boxes"][kept].float(), found["scores"][kept].float(), CLUSTER)]
        boxes = found["boxes"][kept].float()
        answered = self.pool.answered.where(self.pool.answered.image_ids == image_id).boxes
        original = to_original(boxes, sample.size, sample.original_size).cpu()
        fresh = ~(box_iou(original.double(), torch.from_numpy(answered)) >= SAME).any(1).to(boxes.device)
        return boxes[fresh], found["probs"][kept][fresh].float()

    def paste_trials(
        self, image_id: int, sample: Sample, boxes: Tensor, candidates: Candidates, rows: Tensor
    ) -> dict[int, list[Trial]]:
        """Paste the candidates of ``rows`` into one annotated image after another; what was found, by row."""
        trials: dict[int, list[Trial]] = {int(row): [] for row in rows}
        targets = {label: self.draw_targets(image_id, label) for label in set(candidates.labels[rows].tolist())}
        for turn in range(self.config.targets):
            going = [row for row in trials if self.undecided(candidates, row, trials[row])]
            copies: list[Copy] = []
            for label, positions in sorted(targets.items()):
                chosen = [row for row in going if int(candidates.labels[row]) == label]
                if chosen and turn < len(positions):
                    copies += self.lay_out(positions[turn], sample, boxes, candidates, chosen)
            found = self.detect([copy.pixels for copy in copies])
            for copy, detections in zip(copies, found, strict=True):
                for row, place in copy.placed.items():
                    trials[row].append(Trial(place - copy.corner, detections))
                    self.pastes[row] += (self._shown(copy, place, trials[row][-1], int(candidates.labels[row])),)
            self.pasted += sum(len(copy.placed) for copy in copies)
        return trials

    def lay_out(
        self, target: int, sample: Sample, boxes: Tensor, candidates: Candidates, rows: Sequence[int]
    ) -> Iterator[Copy]:
        """Copies of one target with crops of the candidates of ``rows``."""
        config, into = self.config, _sample(self.targets, target, self.device)
        crops, places = {}, {}
        for row in rows:
            crop = fitted(cut(sample.image, boxes[row]), into.size, largest=0.6, least=config.min_side)
            if crop is None:
                continue
            rng = seeded(self.seed, *_identity(candidates, row), int(self.index.image_ids[target]))
            drawn = draw_places((crop.shape[1], crop.shape[2]), into.size, rng)
            crops[row], places[row] = crop, torch.from_numpy(drawn).to(into.boxes)
        order = list(crops)
        copies = pack(
            [places[row] for row in order],
            into.boxes,
            into.size,
            most=config.pack,
            gap=config.gap,
            largest_part=0.4,
        )
        for copy in copies:
            placed = {order[number]: place for number, place in copy.items()}
            canvas = paste(into.image, [crops[row] for row in placed], list(placed.values()))
            pixels, corner = self.window_of(canvas, placed)
            yield Copy(target, into.size, pixels, corner, placed)

    def window_of(self, canvas: Tensor, placed: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """The part [3, h, w] of a canvas in which its crops are looked for, and its corner [4]."""
        height, width = canvas.shape[1:]
        if self.config.window is None:
            return canvas, torch.zeros(4, device=canvas.device)
        x1, y1, x2, y2 = window_around([*placed.values()], (height, width), self.config.window)
        self.spared += 1 - (x2 - x1) * (y2 - y1) / (height * width)
        return canvas[:, y1:y2, x1:x2], torch.tensor([x1, y1, x1, y1], device=canvas.device)

    def draw_targets(self, image_id: int, label: int) -> list[int]:
        """Positions of at most N annotated images without the class, drawn for this image and class alone."""
        eligible = self.eligible[label - 1]
        order = seeded(self.seed, image_id, label).permutation(len(eligible))
        return eligible[order[: self.config.targets]].tolist()

    def undecided(self, candidates: Candidates, row: int, trials: Sequence[Trial]) -> bool:
        """Whether more trials could still make a pseudo box of a candidate, or a question: exact.

        With the trials that are left at their best its consistency is at most ``highest``, at their worst at least
        ``lowest``.
        """
        if not self.config.early_stop or not trials or self.config.form == "vote":
            return True
        count = self.config.targets
        lowest = self.score(candidates, row, trials) * len(trials) / count
        highest = lowest + (count - len(trials)) / count
        questions = self.questions
        torn = is_torn(candidates.probs[row : row + 1], min_prob=questions.min_prob, classes=questions.classes)
        selectable = can_be_selected(candidates.probs[row : row + 1], highest, self.config.pace)
        return bool(selectable) or (bool(torn) and lowest <= questions.max_consistency)

    def view_trials(self, sample: Sample, boxes: Tensor, rows: Tensor) -> dict[int, list[Trial]]:
        """Where the candidates are in the mirrored, the smaller and the larger image, and what was found there."""
        height, width = sample.size
        views, moved = [sample.image.flip(-1)], [boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])]
        moved[0] += boxes.new_tensor([width, 0, width, 0])
        for scale in VIEW_SCALES:
            size = [round(height * scale), round(width * scale)]
            views.append(torch.nn.functional.interpolate(sample.image[None], size, mode="bilinear", antialias=True)[0])
            moved.append(boxes * boxes.new_tensor([size[1] / width, size[0] / height] * 2))
        found = self.detect(views) if len(rows) else []
        return {
            int(row): [Trial(its[row], detections) for its, detections in zip(moved, found, strict=True)]
            for row in rows
        }

    def score(self, candidates: Candidates, row: int, trials: Sequence[Trial]) -> float:
        """The consistency of one candidate; NaN without a trial."""
        places = torch.stack([trial.box for trial in trials]).cpu() if trials else torch.zeros(0, 4)
        label = int(candidates.labels[row])
        return float(consistency_score(places, [trial.found for trial in trials], label, form=self.config.form))

    def detect(self, images: Sequence[Tensor]) -> list[Detections]:
        """Detections of images, on the CPU. Images of one size go together: padding would change what is found."""
        order = sorted(range(len(images)), key=lambda number: images[number].shape)
        found: dict[int, Detections] = {}
        for _, same in groupby(order, key=lambda number: images[number].shape):
            numbers = list(same)
            for start in range(0, len(numbers), self.config.batch_size):
                batch = numbers[start : start + self.config.batch_size]
                results = self.detector.predict([images[number] for number in batch])
                found |= {number: _settled(result) for number, result in zip(batch, results, strict=True)}
        self.canvases += len(images)
        return [found[number] for number in range(len(images))]

    def _shown(self, copy: Copy, place: Tensor, trial: Trial, label: int) -> Paste:
        """A trial for people's eyes, in the pixels of the target's file."""
        height, width = self.index.image_sizes[copy.target].tolist()
        box = to_original(place[None].float().cpu(), copy.size, (height, width))
        found = float(paste_value(trial.box.cpu(), trial.found, label, form="max"))
        return Paste(image_id=int(self.index.image_ids[copy.target]), box=tuple(box[0].tolist()), found=found)

    def _with_scores(self, candidates: Candidates, trials: dict[int, list[Trial]]) -> Candidates:
        consistency, tests = candidates.consistency.clone(), candidates.tests.clone()
        for row, its in trials.items():
            consistency[row], tests[row] = self.score(candidates, row, its), len(its)
        return replace(candidates, consistency=consistency, tests=tests)


def _eligible(index: Index, label: int, any_context: bool) -> Positions:
    """Positions of complete images without a box of the class, difficult and crowded ones counted."""
    images = np.repeat(np.arange(len(index)), np.diff(index.box_offsets))
    shows = np.zeros(len(index), dtype=bool)
    shows[images[index.labels == label]] = True
    without = np.flatnonzero(index.annotated & ~shows)
    return np.flatnonzero(index.annotated) if any_context and not len(without) else without


def _sample(dataset: DetectionDataset, position: int, device: torch.device | str) -> Sample:
    image, target = dataset[position]
    return Sample(image.to(device), target["boxes"].to(device), target["original_size"])


def _settled(found: Detections) -> Detections:
    """On the CPU, without the faint detections that no other step looks at."""
    kept = (found["scores"] >= OMEGA).nonzero().flatten()
    return Detections(
        boxes=found["boxes"][kept].cpu(),
        labels=found["labels"][kept].cpu(),
        scores=found["scores"][kept].cpu(),
        probs=found["probs"][kept].cpu(),
    )


def _identity(candidates: Candidates, row: int) -> list[int]:
    corners = candidates.boxes[row].round().int().tolist()
    return [int(candidates.image_ids[row]), int(candidates.labels[row]), *corners]
