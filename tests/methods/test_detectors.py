"""The detector is chosen by name, and everything around a run works with each of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import torch

from boxcycle.config import ConfigError, load_config
from boxcycle.methods import METHODS
from boxcycle.methods.evaluate import EvalConfig, evaluate
from boxcycle.methods.experiment import Experiment, TrainConfig
from boxcycle.methods.loading import load
from boxcycle.methods.predict import PredictConfig, predict
from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import DETECTORS, build_detector
from boxcycle.models.rfcn import RFCN

MakeConfig = Callable[..., TrainConfig]
SMALL = {"name": "rfcn", "roi_size": 3}


@pytest.fixture(scope="module")
def rfcn_run(configure: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step of R-FCN; tests leave it as it is."""
    torch.set_num_threads(1)
    config = configure(detector=SMALL, run=tmp_path_factory.mktemp("runs") / "rfcn")
    return METHODS["supervised"].train(config)


def test_every_name_is_a_detector() -> None:
    assert set(get_args(DetectorConfig.model_fields["name"].annotation)) == set(DETECTORS)


@pytest.mark.parametrize(("size", "expected"), [(None, 3), (5, 5)])
def test_the_cells_of_a_region_have_a_default_of_the_detector(tiny: str, size: int | None, expected: int) -> None:
    detector = build_detector(2, DetectorConfig(name="rfcn", backbone=tiny, weights="none", roi_size=size))
    assert isinstance(detector, RFCN)
    assert detector.head.region.bins == expected
    plain = build_detector(2, DetectorConfig(backbone=tiny, weights="none", roi_size=size))
    assert plain.head.region.size == (size or 7)


@pytest.mark.parametrize("method", ["supervised", "mtl_ssl"])
@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("detector.name=rfnc", "'detector.name' must be 'faster_rcnn' or 'rfcn'; found 'rfnc'"),
        ("detector.nam=rfcn", "no 'detector.nam'; did you mean 'detector.name'?"),
    ],
)
def test_a_wrong_name_gets_its_sentence(method: str, word: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(METHODS[method].Config, overrides=["data=d", word])
    assert str(caught.value) == sentence


def test_a_run_is_evaluated_and_predicts(rfcn_run: Path, scenes: Path, tmp_path: Path) -> None:
    assert isinstance(load(rfcn_run, device="cpu").model, RFCN)
    evaluate(EvalConfig(run=rfcn_run, out=tmp_path / "eval", device="cpu"))
    assert "AP50" in json.loads((tmp_path / "eval" / "eval.json").read_text())["summary"]
    picture = next(scenes.rglob("*.png"), None) or next(scenes.rglob("*.jpg"))
    predict(PredictConfig(run=rfcn_run, images=str(picture), out=tmp_path / "out", device="cpu"))
    assert (tmp_path / "out" / "predictions.json").is_file()


def test_mtl_ssl_starts_from_a_run_of_the_same_detector(configure: MakeConfig, rfcn_run: Path) -> None:
    config = configure("mtl_ssl", detector=SMALL, init=rfcn_run)
    model = METHODS["mtl_ssl"].build(config, Experiment("mtl_ssl", config).class_names)
    trained = load(rfcn_run, device="cpu").model.head.region.scores.weight
    assert model.detector.head.region.scores.weight.equal(trained)
    assert model.window_head.scores.weight.equal(trained)


@pytest.mark.parametrize("method", ["supervised", "mtl_ssl"])
@pytest.mark.parametrize("name", DETECTORS)
def test_a_run_of_the_other_detector_is_refused_by_name(
    configure: MakeConfig, finished: Path, rfcn_run: Path, method: str, name: str
) -> None:
    run, other = (rfcn_run, "rfcn") if name == "faster_rcnn" else (finished, "faster_rcnn")
    config = configure(method, detector={"name": name}, init=run)
    sentence = rf"best.safetensors is of another model \({other} on efficientnet_lite0\): \d+ tensors differ, [^\n]*$"
    with pytest.raises(ValueError, match=sentence):
        METHODS[method].build(config, Experiment(method, config).class_names)


def test_a_run_goes_on_with_its_own_detector_only(configure: MakeConfig, rfcn_run: Path) -> None:
    with pytest.raises(ValueError, match=r"started with other settings: .*detector\.name was rfcn and is faster_rcnn"):
        Experiment("supervised", configure(run=rfcn_run, resume=True))
