"""`boxcycle train ssm` on a few scenes: what it leaves, that a killed one goes on, that held-back boxes stay so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxcycle.data.check import DataError
from boxcycle.data.config import LABELLED_BY
from boxcycle.data.pool import Pool, regions
from boxcycle.data.questions import Answer, Question, read_lines
from boxcycle.data.read import read_split
from boxcycle.data.splits import write_budget
from boxcycle.engine.checkpoint import load_weights
from boxcycle.methods import METHODS
from boxcycle.methods.experiment import Experiment
from boxcycle.methods.loading import load
from boxcycle.methods.ssm.strategy import Strategy
from boxcycle.methods.ssm.train import Config, in_balance, open_pool, round_settings
from boxcycle.methods.ssm.validation import Miner

from .cases import make_index

Configure = Callable[..., Config]


@pytest.fixture
def configured(configure: Any, scenes: Path, tmp_path: Path, tiny: str) -> Configure:
    """A run of two rounds on three labelled scenes and three others; an untrained one finds candidates everywhere."""
    torch.set_num_threads(1)
    index = read_split(scenes, "train")
    budget = tmp_path / "budget.json"
    write_budget(budget, index, [0, 1, 2], source="", split="train", unit="images", amount=3, seed=0)  # type: ignore[arg-type]

    def make(name: str, **changes: Any) -> Config:
        data = {"budget": budget} | changes.pop("data", {})
        ssm: dict[str, Any] = {
            "rounds": 2,
            "mining": {"min_score": 0.02, "min_side": 4, "prune": False, "targets": 2},
            "questions": {"count": 3, "min_prob": 0.05},
            "strategy": {"mine": "confidence", "threshold": 0.05, "top": 2},
        }
        ssm |= changes.pop("ssm", {})
        detector = {"backbone": tiny, "weights": "none"}
        fit = {"lr": 5e-4} | changes.pop("fit", {})  # classes stay nearly equally likely
        return configure("ssm", data=data, ssm=ssm, detector=detector, fit=fit, run=tmp_path / name, **changes)

    return make


def lines(folder: Path, name: str, kind: Any) -> list[Any]:
    return read_lines(folder / name, kind)


def test_what_a_run_leaves(configured: Configure) -> None:
    folder = METHODS["ssm"].train(configured("run"))
    rows = json.loads((folder / "labels.json").read_text())
    assert [row["round"] for row in rows] == [0, 1, 2]
    assert [row["questions"] for row in rows] == [0, 3, 6]
    assert rows[0]["pseudo_boxes"] == 0 < rows[1]["pseudo_boxes"]
    assert rows[0]["minutes"] == 0 < rows[1]["minutes"] < rows[2]["minutes"]
    assert rows[1]["annotated_percent"] == pytest.approx(100 * rows[1]["human_boxes"] / rows[0]["initial_boxes"])
    for number in (0, 1):
        part = folder / f"round-{number}"
        questions, answers = lines(part, "questions.jsonl", Question), lines(part, "answers.jsonl", Answer)
        assert {question.id for question in questions} == {answer.question for answer in answers}
        assert all(question.id.startswith(f"r{number}-") for question in questions)
    asked = [its for number in (0, 1) for its in lines(folder / f"round-{number}", "questions.jsonl", Question)]
    assert len({(question.image_id, question.box) for question in asked}) == 6
    assert load(folder).method == "ssm"
    assert {"config.yaml", "eval.json", "predictions.json", "report.html"} <= {file.name for file in folder.iterdir()}


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    configured: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = METHODS["ssm"].train(configured("whole"))
    candidates_of, calls = Miner.candidates_of, []

    def killed(self: Miner, image_id: int, *its: Any) -> Any:
        calls.append(image_id)
        if len(calls) == 5:  # the second image of the second round
            raise KeyboardInterrupt
        return candidates_of(self, image_id, *its)

    with monkeypatch.context() as patch:
        patch.setattr(Miner, "candidates_of", killed)
        with pytest.raises(KeyboardInterrupt):
            METHODS["ssm"].train(configured("killed"))
    again = METHODS["ssm"].train(configured("killed", resume=True))
    assert (again / "labels.json").read_text() == (whole / "labels.json").read_text()
    one, other = (load_weights(its / "checkpoints" / "last.safetensors").tensors for its in (whole, again))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)


@pytest.mark.slow
def test_annotations_of_the_pool_reach_training_through_answers_alone(
    configured: Configure, scenes: Path, tmp_path: Path
) -> None:
    poisoned = shutil.copytree(scenes, tmp_path / "poisoned")
    file = poisoned / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        if annotation["image_id"] > 3:
            annotation |= {"bbox": [1, 1, 5, 5], "category_id": 1, "area": 25, "segmentation": []}
    file.write_text(json.dumps(content))
    nobody = {"ssm": {"answers": "nobody"}}
    clean = METHODS["ssm"].train(configured("clean", **nobody))
    other = METHODS["ssm"].train(configured("other", data={"path": poisoned}, **nobody))
    one, two = (load_weights(its / "checkpoints" / "last.safetensors").tensors for its in (clean, other))
    assert all(one[name].equal(two[name]) for name in one)
    for name in ("round-1/mined/candidates-0-of-1.jsonl", "round-1/questions.jsonl"):
        assert (clean / name).read_text() == (other / name).read_text()
    assert (clean / "round-0" / "answers.jsonl").read_text() == ""


@pytest.mark.parametrize(
    "strategy",
    [
        {"mine": "consistency", "ask": "consistency"},
        {"mine": "self_paced", "tolerance": 4.0, "ask": "entropy"},
        {"mine": "nothing", "ask": "random", "unit": "image"},
        {"mine": "nothing", "ask": "margin", "unit": "image", "ignore": False},
        {"mine": "confidence", "ask": "nothing", "threshold": 0.05},
    ],
)
def test_every_strategy_runs(configured: Configure, strategy: dict[str, Any]) -> None:
    folder = METHODS["ssm"].train(configured("run", ssm={"rounds": 1, "strategy": strategy}))
    rows = json.loads((folder / "labels.json").read_text())
    assert bool(rows[1]["questions"]) == (strategy["ask"] != "nothing")
    if strategy.get("unit") == "image":
        answers = lines(folder / "round-0", "answers.jsonl", Answer)
        assert [answer.action for answer in answers].count("finish") == 3
    assert (rows[1]["pseudo_boxes"] > 0) == (strategy["mine"] == "confidence")  # the others need more than 0.5


def test_consistency_is_measured_only_where_it_is_looked_at() -> None:
    assert Strategy(mine="nothing", ask="consistency").needs_consistency
    assert not Strategy(mine="confidence", ask="random").needs_consistency


def test_later_rounds_have_their_own_length_and_order(configured: Configure) -> None:
    config = configured("run", ssm={"steps": 7, "ema": 0.9})
    first, second = round_settings(config, 0), round_settings(config, 1)
    assert (first.steps, second.steps, second.ema) == (1, 7, 0.9)
    assert second.seed == first.seed + 1
    with pytest.raises(ValueError, match="milestones"):
        configured("run", ssm={"steps": 7}, fit={"steps": 20, "schedule": "steps", "milestones": [10]})


def test_without_an_unlabelled_image_there_is_nothing_to_mine(configured: Configure, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"every image of split 'train' .* is labelled"):
        METHODS["ssm"].train(configured("run", data={"budget": None}))
    assert not (tmp_path / "run").exists()


@pytest.fixture
def drawn(scenes: Path, tmp_path: Path) -> Path:
    """The scenes as `boxcycle label` leaves them: other ids, and a box that no person drew in every image."""
    folder = shutil.copytree(scenes, tmp_path / "drawn")
    file = folder / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    for image in content["images"]:
        image["id"] += 100
    box = {"bbox": [5, 6, 20, 30], "area": 600, "iscrowd": 0, "category_id": content["categories"][2]["id"]}
    content["annotations"] = [{"id": n, "image_id": its["id"], **box} for n, its in enumerate(content["images"], 1)]
    file.write_text(json.dumps(content))
    (folder / LABELLED_BY).write_text("{}")
    return folder


def test_boxes_that_another_method_drew_teach_the_unlabelled_images(configured: Configure, drawn: Path) -> None:
    config = configured("run", ssm={"pseudo": drawn})
    pool, _ = open_pool(Experiment("ssm", config), config)
    assert pool.pseudo.image_ids.tolist() == [4, 5, 6]  # 1 to 3 are labelled: a person's word stands alone there
    assert pool.pseudo.boxes.tolist() == [[5, 6, 25, 36]] * 3
    assert pool.pseudo.labels.tolist() == [3, 3, 3]
    folder = METHODS["ssm"].train(configured("run", ssm={"pseudo": drawn, "rounds": 0}))
    assert json.loads((folder / "labels.json").read_text())[0]["pseudo_boxes"] == 3


def test_a_start_that_cannot_be(configured: Configure, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give one of them"):
        configured("run", ssm={"pseudo": drawn, "mined": "elsewhere"})
    with pytest.raises(DataError, match=r"drawn by a run, and an oracle would take them for the truth"):
        METHODS["ssm"].train(configured("run", data={"path": drawn}))
    file = drawn / "annotations" / "instances_train.json"
    file.write_text(file.read_text().replace('"file_name": "', '"file_name": "other-'))
    for image in (drawn / "images" / "train").iterdir():
        image.rename(image.with_name(f"other-{image.name}"))
    with pytest.raises(DataError, match=r"no box in an unlabelled image .* of its 6 images, 0 are found there"):
        METHODS["ssm"].train(configured("run", ssm={"pseudo": drawn}))
    assert not (tmp_path / "run").exists()


def test_several_processes_are_refused(configured: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        METHODS["ssm"].train(configured("run"))


def test_complete_images_are_half_of_what_a_round_learns_from(tmp_path: Path) -> None:
    index = make_index(tmp_path, [[(2, 2, 22, 22, 1, 0.9)]] * 6)
    pool = Pool.start(index, np.array([0, 1]))
    ids = index.image_ids.tolist()
    assert in_balance(pool).image_ids.tolist() == ids[:2]
    mined = pool.with_pseudo(regions(ids[2:], [[2, 2, 22, 22]] * 4, [1] * 4))
    assert in_balance(mined).image_ids.tolist() == ids + ids[:2]
    few = pool.with_pseudo(regions(ids[2:3], [[2, 2, 22, 22]], [1]))
    assert in_balance(few).image_ids.tolist() == ids[:3]
    nothing = Pool.start(index, np.zeros(0, dtype=np.int64)).with_pseudo(mined.pseudo)
    assert in_balance(nothing).image_ids.tolist() == ids[2:]
