"""What surrounds a training run: the data it takes, the weights it starts from, the files it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from boxcycle.data.check import DataError
from boxcycle.engine.checkpoint import load_weights, save_weights
from boxcycle.engine.signals import Interrupted
from boxcycle.evaluation.predictions import read_predictions
from boxcycle.methods import METHODS, experiment
from boxcycle.methods.experiment import Experiment, TrainConfig, none_for_nan
from boxcycle.methods.loading import load
from boxcycle.methods.weights import class_difference, load_detector_weights
from boxcycle.models.backbone_calibration import uncalibrated
from command_line import stopped_in_step

MakeConfig = Callable[..., TrainConfig]
CLASSES = ("cup", "plate")


def change_categories(data: Path, split: str, change: Callable[[list[dict]], list[dict]]) -> None:
    """Edit the list of categories of a COCO file."""
    file = data / "annotations" / f"instances_{split}.json"
    content = json.loads(file.read_text())
    content["categories"] = change(content["categories"])
    file.write_text(json.dumps(content))


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    """A copy of the scenes that a test may change."""
    return shutil.copytree(scenes, tmp_path / "scenes")


def test_a_run_leaves_its_files_and_they_agree(finished: Path, configure: MakeConfig) -> None:
    names = {file.name for file in finished.iterdir()}
    assert names >= {"config.yaml", "env.json", "metrics.csv", "predictions.json", "eval.json", "report.html"}
    assert {file.name for file in (finished / "checkpoints").glob("*.safetensors")} == {
        "best.safetensors",
        "last.safetensors",
    }
    settled = yaml.safe_load((finished / "config.yaml").read_text())
    assert (settled["run"], settled["resume"], settled["overwrite"]) == (str(finished), False, False)
    with_run = configure(run=finished)
    index = Experiment("supervised", with_run.model_copy(update={"run": None})).val_index
    kept = read_predictions(finished / "predictions.json", index)
    again, metrics = Experiment("supervised", with_run.model_copy(update={"run": None})).evaluate(load(finished).model)
    for one, other in zip(kept, again, strict=True):
        assert (one.image_id, one.labels.tolist()) == (other.image_id, other.labels.tolist())
        assert (one.boxes == other.boxes).all()
        assert (one.scores == other.scores).all()
    assert json.loads((finished / "eval.json").read_text())["summary"] == none_for_nan(metrics.summary)


def test_the_predictions_of_the_best_weights_are_made_once(
    configure: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    whole = experiment.predict_dataset
    monkeypatch.setattr(experiment, "predict_dataset", lambda *given, **more: calls.append(1) or whole(*given, **more))
    config = configure(run=tmp_path / "run", fit={"steps": 2, "eval_every": 1})
    METHODS["supervised"].train(config)
    assert len(calls) == 2
    METHODS["supervised"].train(config.model_copy(update={"resume": True}))  # does not know what its best ones found
    assert len(calls) == 3


def test_other_processes_train_but_do_not_touch_the_folder(
    configure: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photo.jpg").touch()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(experiment, "fit", lambda *given, **more: None)
    run = Experiment("supervised", configure(run=tmp_path, overwrite=True))
    run.fit(torch.nn.Linear(1, 1))
    run.finish(torch.nn.Linear(1, 1))
    assert [file.name for file in tmp_path.iterdir()] == ["photo.jpg"]


def test_a_run_that_cannot_begin_leaves_the_old_one(configure: MakeConfig, finished: Path, tmp_path: Path) -> None:
    old = shutil.copytree(finished, tmp_path / "old")
    detector = {"backbone": "efficientnet", "roi_size": 4, "proposals": 20}
    with pytest.raises(ValueError, match="no backbone 'efficientnet'"):
        METHODS["supervised"].train(configure(run=old, overwrite=True, detector=detector))
    assert (old / "report.html").exists()


def test_classes_of_the_other_split_are_matched_by_name(configure: MakeConfig, data: Path) -> None:
    before = Experiment("supervised", configure(data={"path": data})).val_index
    change_categories(data, "val", lambda categories: categories[::-1])
    after = Experiment("supervised", configure(data={"path": data})).val_index
    assert after.class_names == before.class_names
    assert after.labels.tolist() == before.labels.tolist()


def test_other_classes_in_the_other_split_are_an_error_that_names_them(configure: MakeConfig, data: Path) -> None:
    change_categories(data, "val", lambda rows: [row | {"name": row["name"].replace("cup", "mug")} for row in rows])
    with pytest.raises(DataError, match=r"instances_val.json: .* lacks 'cup' and has 'mug' besides"):
        Experiment("supervised", configure(data={"path": data}))


def test_a_budget_chooses_the_images(configure: MakeConfig, data: Path, tmp_path: Path) -> None:
    everything = Experiment("supervised", configure(data={"path": data})).train_index
    (tmp_path / "budget.json").write_text(json.dumps({"labelled": list(everything.file_names)[1:3]}))
    chosen = Experiment("supervised", configure(data={"path": data, "budget": tmp_path / "budget.json"})).train_index
    assert list(chosen.file_names) == list(everything.file_names)[1:3]
    assert chosen.class_names == everything.class_names


def test_images_alone_teach_no_boxes(configure: MakeConfig, data: Path) -> None:
    with pytest.raises(DataError, match=r"split 'train' of .* has no annotated image to learn from"):
        Experiment("supervised", configure(data={"path": data / "images" / "train", "val": "train"}))


# --- masks


def test_masks_reach_the_model_where_it_asks_for_them(configure: MakeConfig, tmp_path: Path) -> None:
    seen = []

    class Looks(torch.nn.Linear):
        def __init__(self) -> None:
            super().__init__(1, 1)
            self.loss_weights = {"loss": 1.0}

        def forward(self, images: list[torch.Tensor], targets: tuple[dict, ...] = ()) -> object:
            if not self.training:
                return [detections() for _ in images]
            seen.extend(
                tuple(its["masks"].shape[1:]) == tuple(image.shape[1:])
                for image, its in zip(images, targets, strict=True)
            )
            return {"loss": sum(parameter.sum() for parameter in self.parameters())}

    def detections() -> dict[str, torch.Tensor]:
        empty = torch.zeros(0)
        return {"boxes": torch.zeros(0, 4), "labels": empty.long(), "scores": empty, "probs": torch.zeros(0, 14)}

    config = configure(run=tmp_path / "run", fit={"eval_every": 0})
    Experiment("supervised", config).fit(Looks(), masks=True)
    assert seen
    assert all(seen)


def test_masks_that_no_object_has_are_an_error(configure: MakeConfig, data: Path, tmp_path: Path) -> None:
    file = data / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    file.write_text(json.dumps(content))
    config = configure("mtl_ssl", data={"path": data}, run=tmp_path / "run", tasks={"foreground_masks": True})
    with pytest.raises(DataError, match=r"split 'train' of .* has no segmentation masks to learn from"):
        METHODS["mtl_ssl"].train(config)
    assert not (tmp_path / "run").exists()


# --- weights to start from


class Head(torch.nn.Linear):
    """Stands for a detector."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__(3, outputs)


def saved(file: Path, model: torch.nn.Module, **metadata: str) -> Path:
    save_weights(file, model.state_dict(), metadata)
    return file


@pytest.mark.parametrize("prefix", ["", "detector."])
def test_a_detector_starts_from_a_run_of_any_method(tmp_path: Path, prefix: str) -> None:
    old, new = Head(), Head()
    state = {prefix + name: tensor for name, tensor in old.state_dict().items()}
    if prefix:
        state["closeness_head.weight"] = torch.zeros(1)
    (tmp_path / "checkpoints").mkdir()
    save_weights(tmp_path / "checkpoints" / "best.safetensors", state, {"class_names": json.dumps(CLASSES)})
    load_detector_weights(new, tmp_path, CLASSES)
    assert new.weight.equal(old.weight)


def test_weights_for_other_classes_are_refused_with_the_difference(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", Head(), class_names=json.dumps(["cup", "fork"]))
    with pytest.raises(ValueError, match=r"w.safetensors knows other classes: it lacks \['plate'\] and has \['fork'\]"):
        load_detector_weights(Head(), file, CLASSES)


def test_weights_of_another_detector_are_refused_with_the_first_difference(tmp_path: Path) -> None:
    file = saved(tmp_path / "w.safetensors", Head(5), class_names=json.dumps(CLASSES))
    sentence = r"another model: 2 tensors differ, the first bias: \[5\] in the file, \[2\] here"
    with pytest.raises(ValueError, match=sentence):
        load_detector_weights(Head(), file, CLASSES)


def test_weights_that_do_not_say_their_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not name its classes; expected weights that `boxcycle train` wrote"):
        load_detector_weights(Head(), saved(tmp_path / "w.safetensors", Head()), CLASSES)


def test_mtl_ssl_starts_from_a_supervised_run(configure: MakeConfig, finished: Path) -> None:
    config = configure("mtl_ssl", init=finished)
    model = METHODS["mtl_ssl"].build(config, Experiment("mtl_ssl", config).class_names)
    expected = load_weights(finished / "checkpoints" / "best.safetensors").tensors
    assert expected.keys() == model.detector.state_dict().keys()
    for name, tensor in model.detector.state_dict().items():
        assert tensor.equal(expected[name]), name
    assert model.window_head.classifier.weight.equal(expected["head.region.classifier.weight"])


# --- backbones of random weights

RANDOM = {"backbone": "resnet18", "weights": "none", "roi_size": 2, "proposals": 10, "regions": {"sampled": 8}}


def statistics(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the backbone's norms in both stages, by name."""
    return {name: value.clone() for name, value in tensors.items() if name.endswith((".mean", ".variance"))}


@pytest.fixture(scope="module")
def from_nothing(configure: MakeConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of four steps whose backbone began with random weights."""
    config = configure(run=tmp_path_factory.mktemp("runs") / "from-nothing", detector=RANDOM, fit={"steps": 4})
    return METHODS["supervised"].train(config)


def test_random_weights_get_statistics_that_the_run_keeps(from_nothing: Path) -> None:
    kept = statistics(load_weights(from_nothing / "checkpoints" / "last.safetensors").tensors)
    assert len(kept) == 2 * 20  # ResNet-18
    assert all(value.any() if name.endswith("mean") else (value != 1).any() for name, value in kept.items())
    loaded = load(from_nothing).model.state_dict()
    assert all(value.equal(loaded[name]) for name, value in kept.items())


def test_a_stopped_run_from_random_weights_goes_on_to_the_same(
    configure: MakeConfig, from_nothing: Path, tmp_path: Path
) -> None:
    config = configure(run=tmp_path / "parts", detector=RANDOM, fit={"steps": 4})
    # the first batch is that of the statistics
    with stopped_in_step(4), pytest.raises(Interrupted):
        METHODS["supervised"].train(config)
    METHODS["supervised"].train(config.model_copy(update={"resume": True}))
    one, other = (
        load_weights(run / "checkpoints" / "last.safetensors").tensors for run in (from_nothing, tmp_path / "parts")
    )
    assert all(value.equal(other[name]) for name, value in one.items())


def test_all_processes_take_the_same_images_for_the_statistics(
    configure: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(experiment, "fit", lambda *given, **more: None)
    found = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        config = configure(run=tmp_path / "run", detector=RANDOM)
        run = Experiment("supervised", config)
        model = METHODS["supervised"].build(config, run.class_names)
        run.fit(model)
        found.append(statistics(model.state_dict()))
    assert all(value.equal(found[1][name]) for name, value in found[0].items())


def test_weights_of_imagenet_and_of_a_run_keep_their_statistics(
    configure: MakeConfig, from_nothing: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(experiment, "fit", lambda *given, **more: None)
    for number, changes in enumerate(({}, {"detector": RANDOM, "init": from_nothing})):
        config = configure("mtl_ssl", run=tmp_path / str(number), **changes)
        run = Experiment("mtl_ssl", config)
        model = METHODS["mtl_ssl"].build(config, run.class_names)
        before = statistics(model.state_dict())
        run.fit(model)
        assert all(value.equal(before[name]) for name, value in statistics(model.state_dict()).items())


def test_the_tasks_leave_the_detectors_statistics_to_the_detector(
    configure: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So a multi-task run from random weights starts from the baseline's detector, as one from ImageNet does."""
    monkeypatch.setattr(experiment, "fit", lambda *given, **more: None)
    found = {}
    for method in ("supervised", "mtl_ssl"):
        config = configure(method, run=tmp_path / method, detector=RANDOM)
        run = Experiment(method, config)
        model = METHODS[method].build(config, run.class_names)
        run.fit(model)
        assert uncalibrated(model) == []
        found[method] = statistics((model if method == "supervised" else model.detector).state_dict())
    assert all(value.equal(found["mtl_ssl"][name]) for name, value in found["supervised"].items())


# --- words


def test_the_difference_of_class_lists_in_words() -> None:
    assert class_difference(["a", "b"], ["b", "a"]) == "the same names in another order (a, b; expected b, a)"
    assert class_difference(["a"], ["a", "b"]) == "it lacks ['b'] and has none beside"
    assert none_for_nan({"AP": float("nan"), "AP50": 1.5, "name": "cup"}) == {"AP": None, "AP50": 1.5, "name": "cup"}
