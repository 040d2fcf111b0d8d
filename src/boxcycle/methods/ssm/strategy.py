"""Which of the selectors mines and which one asks: SSM's own, or one that it is held against."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from boxcycle.data.pool import Pool, Regions, regions
from boxcycle.data.questions import Question
from boxcycle.methods.ssm.labels import Candidates
from boxcycle.methods.ssm.questions import box_questions, image_questions
from boxcycle.methods.ssm.rivals import (
    confident_boxes,
    entropy_questions,
    margin_questions,
    random_questions,
    self_paced_boxes,
)
from boxcycle.methods.ssm.selection import PseudoBoxes, QuestionConfig, pseudo_boxes, select_questions


class Strategy(BaseModel):
    """What becomes a pseudo box, and what a person is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mine: Literal["consistency", "confidence", "self_paced", "nothing"] = Field(
        "consistency",
        description="what makes a pseudo box: consistency (SSM), probability, one loss for all, nothing",
    )
    ask: Literal["consistency", "random", "entropy", "margin", "nothing"] = Field(
        "consistency", description="about what: torn and inconsistent candidates (SSM), or one of the usual measures"
    )
    unit: Literal["box", "image"] = Field("box", description="a question is about a box, or has an image drawn wholly")
    top: int = Field(500, ge=0, description="pseudo boxes of a class and round, k")
    weigh: bool = Field(False, description="pseudo boxes weigh as much as they are consistent, instead of 1")
    threshold: float = Field(0.9, gt=0, lt=1, description="least probability for mine=confidence")
    tolerance: float = Field(0.1, gt=0, description="largest loss for mine=self_paced")
    ignore: bool = Field(True, description="regions that nobody has settled teach nothing, instead of background")

    @property
    def needs_consistency(self) -> bool:
        """Whether candidates have to be validated at all."""
        return "consistency" in (self.mine, self.ask)


def choose_pseudo_boxes(candidates: Candidates, strategy: Strategy, pace: float) -> tuple[Regions, Regions]:
    """The pseudo boxes of the next round, and the regions that teach nothing in it: all other candidates."""
    chosen = _mined(candidates, strategy, pace)
    mined = _regions(chosen.candidates, chosen.labels, chosen.weights)
    unsettled = _regions(candidates, torch.zeros_like(candidates.labels), torch.ones(len(candidates)))
    rest = unsettled.where(~_among(unsettled, mined))
    return mined, rest if strategy.ignore else regions()


def choose_questions(
    candidates: Candidates, pool: Pool, strategy: Strategy, config: QuestionConfig, seed: tuple[int, int]
) -> list[Question]:
    """At most ``config.count`` questions, ids beginning with the round; ``seed``: the run's, and the round."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(seed).generate_state(1)[0]))
    name = f"r{seed[1]}"
    if strategy.unit == "box":
        rows = _asked(candidates, strategy, config, config.count, generator)
        return box_questions(candidates[rows], pool.index, name)
    if strategy.ask == "random":  # also images in which nothing was found
        open_ids = torch.from_numpy(pool.index.image_ids[pool.unlabelled])
        ids = open_ids[torch.randperm(len(open_ids), generator=generator)].tolist()
    else:
        rows = _asked(candidates, strategy, config, len(candidates), generator)
        ids = list(dict.fromkeys(candidates.image_ids[rows].tolist()))
    return image_questions(ids[: config.count], pool.index, name)


def _mined(candidates: Candidates, strategy: Strategy, pace: float) -> PseudoBoxes:
    if strategy.mine == "consistency":
        return pseudo_boxes(candidates, pace=pace, top=strategy.top, weigh=strategy.weigh)
    if strategy.mine == "confidence":
        return confident_boxes(candidates, threshold=strategy.threshold, top=strategy.top)
    if strategy.mine == "self_paced":
        return self_paced_boxes(candidates, tolerance=strategy.tolerance, top=strategy.top)
    none = candidates[:0]
    return PseudoBoxes(none, none.labels, torch.ones(0))


def _asked(
    candidates: Candidates, strategy: Strategy, config: QuestionConfig, count: int, generator: torch.Generator
) -> Tensor:
    if strategy.ask == "consistency":
        limits = {"max_consistency": config.max_consistency, "min_prob": config.min_prob}
        return select_questions(candidates, count=count, generator=generator, classes=config.classes, **limits)
    if strategy.ask == "random":
        return random_questions(candidates, count=count, min_prob=config.min_prob, generator=generator)
    if strategy.ask == "entropy":
        return entropy_questions(candidates, count=count, min_prob=config.min_prob)
    if strategy.ask == "margin":
        return margin_questions(candidates, count=count, min_prob=config.min_prob)
    return torch.zeros(0, dtype=torch.int64)


def _regions(candidates: Candidates, labels: Tensor, weights: Tensor) -> Regions:
    return regions(
        candidates.image_ids.numpy(), candidates.boxes.double().numpy(), labels.numpy(), weights.double().numpy()
    )


def _among(given: Regions, others: Regions) -> np.ndarray:
    """[N] which of the given regions are one of the others."""
    keys = {(image_id, *box) for image_id, box in zip(others.image_ids.tolist(), others.boxes.tolist(), strict=True)}
    rows = zip(given.image_ids.tolist(), given.boxes.tolist(), strict=True)
    return np.array([(image_id, *box) in keys for image_id, box in rows], dtype=bool)
