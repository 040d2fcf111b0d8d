"""Cross image validation: what a detector finds in unlabelled images, pasted into annotated ones.

Images are mined in blocks, whose crops share copies of the annotated images. What is measured depends on the images of
the block, the detector, the annotated images and the seed alone: not on the order of images, on batches or on shards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from boxcycle.methods.ssm.copies import Copy, Sample, lay_out, sample
from boxcycle.methods.ssm.labels import (
    Candidates,
    consistency_score,
    joined,
    measured_as,
    paste_value,
    reused,
    unmeasured,
)
from boxcycle.methods.ssm.pasting import cut, seeded
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


class Trial(NamedTuple):
    """A candidate elsewhere: where it was pasted [4], and what was found in that image."""

    box: Tensor
    found: Detections


class Mined(NamedTuple):
    """What came of one image: its candidates, and for each where it was pasted and what was found there."""

    image_id: int
    candidates: Candidates
    pastes: list[tuple[Paste, ...]]


class Miner:
    """Finds and validates the candidates of a pool's images with one detector.

    ``canvases`` and ``pasted`` count the images that were detected in and the crops that were pasted for it;
    ``spared`` is how many whole images' pixels the windows left out.
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
        # trials that measure a candidate to the end
        self.complete = 1 + len(VIEW_SCALES) if config.validate_by == "views" else config.targets
        self.canvases, self.pasted, self.spared = 0, 0, 0.0

    @torch.no_grad()
    def mine(self, block: Sequence[int] | Positions) -> list[Mined]:
        """What comes of the images at positions of the pool that are mined together, by rising image id."""
        ids = self.index.image_ids
        order = sorted(map(int, block), key=lambda position: int(ids[position]))
        size = self.config.batch_size
        looked = [its for start in range(0, len(order), size) for its in self.look(order[start : start + size])]
        candidates = joined([its for its, _ in looked], self.index.num_classes)
        crops = dict(enumerate(crop for _, its in looked for crop in its))
        wanted = {row: crop for row, crop in crops.items() if crop is not None}
        trials, shown = self.paste_trials(int(ids[order[0]]), candidates, wanted)
        candidates = self._with_scores(candidates, trials)
        mined = []
        for image_id in ids[order].tolist():
            rows = (candidates.image_ids == image_id).nonzero().flatten()
            mined.append(Mined(image_id, candidates[rows], [tuple(shown.get(row, ())) for row in rows.tolist()]))
        return mined

    def look(self, positions: Sequence[int]) -> list[tuple[Candidates, list[Tensor | None]]]:
        """For each image at some positions: its candidates, and the crop [3, h, w] of each that is to be pasted."""
        seen = [sample(self.images, position, self.device) for position in positions]
        found = self.detect([its.image for its in seen])
        ids = self.index.image_ids[list(positions)].tolist()
        return [self.candidates_of(*its) for its in zip(ids, seen, found, strict=True)]

    def candidates_of(self, image_id: int, seen: Sample, found: Detections) -> tuple[Candidates, list[Tensor | None]]:
        """The candidates of one image, and the crop of each that is to be pasted."""
        boxes, probs = self.regions(image_id, seen, found)
        candidates = unmeasured(image_id, to_original(boxes, seen.size, seen.original_size).cpu(), probs.cpu())
        if self.previous is not None:
            candidates = self.still_decided(reused(candidates, self.previous, self.config.keep_rounds))
        crops: list[Tensor | None] = [None] * len(candidates)
        rows = self.unknown(candidates)
        if self.config.validate_by == "views":
            candidates = self._with_scores(candidates, self.view_trials(seen, boxes, rows))
        elif self.config.validate_by == "pasting":
            crops = [cut(seen.image, box).clone() if row in rows else None for row, box in enumerate(boxes)]
        return candidates, crops

    def regions(self, image_id: int, seen: Sample, found: Detections) -> tuple[Tensor, Tensor]:
        """One box [D, 4] (image frame) and distribution [D, K+1] for each cluster of detections that is large enough.

        What a person has answered is left out.
        """
        best = found["probs"][:, 1:].argmax(1) + 1
        solid = (found["boxes"][:, 2:] - found["boxes"][:, :2]).amin(1) >= self.config.min_side
        kept = ((best == found["labels"]) & (found["scores"] >= self.config.min_score) & solid).nonzero().flatten()
        kept = kept[nms(found["boxes"][kept].float(), found["scores"][kept].float(), CLUSTER)]
        boxes = found["boxes"][kept].float()
        answered = self.pool.answered.where(self.pool.answered.image_ids == image_id).boxes
        original = to_original(boxes, seen.size, seen.original_size).cpu()
        fresh = ~(box_iou(original.double(), torch.from_numpy(answered)) >= SAME).any(1).to(boxes.device)
        return boxes[fresh], found["probs"][kept][fresh].float()

    def unknown(self, candidates: Candidates) -> list[int]:
        """Rows of the candidates that are to be validated: of a class, not measured yet, not pruned."""
        wanted = (candidates.tests == 0) & (candidates.labels > 0)
        if self.config.prune:
            wanted &= can_be_selected(candidates.probs, 1.0, self.config.pace)
        return wanted.nonzero().flatten().tolist()

    def paste_trials(
        self, block: int, candidates: Candidates, crops: Mapping[int, Tensor]
    ) -> tuple[dict[int, list[Trial]], dict[int, list[Paste]]]:
        """Paste ``crops`` [3, h, w] of a block's candidates, by row, into one annotated image after another.

        ``block``: the lowest id of its images. Returns what was found by row, and the same for people's eyes.
        """
        trials: dict[int, list[Trial]] = {row: [] for row in crops}
        shown: dict[int, list[Paste]] = {row: [] for row in crops}
        labels = candidates.labels.tolist()
        seeds = {row: _identity(candidates, row) for row in crops}
        targets = {label: self.draw_targets(block, label) for label in sorted({labels[row] for row in crops})}
        for turn in range(self.config.targets):
            going = {row: crop for row, crop in crops.items() if self.is_open(candidates, row, trials[row])}
            copies: list[Copy] = []
            for label, positions in targets.items():
                if turn < len(positions):
                    its = {row: crop for row, crop in going.items() if labels[row] == label}
                    copies += self.copies_of(positions[turn], its, seeds)
            found = self.detect([copy.pixels for copy in copies])
            for copy, detections in zip(copies, found, strict=True):
                self.pasted, self.spared = self.pasted + len(copy.placed), self.spared + 1 - copy.part
                for row, place in copy.placed.items():
                    trials[row].append(Trial(place - copy.corner, detections))
                    shown[row].append(self._shown(copy, place, trials[row][-1], labels[row]))
        return trials, shown

    def copies_of(self, target: int, crops: Mapping[int, Tensor], seeds: Mapping[int, list[int]]) -> list[Copy]:
        """Copies of the annotated image at a position with all crops; places are seeded by candidate and target."""
        if not crops:
            return []
        into, image_id = sample(self.targets, target, self.device), int(self.index.image_ids[target])
        drawn = {row: [self.seed, *seeds[row], image_id] for row in crops}
        return list(lay_out(target, into, crops, drawn, self.config))

    def draw_targets(self, block: int, label: int) -> list[int]:
        """Positions of at most N annotated images without the class, drawn for this class and block alone.

        ``block``: the lowest id of its images.
        """
        eligible = self.eligible[label - 1]
        order = seeded(self.seed, block, label).permutation(len(eligible))
        return eligible[order[: self.config.targets]].tolist()

    def is_open(self, candidates: Candidates, row: int, trials: Sequence[Trial]) -> bool:
        """Whether a candidate with these trials is to be pasted once more."""
        return not trials or self.undecided(candidates, row, self.score(candidates, row, trials), len(trials))

    def undecided(self, candidates: Candidates, row: int, consistency: float, tests: int) -> bool:
        """Whether more trials could still make a pseudo box of a candidate, or a question: exact.

        With the trials that are left at their best its consistency is at most ``highest``, at their worst at least
        ``lowest``.
        """
        if not self.config.early_stop or self.config.form == "vote":
            return True
        count = self.complete
        lowest = consistency * tests / count
        highest = lowest + (count - tests) / count
        questions = self.questions
        torn = is_torn(candidates.probs[row : row + 1], min_prob=questions.min_prob, classes=questions.classes)
        selectable = can_be_selected(candidates.probs[row : row + 1], highest, self.config.pace)
        return bool(selectable) or (bool(torn) and lowest <= questions.max_consistency)

    def still_decided(self, candidates: Candidates) -> Candidates:
        """Without the results of an earlier round that were cut short, where phi has since opened the case again."""
        short = (candidates.tests > 0) & (candidates.tests < self.complete)
        again = short.clone()
        for row in short.nonzero().flatten().tolist():
            again[row] = self.undecided(candidates, row, float(candidates.consistency[row]), int(candidates.tests[row]))
        nothing = torch.zeros_like(candidates.tests)
        return measured_as(candidates, again, torch.full_like(candidates.consistency, math.nan), nothing, nothing)

    def view_trials(self, seen: Sample, boxes: Tensor, rows: Sequence[int]) -> dict[int, list[Trial]]:
        """Where the candidates are in the mirrored, the smaller and the larger image, and what was found there."""
        height, width = seen.size
        views, moved = [seen.image.flip(-1)], [boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1, 1, -1, 1])]
        moved[0] += boxes.new_tensor([width, 0, width, 0])
        for scale in VIEW_SCALES:
            size = [round(height * scale), round(width * scale)]
            views.append(torch.nn.functional.interpolate(seen.image[None], size, mode="bilinear", antialias=True)[0])
            moved.append(boxes * boxes.new_tensor([size[1] / width, size[0] / height] * 2))
        found = self.detect(views) if rows else []
        return {
            row: [Trial(its[row], detections) for its, detections in zip(moved, found, strict=True)] for row in rows
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
