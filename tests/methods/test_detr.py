"""Deformable DETR as a method: by command line, stopped and resumed, and started from what others saved."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boxcycle.engine.checkpoint import load_weights
from boxcycle.methods import detr
from boxcycle.models.detr_exchange import write_transformers
from command_line import boxcycle, stopped_in_step

SMALL = {"levels": 2, "width": 32, "encoder_layers": 1, "decoder_layers": 2, "feed_forward": 32, "queries": 10}
CLASSES = ("cup", "plate", "spoon")


pytestmark = pytest.mark.usefixtures("quiet_place")


def settings(scenes: Path) -> list[str]:
    detector = [f"detector.{name}={value}" for name, value in SMALL.items()]
    size = ["data.resize.short=64", "data.resize.long=64", "fit.workers=0", "fit.device=cpu", "fit.batch_size=2"]
    return ["train", "detr", f"data={scenes}", *detector, *size]


def config(**changes: Any) -> detr.Config:
    given = {"data": {"path": "nowhere"}, "detector": {"weights": "none", **SMALL}, **changes}
    return detr.Config.model_validate(given)


def heads(tensors: dict[str, Tensor]) -> set[str]:
    return {name for name in tensors if name.startswith(detr.CLASS_HEADS)}


def test_train_eval_predict(scenes: Path) -> None:
    boxcycle(*settings(scenes), "run=run", "fit.steps=2")
    assert "AP" in boxcycle("eval", "run=run", "device=cpu")
    boxcycle("predict", "run=run", f"images={scenes}/images/val", "out=found", "min_score=0", "device=cpu")
    rows = json.loads(Path("found/predictions.json").read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3}
    assert all(0 < row["score"] < 1 for row in rows)
    assert "giou" in Path("run/metrics.csv").read_text().splitlines()[0]


def test_a_stopped_run_goes_on_to_the_same_weights(scenes: Path) -> None:
    boxcycle(*settings(scenes), "run=whole", "fit.steps=4")
    with stopped_in_step(3):
        boxcycle(*settings(scenes), "run=parts", "fit.steps=4", exit_code=128 + signal.SIGTERM)
    assert "resuming at step 3" in boxcycle("train", "detr", "config=parts/config.yaml", "resume=true")
    one, other = (load_weights(Path(run, "checkpoints", "last.safetensors")).tensors for run in ("whole", "parts"))
    assert all(tensor.equal(other[name]) for name, tensor in one.items())


def test_starts_from_a_run_with_other_classes_but_for_its_class_heads(
    scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    boxcycle(*settings(scenes), "run=run", "fit.steps=1")
    trained = load_weights(Path("run/checkpoints/last.safetensors")).tensors
    torch.manual_seed(1)
    fresh = detr.build(config(), CLASSES).state_dict()
    torch.manual_seed(1)
    started = detr.build(config(init="run"), CLASSES).state_dict()
    assert "knows other classes" in capsys.readouterr().out
    assert heads(started)
    for name, tensor in started.items():
        assert tensor.equal(fresh[name] if name in heads(started) else trained[name]), name


def test_starts_from_what_transformers_saved(tmp_path: Path, tiny: str) -> None:
    given = {"detector": {"weights": "none", "backbone": tiny, **SMALL}}
    torch.manual_seed(0)
    saved = detr.build(config(**given), CLASSES)
    write_transformers(saved, CLASSES, tmp_path / "theirs")
    started = detr.build(config(**given, init=tmp_path / "theirs"), CLASSES).state_dict()
    assert all(tensor.equal(started[name]) for name, tensor in saved.state_dict().items())
    other = {"detector": given["detector"] | {"width": 64}}
    with pytest.raises(ValueError, match="theirs is of another model"):
        detr.build(config(**other, init=tmp_path / "theirs"), CLASSES)


def test_backbone_and_places_learn_more_slowly() -> None:
    groups = {group["name"]: group for group in detr.build(config(), CLASSES).parameter_groups()}
    scales = {name: group.get("lr_scale", 1.0) for name, group in groups.items()}
    assert scales == {"backbone": 0.1, "places": 0.1, "transformer": 1.0}
    # offsets (weight and bias) of one encoder and two decoder layers, and the references
    assert len(groups["places"]["params"]) == 2 * 3 + 2


@pytest.mark.parametrize(
    ("detector", "sentence"),
    [
        ({"two_stage": True, "refine": False}, "two_stage needs refine=true"),
        ({"width": 64, "heads": 7}, "width must be a multiple of heads"),
        ({"width": 40}, "multiple of 32"),
    ],
)
def test_settings_that_cannot_be_are_refused(detector: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        config(detector=detector)


def test_three_levels_need_a_stage_of_stride_32() -> None:
    with pytest.raises(ValueError, match="vgg16 has no stage of stride 32 for 3 levels or more; there are efficient"):
        detr.build(config(detector=SMALL | {"backbone": "vgg16", "weights": "none", "levels": 3}), CLASSES)
