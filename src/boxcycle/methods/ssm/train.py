"""`boxcycle train ssm`: a detector that learns from a few boxes, from what it mines, and from what it asks about."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from boxcycle.config import ConfigError
from boxcycle.data.answers import read_answers
from boxcycle.data.check import DataError
from boxcycle.data.config import LABELLED_BY, open_split
from boxcycle.data.index import Index
from boxcycle.data.pool import Pool
from boxcycle.data.questions import ANSWERS, QUESTIONS, Answer, Question, read_lines
from boxcycle.engine.checkpoint import write_atomically, write_text
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import FitResult
from boxcycle.methods.experiment import Experiment, TrainConfig, none_for_nan
from boxcycle.methods.run_folder import CHECKPOINTS
from boxcycle.methods.ssm.config import MiningConfig
from boxcycle.methods.ssm.labels import Candidates
from boxcycle.methods.ssm.mining import fingerprint_of, mine_pool, read_candidates, read_pastes
from boxcycle.methods.ssm.questions import CostConfig, Oracle, answered_regions, with_pastes, write_lines
from boxcycle.methods.ssm.selection import QuestionConfig
from boxcycle.methods.ssm.start import with_drawn, with_mined
from boxcycle.methods.ssm.strategy import Strategy, choose_pseudo_boxes, choose_questions
from boxcycle.methods.ssm.validation import Miner
from boxcycle.methods.weights import load_detector_weights, load_state
from boxcycle.models.detectors import build_detector
from boxcycle.models.two_stage import TwoStageDetector


class SSMConfig(BaseModel):
    """The rounds of mining and asking."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: int = Field(3, ge=0, description="times that the pool is mined and a person asked; training is once more")
    steps: int = Field(0, ge=0, description="steps of each training after the first; 0: fit.steps")
    lr: float | None = Field(None, gt=0, description="learning rate of each training after the first; empty: fit.lr")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights that mine, for fit.ema")
    strategy: Strategy = Strategy()
    mining: MiningConfig = MiningConfig()
    questions: QuestionConfig = QuestionConfig()
    costs: CostConfig = CostConfig()
    answers: Literal["oracle", "person", "nobody"] = Field(
        "oracle",
        description="oracle: the annotations that the budget holds back answer; person: the run ends with questions, "
        "and goes on with resume=true when `boxcycle annotate` has answers; nobody: questions are kept",
    )
    mined: Path | None = Field(
        None, description="a run of `boxcycle mine`: learn from its answers and pseudo boxes from the start"
    )
    pseudo: Path | None = Field(
        None,
        description="a data set of `boxcycle label`: its boxes are the pseudo boxes of the first training, in the "
        "images that nobody labelled",
    )
    error_rate: float = Field(0.0, ge=0, le=1, description="part of the oracle's answers about boxes that is wrong")

    @model_validator(mode="after")
    def _one_start(self) -> SSMConfig:
        if self.mined and self.pseudo:
            raise ValueError("mined and pseudo both give the first pseudo boxes; give one of them")
        return self


class Config(TrainConfig):
    """`boxcycle train ssm`."""

    ssm: SSMConfig = SSMConfig()

    @model_validator(mode="after")
    def _later_rounds_can_be_trained(self) -> Config:
        round_settings(self, 1)  # a schedule with milestones may not fit into ssm.steps
        return self


def build(config: Config, class_names: Sequence[str]) -> TwoStageDetector:
    """The detector before its first step."""
    detector = build_detector(len(class_names), config.detector)
    if config.init is not None:
        load_detector_weights(detector, config.init, class_names)
    return detector


def train(config: Config) -> Path:
    """Train, mine the pool, ask, and train again on what is known then; returns the run's folder.

    [SSM Algorithm 1] [SSM Eq. 8] A round's pseudo boxes are forgotten in the next. Every part of a round is kept in
    ``round-<number>`` when it is done, and read there by a run that is resumed.
    """
    experiment = Experiment("ssm", config)
    _check_one_process()
    pool, oracle = open_pool(experiment, config)
    model = build(config, experiment.class_names)
    experiment.open()
    ledger, candidates = Ledger(experiment.folder, pool, oracle), None
    for number in range(config.ssm.rounds + 1):
        folder = experiment.folder / f"round-{number}"
        settings = round_settings(config, number)
        result = experiment.fit(model, index=in_balance(pool), settings=settings, part=folder.name)
        load_state(model, folder / CHECKPOINTS / "last.safetensors")  # the averaged weights mine, and go on learning
        ledger.add(number, pool, result)
        if number == config.ssm.rounds:
            break
        candidates = mine(model, pool, config, folder, number, previous=candidates)
        answers = ask(candidates, pool, oracle, config, folder, number)
        if answers is None:
            return experiment.folder
        ledger.answered(answers)
        pool = pool.with_human(*answered_regions(answers, experiment.class_names))
        pool = pool.with_pseudo(*choose_pseudo_boxes(candidates, config.ssm.strategy, config.ssm.mining.pace))
    experiment.finish(model)
    return experiment.folder


def open_pool(experiment: Experiment, config: Config) -> tuple[Pool, Oracle]:
    """The pool with the budget's images as the labelled ones, and an oracle that knows the others.

    Raises :class:`DataError` where there is nothing to mine, or the oracle would answer with what a detector drew.
    """
    if config.ssm.answers == "oracle" and (config.data.path / LABELLED_BY).is_file():
        raise DataError(
            f"the boxes of {config.data.path} were drawn by a run, and an oracle would take them for the truth; give "
            f"the data that people annotate, with ssm.pseudo={config.data.path}, or ssm.answers=person or nobody"
        )
    split = open_split(config.data, config.data.train, class_names=experiment.class_names)
    labelled = np.flatnonzero(np.isin(split.image_ids, experiment.train_index.image_ids))
    if len(labelled) == len(split):
        raise DataError(
            f"every image of split '{config.data.train}' of {config.data.path} is labelled, so there is nothing to "
            "mine; name the labelled ones with data.budget=FILE, a file of `boxcycle split`"
        )
    costs, seed = config.ssm.costs, config.fit.seed
    pool, ssm = Pool.start(split, labelled), config.ssm
    if ssm.mined is not None:
        pool = with_mined(pool, ssm.mined, ssm.strategy, ssm.mining.pace)
    if ssm.pseudo is not None:
        pool = with_drawn(pool, ssm.pseudo, config.data.train)
    return pool, Oracle(split, costs, error_rate=config.ssm.error_rate, seed=seed)


def in_balance(pool: Pool) -> Index:
    """What a round learns from, with the complete images repeated until at least half of it is complete.

    Half and half, as semi-supervised detectors draw their batches: else a few images that a person drew drown in many
    with a mined box or two.
    """
    index = pool.training_index()
    complete = np.flatnonzero(index.annotated)
    partial = np.flatnonzero(~index.annotated)
    again = np.resize(complete, len(partial) - len(complete)) if 0 < len(complete) < len(partial) else complete[:0]
    return index.subset(np.concatenate([np.arange(len(index)), again]))


def round_settings(config: Config, number: int) -> FitConfig:
    """How a round is trained: batches of its own, and as long as ``ssm.steps`` says."""
    later = {"steps": config.ssm.steps or config.fit.steps, "lr": config.ssm.lr or config.fit.lr} if number else {}
    changes = later | {"ema": config.ssm.ema, "seed": (config.fit.seed + number) % 2**32}
    return FitConfig.model_validate(config.fit.model_dump() | changes)


def mine(
    model: TwoStageDetector, pool: Pool, config: Config, folder: Path, number: int, previous: Candidates | None
) -> Candidates:
    """The candidates of the pool's unlabelled images, validated as far as the strategy looks at it."""
    ssm = config.ssm
    miner = make_miner(model, pool, config, previous)
    settings = {"mining": miner.config.model_dump(), "questions": ssm.questions.model_dump(), "seed": config.fit.seed}
    settings |= {"resize": config.data.resize.model_dump(), "round": number}
    mine_pool(miner, folder / "mined", fingerprint_of(model.state_dict(), pool, settings))
    return read_candidates(folder / "mined", pool.index.num_classes)


def make_miner(model: TwoStageDetector, pool: Pool, config: Config, previous: Candidates | None = None) -> Miner:
    """A miner with the detector and the settings of a run."""
    ssm = config.ssm
    mining = ssm.mining if ssm.strategy.needs_consistency else ssm.mining.model_copy(update={"validate_by": "nothing"})
    return Miner(
        model.eval(),
        pool,
        config.data.resize,
        mining,
        ssm.questions,
        seed=config.fit.seed,
        device=next(model.parameters()).device,
        cache=config.data.cache,
        previous=previous,
    )


def ask(
    candidates: Candidates, pool: Pool, oracle: Oracle, config: Config, folder: Path, number: int
) -> list[Answer] | None:
    """Choose questions and have them answered; both are kept, in ``questions.jsonl`` and ``answers.jsonl``.

    None if a person is to answer and has not begun: what to do then is printed.
    """
    file = folder / ANSWERS
    if file.is_file():
        return read_lines(file, Answer)
    ssm = config.ssm
    if not (folder / QUESTIONS).is_file():
        questions = choose_questions(candidates, pool, ssm.strategy, ssm.questions, (config.fit.seed, number))
        write_lines(folder / QUESTIONS, with_pastes(questions, read_pastes(folder / "mined")))
    questions = read_lines(folder / QUESTIONS, Question)
    answers = read_answers(folder) if ssm.answers == "person" else []
    if ssm.answers == "person" and questions and not answers:
        run = folder.parent
        print(f"{folder / QUESTIONS}: {len(questions)} questions wait; boxcycle annotate run={run}, then resume=true")
        return None
    if ssm.answers == "oracle":
        answers = oracle.answer(questions, pool)
    write_lines(file, answers)
    return answers


class Ledger:
    """AP against labels spent, a row a round, in ``labels.json``; keeps the best round's weights as the run's.

    Boxes and minutes are those of the answers; ``pseudo_right`` is the part of the round's pseudo boxes that the
    held-back annotations confirm, which no part of training sees.
    """

    def __init__(self, folder: Path, pool: Pool, oracle: Oracle) -> None:
        self.folder, self.oracle = folder, oracle
        self.initial_boxes = len(pool.index.boxes)
        self.questions, self.seconds, self.pseudo_boxes = 0, 0.0, 0
        self.rows: list[dict[str, float | int | None]] = []
        self.best = -1.0

    def answered(self, answers: Sequence[Answer]) -> None:
        """Count what a person did."""
        self.questions += len({answer.question for answer in answers})
        self.seconds += sum(answer.seconds for answer in answers)

    def add(self, number: int, pool: Pool, result: FitResult) -> None:
        """Add the row of a round that is trained, and take over its weights."""
        human, pseudo = len(pool.human_boxes().labels), len(pool.pseudo.labels)
        self.pseudo_boxes += pseudo
        row: dict[str, float | int | None] = {
            "round": number,
            "initial_boxes": self.initial_boxes,
            "human_boxes": human,
            "questions": self.questions,
            "minutes": self.seconds / 60,
            "annotated_percent": percent(human, self.initial_boxes),
            "pseudo_boxes": pseudo,
            "pseudo_percent": percent(self.pseudo_boxes, self.initial_boxes),
            "pseudo_right": self.oracle.right(pool.pseudo),
        }
        self.rows.append(none_for_nan(row | {name: result.metrics.get(name) for name in ("AP", "AP50")}))
        text = json.dumps(self.rows, indent=1) + "\n"
        write_text(self.folder / "labels.json", text)
        self._keep_weights(self.folder / f"round-{number}" / CHECKPOINTS, result)
        print(f"round {number}: {human} boxes from {self.questions} questions, {pseudo} pseudo boxes")

    def _keep_weights(self, source: Path, result: FitResult) -> None:
        names = ["last"]
        if result.best is not None and result.best > self.best:
            self.best = result.best
            names.append("best")
        (self.folder / CHECKPOINTS).mkdir(exist_ok=True)
        for name in names:
            wanted = source / f"{name}.safetensors"
            write_atomically(self.folder / CHECKPOINTS / wanted.name, partial(_copy, wanted))


def percent(part: int, whole: int) -> float:
    """Boxes beside the initial ones, as the paper counts annotated and pseudo boxes (section 4)."""
    return 100 * part / max(whole, 1)


def _check_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("train ssm runs in one process; mine a large pool in shards with boxcycle mine")


def _copy(source: Path, file: Path) -> None:
    shutil.copyfile(source, file)
