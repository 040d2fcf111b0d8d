"""Two processes are one for every method that trains, and two shards of a pool are mined at the same time.

`mtl_ssl` under the engine: test_parallel.py; `pretrain joindet`: joindet/test_train.py; `ssm` trains in one process.
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
import torch

from boxcycle.data.read import read_split
from boxcycle.data.splits import write_budget
from boxcycle.engine.checkpoint import load_weights
from boxcycle.engine.metrics import read_metrics
from boxcycle.methods import METHODS
from boxcycle.methods.ssm.mine import MineConfig, run_mine
from ranks import be_rank, free_port, run_together

DETECTORS: dict[str, dict[str, Any]] = {
    "supervised": {"roi_size": 4, "proposals": 20, "regions": {"sampled": 8}},
    "detr": {"width": 32, "encoder_layers": 1, "decoder_layers": 1, "feed_forward": 32, "queries": 12},
    "ws_jds": {"roi_size": 4, "sampled": 8, "width": 16},
}


def settings(method: str, scenes: Path, run: Path) -> dict[str, Any]:
    """Two steps of four images, by SGD: the first steps of AdamW are as long for gradients of rounding errors."""
    fit = {"steps": 2, "batch_size": 4, "workers": 0, "device": "cpu", "optimizer": "sgd", "lr": 1e-3, "log_every": 1}
    data = {"path": str(scenes), "resize": {"short": 64, "long": 64}}
    given = {"data": data, "detector": DETECTORS[method], "fit": fit, "run": str(run)}
    if method == "ws_jds":
        given["proposals"] = {"cache": str(run.parent / f"proposals-{run.name}"), "workers": 0, "limit": 20}
    return given


def train(method: str, given: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    METHODS[method].train(METHODS[method].Config.model_validate(given))


def train_as_rank(rank: int, port: int, method: str, given: dict[str, Any]) -> None:
    """One of two gloo processes."""
    be_rank(rank, 2, port)
    train(method, given)
    torch.distributed.destroy_process_group()


def mine_shard(shard: str, given: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    run_mine(MineConfig.model_validate(given | {"shard": shard}))


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Starts processes from one that has imported this file once, where no other test has started one before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_two_processes", "torch._dynamo"])
    return context


@pytest.mark.parametrize("method", DETECTORS)
def test_two_processes_are_one(processes: BaseContext, scenes: Path, tmp_path: Path, method: str) -> None:
    if method == "ws_jds":
        pytest.importorskip("cv2", reason="needs the extra proposals")
    port, given = free_port(), settings(method, scenes, tmp_path / "two")
    assert run_together(processes, train_as_rank, [(rank, port, method, given) for rank in (0, 1)]) == [0, 0]
    train(method, settings(method, scenes, tmp_path / "one"))
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    for step in (1, 2):
        for name in (name for name in one[step] if name == "loss" or (name in two[step] and "grad_norm" in name)):
            assert two[step][name] == pytest.approx(one[step][name], rel=1e-3), (step, name)
    last = [load_weights(tmp_path / name / "checkpoints" / "last.safetensors").tensors for name in ("one", "two")]
    assert last[0].keys() == last[1].keys()
    assert all(torch.allclose(last[0][name], last[1][name], atol=1e-5) for name in last[0])
    assert (tmp_path / "two" / "report.html").exists()


def test_shards_mined_at_the_same_time_are_one_pass(
    processes: BaseContext, finished: Path, scenes: Path, tmp_path: Path
) -> None:
    budget, index = tmp_path / "budget.json", read_split(scenes, "train")
    write_budget(budget, index, [0, 1, 2], source="", split="train", unit="images", amount=3, seed=0)  # type: ignore[arg-type]
    given = {"run": str(finished), "budget": str(budget), "device": "cpu"}
    given |= {"mining": {"min_score": 0.02, "min_side": 4, "targets": 1}, "strategy": {"ask": "random"}}
    mine_shard("0/1", given | {"out": str(tmp_path / "whole")})
    two = given | {"out": str(tmp_path / "two")}
    assert run_together(processes, mine_shard, [(f"{number}/2", two) for number in (0, 1)]) == [0, 0]
    run_mine(MineConfig.model_validate(two | {"shard": "0/2"}))  # both may have missed that the other was done
    for name in ("questions.jsonl", "pseudo.json"):
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "whole" / name).read_text()
