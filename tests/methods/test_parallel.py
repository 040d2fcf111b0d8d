"""The multi-task detector under the engine: two processes are one, and a run that is killed loses nothing."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from boxcycle.engine.checkpoint import load_resume, load_weights
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import fit
from boxcycle.engine.metrics import read_metrics
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.backbone import RoIHead
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.two_stage import RegionConfig
from boxcycle.types import Target
from ranks import be_rank, free_port, run_together

LOSSES = ("rpn_objectness", "rpn_box", "class", "box", "multi_object", "closeness", "foreground", "refinement")


class TinyBackbone(nn.Module):
    """Three convolutions instead of a network."""

    stride, trunk_channels, head_channels = 16, 16, 24
    mean = std = (0.5, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU(), nn.Conv2d(8, 16, 4, 4), nn.ReLU())
        self.head = RoIHead(nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()))


def build(seed: int = 0) -> MultiTaskDetector:
    """A small detector with all tasks and the refinement."""
    torch.manual_seed(seed)
    regions = RegionConfig(sampled=8)
    config = DetectorConfig(anchor_sizes=(16, 32), proposals=20, roi_size=4, rpn_sampled=32, regions=regions)
    tasks = TaskConfig(windows=8, refined=4, stop_gradient=False, foreground=1.0)  # all of them, as the paper
    return MultiTaskDetector(FasterRCNN(3, config, backbone=TinyBackbone()), tasks)


def sample(position: int, *, empty: bool) -> tuple[Tensor, Target]:
    """Image number ``position`` of an endless stream; images differ in size."""
    generator = torch.Generator().manual_seed(position)
    height, width = 48 + 16 * (position % 2), 64
    count = 0 if empty else 1 + position % 3
    corners = torch.rand(count, 2, generator=generator) * 30
    sides = 8 + torch.rand(count, 2, generator=generator) * 9
    labels = torch.randint(1, 4, (count,), generator=generator)
    boxes = torch.cat([corners, corners + sides], 1)
    image = torch.rand(3, height, width, generator=generator)
    return image, Target(boxes=boxes, labels=labels, image_id=position, seed=position)


def make_batches(config: FitConfig, *, empty_half: bool) -> Callable[[int, int, int], Iterator]:
    """What ``fit`` wants; with ``empty_half`` the second half of every step's images has no boxes."""

    def batches(start_step: int, rank: int, world_size: int) -> Iterator[tuple[list[Tensor], list[Target]]]:
        share = config.batch_size // world_size
        for step in range(start_step, config.steps):
            places = range(rank * share, (rank + 1) * share)
            chosen = [
                sample(step * config.batch_size + place, empty=empty_half and place >= config.batch_size // 2)
                for place in places
            ]
            yield [image for image, _ in chosen], [target for _, target in chosen]

    return batches


def sum_of_scores(model: nn.Module) -> dict[str, float]:
    """An evaluation by real predictions, all but independent of what they are."""
    images = [sample(position, empty=True)[0] for position in (1000, 1001)]
    return {"AP50": sum(float(found["scores"].sum()) for found in model.predict(images))}


def train(folder: Path, config: FitConfig, *, empty_half: bool = False, seed: int = 0, resume: bool = False) -> None:
    """Train the detector with the engine, on one thread."""
    torch.set_num_threads(1)
    batches = make_batches(config, empty_half=empty_half)
    fit(build(seed), batches, config, folder, evaluate=sum_of_scores, resume=resume)


def train_as_rank(rank: int, port: int, folder: Path, config: FitConfig) -> None:
    """One of two gloo processes."""
    be_rank(rank, 2, port)
    train(folder, config, empty_half=True, seed=rank)  # from other weights: the first process's count
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Starts processes from one that has imported this file once, where no other test has started one before."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_parallel", "torch._dynamo"])
    return context


def test_two_processes_are_one_though_one_sees_no_box(processes: BaseContext, tmp_path: Path) -> None:
    config = FitConfig(steps=3, batch_size=4, lr=1e-3, log_every=1, device="cpu", clip="group")
    port = free_port()
    given = [(rank, port, tmp_path / "two", config) for rank in (0, 1)]
    alone = partial(train, tmp_path / "one", config, empty_half=True)
    assert run_together(processes, train_as_rank, given, meanwhile=alone) == [0, 0]
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    for step in (1, 2, 3):
        for name in ("loss", *LOSSES):
            assert two[step][name] == pytest.approx(one[step][name], abs=1e-5), (step, name)
    assert all(one[1][name] > 0 for name in LOSSES)
    last = [load_weights(tmp_path / name / "checkpoints" / "last.safetensors").tensors for name in ("one", "two")]
    assert all(torch.allclose(last[0][name], last[1][name], atol=1e-5) for name in last[0])


@pytest.mark.slow
def test_killed_at_ten_random_moments(processes: BaseContext, tmp_path: Path) -> None:
    """SIGKILL, in steps, saves and evaluations; then the run is finished, and equals the uninterrupted one."""
    config = FitConfig(
        steps=120,
        batch_size=2,
        log_every=5,
        eval_every=22,
        save_every=4,
        ema=0.9,
        clip="group",
        device="cpu",
        threads=1,
    )

    def start(name: str) -> BaseProcess:
        process = processes.Process(target=train, args=(tmp_path / name, config), kwargs={"resume": True})
        process.start()
        return process

    resume_file = tmp_path / "killed" / "checkpoints" / "resume.pt"
    whole, moments, steps = start("whole"), random.Random(1), []
    for _ in range(10):
        process = start("killed")
        wait_for_saves(resume_file, moments.randint(2, 3), process)  # the first is where it begins
        time.sleep(moments.uniform(0, 0.02))
        process.kill()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, "the run ended before it was killed"
        steps.append(load_resume(resume_file.parent)["step"])
    assert len(set(steps)) > 5, f"the kills came at {steps}: hardly in the middle of training"
    last = start("killed")
    for process in (last, whole):
        process.join(120)
        assert process.exitcode == 0
    for name in ("best", "last"):
        one, other = (
            load_weights(tmp_path / run / "checkpoints" / f"{name}.safetensors") for run in ("whole", "killed")
        )
        assert one.metadata == other.metadata
        assert one.tensors.keys() == other.tensors.keys()
        assert all(tensor.equal(other.tensors[key]) for key, tensor in one.tensors.items())
    start_weights = build().state_dict()
    assert not all(tensor.equal(start_weights[key]) for key, tensor in one.tensors.items())


def wait_for_saves(file: Path, count: int, process: BaseProcess) -> None:
    """Return when ``file`` has been replaced ``count`` times."""

    def stamp() -> int:
        try:
            return file.stat().st_mtime_ns
        except FileNotFoundError:  # not there yet, or it has stepped aside for the next one
            return 0

    for _ in range(count):
        before, deadline = stamp(), time.monotonic() + 120
        while stamp() in (0, before):
            assert process.is_alive(), "the run ended before it was killed"
            assert time.monotonic() < deadline, "the run saves nothing"
            time.sleep(0.001)
