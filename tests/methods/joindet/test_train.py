"""JoinDet by command line: pretrained from images alone, stopped and resumed, shared by processes, then fine-tuned."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from boxcycle.data.check import DataError
from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.one_class import without_any_box
from boxcycle.engine.checkpoint import load_weights
from boxcycle.methods import detr, joindet
from boxcycle.methods.joindet import batches
from boxcycle.methods.joindet.store import Priors, collect, load_priors
from command_line import boxcycle, stopped_in_step

SMALL = {"levels": 2, "width": 32, "encoder_layers": 1, "decoder_layers": 2, "feed_forward": 32, "queries": 12}


pytestmark = pytest.mark.usefixtures("quiet_place")


def settings(data: Path) -> list[str]:
    detector = [f"detector.{name}={value}" for name, value in SMALL.items()]
    size = ["data.resize.short=64", "data.resize.long=64", "fit.workers=0", "fit.device=cpu", "fit.batch_size=2"]
    return [f"data={data}", *detector, *size]


def pretrain(data: Path) -> list[str]:
    return ["pretrain", "joindet", *settings(data), "priors.every=2"]


def assert_same_priors(one: Priors, other: Priors, *, exact: bool = True) -> None:
    np.testing.assert_array_equal(one.offsets, other.offsets)
    compare = np.testing.assert_array_equal if exact else np.testing.assert_allclose
    closeness = {} if exact else {"atol": 1e-4}
    for name in ("boxes", "scores", "found", "density"):
        compare(getattr(one, name), getattr(other, name), err_msg=name, **closeness)  # type: ignore[operator]


def assert_same_run(one: Path, other: Path, updates: int) -> None:
    for number in range(updates + 1):
        files = [folder / "priors" / f"{number}.npz" for folder in (one, other)]
        assert_same_priors(*map(load_priors, files))
    weights = [load_weights(folder / "checkpoints" / "last.safetensors").tensors for folder in (one, other)]
    assert all(tensor.equal(weights[1][name]) for name, tensor in weights[0].items())


def test_pretrained_evaluated_and_fine_tuned(scenes: Path) -> None:
    said = boxcycle(*pretrain(scenes), "run=pre", "fit.steps=5")
    assert "learns from 6 images, and no box" in said
    assert [line.split(":")[0] for line in said.splitlines() if line.startswith("priors")] == [
        f"priors {number}" for number in range(3)
    ]
    assert {file.name for file in Path("pre").iterdir()} >= {
        "predictions.json",
        "eval.json",
        "report.html",
        "priors.html",
    }
    assert Path("pre/priors.html").read_text().count("<img") == 6 * 3, "six images, three updates"
    assert "foreground" in boxcycle("eval", "run=pre", "device=cpu")
    recall = json.loads(Path("pre/eval-val/eval.json").read_text())["summary"]["AR100"]
    assert recall == json.loads(Path("pre/eval.json").read_text())["summary"]["AR100"]
    said = boxcycle("train", "detr", *settings(scenes), "init=pre", "run=fine", "fit.steps=1", "fit.lr=1e-12")
    assert "transformer.class_heads starts anew" in said
    before = load_weights(Path("pre/checkpoints/last.safetensors")).tensors
    after = load_weights(Path("fine/checkpoints/last.safetensors")).tensors
    for name, tensor in after.items():
        same = torch.allclose(tensor, before[f"detector.{name}"]) if "class_heads" not in name else True
        assert same, name
    assert {name.removeprefix("detector.") for name in before if not name.startswith("embedding.")} == set(after)


def test_a_run_as_detector_weights_is_one_as_init(scenes: Path) -> None:
    boxcycle(*pretrain(scenes), "run=pre", "fit.steps=1")
    given = {"data": {"path": scenes}, "detector": SMALL}
    states = []
    for changes in ({"init": "pre"}, {"detector": SMALL | {"weights": "pre"}}):
        torch.manual_seed(0)
        states.append(detr.build(detr.Config.model_validate(given | changes), ("cup", "plate")).state_dict())
    names = {name for name in states[0] if not name.startswith(detr.CLASS_HEADS)}
    assert all(states[0][name].equal(states[1][name]) for name in names)


def test_a_folder_of_images_is_enough(scenes: Path) -> None:
    boxcycle(*pretrain(scenes / "images" / "train"), "run=pre", "fit.steps=1", "jitter=0.5,2")
    assert Path("pre/checkpoints/last.safetensors").is_file()
    assert not Path("pre/eval.json").exists(), "there is nothing to judge by"


def test_boxes_and_classes_are_not_looked_at(scenes: Path) -> None:
    """The folder of images and the annotated data set give the same priors and weights."""
    boxcycle(*pretrain(scenes), "run=annotated", "fit.steps=3")
    boxcycle(*pretrain(scenes / "images" / "train"), "run=plain", "fit.steps=3")
    one, other = (load_priors(Path(run, "priors", "1.npz")) for run in ("annotated", "plain"))
    assert_same_priors(one, other)


@pytest.fixture(scope="module")
def uninterrupted(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps, with an update after two and four of them."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("runs") / "whole"
    boxcycle(*pretrain(scenes), f"run={run}", "fit.steps=5")
    return run


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_stopped_run_goes_on_to_the_same_priors_and_weights(scenes: Path, uninterrupted: Path, step: int) -> None:
    """Stopped within a period, before an update and after it."""
    with stopped_in_step(step):
        boxcycle(*pretrain(scenes), "run=parts", "fit.steps=5", exit_code=128 + signal.SIGTERM)
    assert f"resuming at step {step}" in boxcycle("pretrain", "joindet", "config=parts/config.yaml", "resume=true")
    assert_same_run(uninterrupted, Path("parts"), updates=2)


class Killed(BaseException):
    """What no handler catches."""


@pytest.mark.parametrize("image", [2, 9, 20, 33])
def test_killed_in_a_sweep_it_goes_on_to_the_same(
    scenes: Path, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch, image: int
) -> None:
    """Among the pictures and in the sweeps for R_0, R_1 and R_2; what was trained since the last save comes again."""
    whole, seen = batches.Batches.view, 0

    def dying_view(*given: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen > image:
            raise Killed
        return whole(*given)

    with monkeypatch.context() as context:
        context.setattr(batches.Batches, "view", dying_view)
        with pytest.raises(Killed):
            boxcycle(*pretrain(scenes), "run=parts", "fit.steps=5")
    boxcycle("pretrain", "joindet", "config=parts/config.yaml", "resume=true")
    assert_same_run(uninterrupted, Path("parts"), updates=2)


@pytest.mark.parametrize("first", ["random", "proposals"])
def test_rivals_by_one_setting(scenes: Path, first: str) -> None:
    if first == "proposals":
        pytest.importorskip("cv2")
    words = [f"priors.first={first}", "priors.every=0", "proposals.cache=cache", "proposals.workers=0"]
    boxcycle(*pretrain(scenes), *words, "run=pre", "fit.steps=3")
    assert [file.name for file in Path("pre/priors").iterdir()] == ["0.npz"]
    priors = load_priors(Path("pre/priors/0.npz"))
    assert (np.diff(priors.offsets) == 30).all() if first == "random" else len(priors.boxes) > 0


def test_an_image_without_a_prior_is_not_learnt_from(scenes: Path) -> None:
    index = without_any_box(open_split(DataConfig(path=scenes), "train"))
    box, nothing = torch.tensor([[0.25, 0.5, 0.5, 1.0]]), torch.zeros(0, 4)
    found = [(box, torch.ones(1), 1, 0, 0.1) if i % 2 else (nothing, torch.zeros(0), 0, 0, 0.1) for i in range(6)]
    learnt = batches.learnable(index, collect(found, "f"))
    assert learnt.image_ids.tolist() == index.image_ids[1::2].tolist()
    sizes = learnt.image_sizes.tolist()
    assert learnt.boxes.tolist() == [[w / 4, h / 2, w / 2, h] for h, w in sizes]
    assert learnt.class_names == ("foreground",)
    with pytest.raises(DataError, match=r"no image in .* has a prior to learn from: 0\.0 priors an image"):
        batches.learnable(index, collect(found[::2] * 2, "f"))


def test_priors_of_another_run_are_not_taken(scenes: Path) -> None:
    """R_0 of other settings lies in the folder; it is made anew."""
    boxcycle(*pretrain(scenes), "run=one", "fit.steps=1", "priors.tau=0.4")
    boxcycle(*pretrain(scenes), "run=two", "fit.steps=1")
    Path("two/priors/0.npz").write_bytes(Path("one/priors/0.npz").read_bytes())
    shutil.rmtree("two/checkpoints")
    strange = load_priors(Path("two/priors/0.npz")).fingerprint
    boxcycle(*pretrain(scenes), "run=two", "fit.steps=1", "resume=true")
    assert load_priors(Path("two/priors/0.npz")).fingerprint != strange


def test_each_verb_sends_to_the_other(scenes: Path) -> None:
    assert "boxcycle pretrain joindet" in boxcycle("train", "joindet", *settings(scenes), exit_code=2)
    assert "no method 'detr'" in boxcycle("pretrain", "detr", *settings(scenes), exit_code=2)
    assert "joindet" in boxcycle("pretrain")
    assert "joindet" not in boxcycle("train")


def test_the_python_side(scenes: Path) -> None:
    given = {"data": {"path": scenes, "resize": {"short": 64, "long": 64}}, "detector": SMALL, "run": "pre"}
    fit = {"steps": 1, "batch_size": 2, "workers": 0, "device": "cpu"}
    assert joindet.train(joindet.Config.model_validate(given | {"fit": fit})) == Path("pre")


@pytest.mark.slow
def test_two_processes_make_the_priors_of_one(scenes: Path) -> None:
    words = [*pretrain(scenes), "priors.every=1", "fit.steps=2"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "boxcycle.cli", *words, "run=two"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    boxcycle(*words, "run=one")
    first, second = ([load_priors(Path(run, "priors", f"{n}.npz")) for run in ("one", "two")] for n in (0, 1))
    assert_same_priors(*first)
    assert_same_priors(*second, exact=False)  # gradients are summed in another order
    assert done.stdout.count("priors 0:") == 1
