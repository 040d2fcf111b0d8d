"""`boxcycle mine`: the pool of a run mined in shards; its questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from boxcycle.data.check import DataError
from boxcycle.data.questions import Answer, Question, read_lines
from boxcycle.data.read import read_split
from boxcycle.data.splits import write_budget
from boxcycle.methods import METHODS
from boxcycle.methods.ssm.mine import MineConfig, run_mine
from boxcycle.methods.ssm.questions import write_lines


@pytest.fixture
def run(configure: Any, scenes: Path, tmp_path: Path, tiny: str) -> Path:
    """A supervised run of one step on three of six scenes."""
    torch.set_num_threads(1)
    index, budget = read_split(scenes, "train"), tmp_path / "budget.json"
    write_budget(budget, index, [0, 1, 2], source="", split="train", unit="images", amount=3, seed=0)  # type: ignore[arg-type]
    detector = {"backbone": tiny, "weights": "none"}
    fit = {"lr": 1e-4}  # classes stay nearly equally likely: there is something to mine
    config = configure(data={"budget": budget}, detector=detector, fit=fit, run=tmp_path / "run")
    return METHODS["supervised"].train(config)


def mine(run: Path, **changes: Any) -> Path:
    settings: dict[str, Any] = {
        "mining": {"min_score": 0.02, "min_side": 4},
        "questions": {"count": 4},
        "strategy": {"mine": "confidence", "threshold": 0.05, "ask": "random"},
    }
    settings["questions"]["min_prob"] = 0.05
    run_mine(MineConfig.model_validate({"run": run, "device": "cpu", **settings, **changes}))
    return changes.get("out") or run / "mined"


def test_shards_give_what_one_pass_gives(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = mine(run)
    questions = read_lines(whole / "questions.jsonl", Question)
    assert len(questions) == 4
    assert {question.image_id for question in questions} <= {4, 5, 6}
    pseudo = json.loads((whole / "pseudo.json").read_text())
    assert pseudo
    assert {row["image_id"] for row in pseudo} <= {4, 5, 6}
    mine(run, out=tmp_path / "parts", shard="1/2")
    assert "shard 1/2 is done" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "questions.jsonl").exists()
    mine(run, out=tmp_path / "parts", shard="0/2")
    for name in ("questions.jsonl", "pseudo.json"):
        assert (tmp_path / "parts" / name).read_text() == (whole / name).read_text()


def test_what_was_answered_is_not_asked_again(run: Path, tmp_path: Path) -> None:
    first = read_lines(mine(run) / "questions.jsonl", Question)
    rejected = [Answer(question=q.id, image_id=q.image_id, action="reject", box=q.box) for q in first]
    finished = Answer(question="x", image_id=4, action="finish")
    write_lines(tmp_path / "answers.jsonl", [*rejected, finished])
    again = read_lines(
        mine(run, out=tmp_path / "again", answers=tmp_path / "answers.jsonl") / "questions.jsonl", Question
    )
    assert not {question.box for question in again} & {question.box for question in first}
    assert {question.image_id for question in again} <= {5, 6}


def test_mistakes(run: Path, configure: Any, tmp_path: Path, tiny: str) -> None:
    with pytest.raises(ValueError, match=r"the last of 2 is 1/2; got 2/2"):
        mine(run, shard="2/2")
    detector = {"backbone": tiny, "weights": "none"}
    whole = METHODS["supervised"].train(configure(detector=detector, run=tmp_path / "whole"))
    with pytest.raises(DataError, match="nothing to mine; name the labelled ones with budget"):
        mine(whole)
