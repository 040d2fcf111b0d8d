"""`boxcycle mine`: one pass over the images that nobody annotated, with the detector of a run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from boxcycle.data.answers import question_folders, read_answers
from boxcycle.data.check import DataError
from boxcycle.data.config import open_split
from boxcycle.data.index import Index
from boxcycle.data.pool import Pool, Regions
from boxcycle.data.questions import QUESTIONS, Answer, read_lines
from boxcycle.data.splits import read_budget
from boxcycle.engine.checkpoint import write_text
from boxcycle.evaluation.predictions import xywh
from boxcycle.methods.loading import Trained, load
from boxcycle.methods.ssm.config import MiningConfig
from boxcycle.methods.ssm.mining import fingerprint_of, is_complete, mine_pool, read_candidates, read_pastes
from boxcycle.methods.ssm.questions import answered_regions, with_pastes, write_lines
from boxcycle.methods.ssm.selection import QuestionConfig
from boxcycle.methods.ssm.strategy import Strategy, choose_pseudo_boxes, choose_questions
from boxcycle.methods.ssm.validation import Miner


class MineConfig(BaseModel):
    """Which detector mines which images, and what is made of what it finds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: Path = Field(description="folder of a run; its training split is mined")
    budget: Path | None = Field(None, description="a file of `boxcycle split`: the labelled images; empty: the run's")
    answers: Path | None = Field(None, description="answers.jsonl of a person, beside those that the run has")
    out: Path | None = Field(
        None,
        description="folder for the results; empty: <run>/mined, or the first of mined-2, ... without answers",
    )
    shard: str = Field("0/1", pattern=r"^\d+/[1-9]\d*$", description="this process's part: 0/4, 1/4, 2/4, 3/4")
    strategy: Strategy = Strategy()
    mining: MiningConfig = MiningConfig()
    questions: QuestionConfig = QuestionConfig()
    seed: int = Field(0, ge=0, description="seeds targets, places and the draw of questions")
    device: str = Field("auto", description="auto: a GPU if there is one")


def run_mine(config: MineConfig) -> None:
    """Mine one shard; the last one to finish writes ``questions.jsonl`` and ``pseudo.json``."""
    shard, shards = map(int, config.shard.split("/"))
    if shard >= shards:
        raise ValueError(f"shards count from 0: the last of {shards} is {shards - 1}/{shards}; got {config.shard}")
    trained = load(config.run, device=config.device)
    pool = open_pool(trained, config)
    folder = results_folder(config)
    miner = Miner(
        trained.model,  # type: ignore[arg-type]
        pool,
        trained.config.data.resize,
        config.mining,
        config.questions,
        seed=config.seed,
        device=next(trained.model.parameters()).device,
        cache=trained.config.data.cache,
    )
    settings = config.model_dump(include={"mining", "questions", "seed"})
    mine_pool(miner, folder, fingerprint_of(trained.model.state_dict(), pool, settings), shard=shard, shards=shards)
    if not is_complete(folder):
        print(f"{folder}: shard {config.shard} is done; the last one writes the questions")
        return
    candidates = read_candidates(folder, pool.index.num_classes)
    asked = choose_questions(candidates, pool, config.strategy, config.questions, (config.seed, 0))
    asked = with_pastes(asked, read_pastes(folder))
    mined = pool.with_pseudo(choose_pseudo_boxes(candidates, config.strategy, config.mining.pace)[0]).pseudo
    write_lines(folder / QUESTIONS, asked)
    write_text(folder / "pseudo.json", json.dumps(_results(mined, pool.index)))
    if len(pool.answered.labels) or pool.finished.any():
        print(f"people said so far: {describe_answers(pool)}")
    print(f"{len(candidates)} candidates in {len(pool.unlabelled)} images, {len(mined.labels)} pseudo boxes")
    print(f"{folder / QUESTIONS}: {len(asked)} questions; to answer them: boxcycle annotate run={config.run}")


def results_folder(config: MineConfig) -> Path:
    """Where this pass goes. What was asked and answered stays: a folder with answers is not mined into again."""
    if config.out is not None:
        if read_answers(config.out):
            raise DataError(f"{config.out} has answers to the questions of its pass; choose another folder with out=")
        return config.out
    run = config.run if config.run.is_dir() else config.run.parent
    folders = (run / ("mined" if number == 1 else f"mined-{number}") for number in itertools.count(1))
    return next(folder for folder in folders if not read_answers(folder))


def describe_answers(pool: Pool) -> str:
    """What a pool has learnt from people since its start, in words."""
    boxes, none = len(pool.human_boxes().labels), int((pool.answered.labels == 0).sum())
    return f"{boxes} boxes, {none} regions without an object, {int(pool.finished.sum())} finished images"


def open_pool(trained: Trained, config: MineConfig) -> Pool:
    """The run's training split as a pool, with the answers that it has had."""
    data = trained.config.data
    split = open_split(data, data.train, class_names=trained.class_names)
    budget = config.budget or data.budget
    labelled = np.flatnonzero(split.annotated) if budget is None else read_budget(budget, split)
    pool = Pool.start(split, labelled)
    given = [read_answers(folder) for folder in question_folders(config.run)]
    given += [read_lines(config.answers, Answer)] if config.answers else []
    for answers in given:
        pool = pool.with_human(*answered_regions(answers, split.class_names))
    if not len(pool.unlabelled):
        raise DataError(
            f"every image of split '{data.train}' of {data.path} is labelled, so there is nothing to mine; "
            "name the labelled ones with budget=FILE, a file of `boxcycle split`"
        )
    return pool


def _results(mined: Regions, index: Index) -> list[dict[str, object]]:
    """Pseudo boxes as rows of a COCO results file; their score is their weight."""
    rows = zip(mined.image_ids, index.category_ids[mined.labels - 1], xywh(mined.boxes), mined.weights, strict=True)
    return [
        {"image_id": int(image_id), "category_id": int(category), "bbox": box.tolist(), "score": float(weight)}
        for image_id, category, box, weight in rows
    ]
