"""From tags to boxes by the commands a user types: only tags are read, and the boxes feed the next method."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from boxcycle import cli
from boxcycle.config import load_config
from boxcycle.data.check import DataError
from boxcycle.data.convert import convert
from boxcycle.data.read import read_split
from boxcycle.data.tags import without_boxes
from boxcycle.engine.checkpoint import load_weights
from boxcycle.evaluation.predictions import Prediction
from boxcycle.methods.experiment import TrainConfig
from boxcycle.methods.label import with_boxes
from boxcycle.methods.loading import load
from boxcycle.methods.ws_jds import build
from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.train import Config, TagExperiment

MakeConfig = Callable[..., TrainConfig]

pytest.importorskip("cv2")


def settings(data: Path, run: Path, *more: str) -> list[str]:
    cache = run.parent / "proposals"
    return [
        *(
            f"data={data}",
            f"run={run}",
            "data.resize.short=64",
            "data.resize.long=64",
            "fit.steps=2",
            "fit.batch_size=2",
        ),
        *("fit.workers=0", "fit.device=cpu", "detector.roi_size=4", "detector.sampled=8", "detector.width=16"),
        *(f"proposals.cache={cache}", "proposals.workers=0", "proposals.limit=40", *more),
    ]


def call(*words: str) -> str:
    torch.set_num_threads(1)
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == 0, result.stderr or result.exception
    return result.stdout


@pytest.fixture(scope="module")
def weak(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps on scenes."""
    run = tmp_path_factory.mktemp("weak") / "run"
    call("train", "ws_jds", *settings(scenes, run))
    return run


def test_a_run_keeps_figures_of_boxes_masks_and_both_splits(weak: Path) -> None:
    record = json.loads((weak / "eval.json").read_text())
    assert {"summary", "corloc", "corloc_train", "segmentation"} <= record.keys()
    assert {"mean", "mean_without_difficult", "per_class", "best_boxes"} == record["corloc"].keys()
    assert record["segmentation"]["images"] == 3
    assert (weak / "report.html").is_file()
    assert not (weak / "checkpoints" / "best.safetensors").exists()  # no box chose weights


def test_it_predicts_and_evaluates_by_the_same_verbs(weak: Path, scenes: Path, tmp_path: Path) -> None:
    call("eval", f"run={weak}", f"out={tmp_path / 'eval'}")
    kept = json.loads((weak / "eval.json").read_text())["summary"]
    assert json.loads((tmp_path / "eval" / "eval.json").read_text())["summary"] == kept
    image = next((scenes / "images" / "val").iterdir())
    call("predict", f"run={weak}", f"images={image}", f"out={tmp_path / 'found'}")
    assert (tmp_path / "found" / "predictions.json").is_file()


def test_tags_to_boxes_to_the_next_method(weak: Path, tmp_path: Path) -> None:
    said = call("label", f"run={weak}", f"out={tmp_path / 'pseudo'}", "copy_images=false")
    assert "of 6 images of split 'train'; as they were: val" in said
    labelled, source = read_split(tmp_path / "pseudo", "train"), Config.model_validate(load(weak).config).data
    truth = read_split(source.path, "train")
    assert labelled.class_names == truth.class_names
    assert labelled.file_names[:] == truth.file_names[:]
    for i in range(len(truth)):
        classes = labelled.labels[labelled.boxes_of(i)]
        assert len(set(classes)) == len(classes)
        assert set(classes) <= set(truth.tags_of(i).tolist())
    detector = ("detector.proposals=20", "detector.roi_size=4", "detector.regions.sampled=8")
    few = [
        word
        for word in settings(tmp_path / "pseudo", tmp_path / "next")
        if "detector." not in word and "proposals." not in word
    ]
    call("train", "mtl_ssl", *few, *detector, "tasks.windows=4", "tasks.refined=2")


def test_tags_alone_are_enough(scenes: Path, tmp_path: Path) -> None:
    """A CSV of tags and images: no box anywhere, not even to judge."""
    convert(scenes, tmp_path / "tags", to="tags")
    said = call("train", "ws_jds", *settings(tmp_path / "tags", tmp_path / "run", "guidance.variant=to_segmentation"))
    assert "and no box" in said
    assert "AP50 on 'val' –" in said
    record = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert record["corloc"]["mean"] is None
    assert "corloc_train" not in record


def test_boxes_and_tags_teach_the_same(scenes: Path, tmp_path: Path) -> None:
    """The guard: what training sees of a data set with boxes is what it sees of the tags alone."""
    convert(scenes, tmp_path / "tags", to="tags")
    with_them, without = (without_boxes(read_split(path, "train")) for path in (scenes, tmp_path / "tags"))
    assert not len(with_them.boxes)
    assert not with_them.annotated.any()
    assert with_them.segmentations[:] == []
    for i in range(len(with_them)):
        assert with_them.tags_of(i).tolist() == without.tags_of(i).tolist()


def test_the_training_split_of_an_experiment_has_no_box(configure: MakeConfig, tmp_path: Path) -> None:
    small = configure()
    config = Config(data=small.data, fit=small.fit, run=tmp_path / "run")
    index = TagExperiment("ws_jds", config).train_index
    assert index.tagged.all()
    assert not len(index.boxes)


def test_without_any_tag_it_says_so(tmp_path: Path, scenes: Path) -> None:
    convert(scenes, tmp_path / "tags", to="tags")
    table = tmp_path / "tags" / "train.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *(line.replace(",1", ",0") for line in lines[1:])]) + "\n")
    with pytest.raises(DataError, match="has no image with a tag to learn from"):
        TagExperiment("ws_jds", Config.model_validate({"data": {"path": tmp_path / "tags"}}))


def test_unknown_tags_are_refused(tmp_path: Path, scenes: Path) -> None:
    convert(scenes, tmp_path / "tags", to="tags")
    rows = "".join(f"{image.name},zebra\n" for image in (tmp_path / "tags" / "images" / "train").iterdir())
    (tmp_path / "tags" / "train.csv").write_text("file,tags\n" + rows)
    names = "\n".join(read_split(scenes, "train").class_names)
    (tmp_path / "tags" / "classes.txt").write_text(names)
    with pytest.raises(DataError, match="has the tag 'zebra', which is not in the list of classes"):
        TagExperiment("ws_jds", Config.model_validate({"data": {"path": tmp_path / "tags"}}))


def test_guidance_begins_with_the_micro_batch_of_its_step() -> None:
    detector = {"weights": "none", "width": 16}
    fit = {"steps": 10, "accumulate": 2}
    config = Config.model_validate(
        {"data": {"path": "d"}, "detector": detector, "fit": fit, "guidance": {"start": 0.3}}
    )
    assert build(config, ("cup", "plate")).guided_after == 6


def test_labelled_images_by_hand(scenes: Path) -> None:
    known = np.array([True, True, True, False])
    index = replace(
        without_boxes(read_split(scenes, "train").subset(range(4))),
        tagged=known,
        tag_offsets=np.array([0, 2, 2, 3, 3]),
        tags=np.array([1, 2, 2]),
    )

    def found(image_id: int, rows: list[tuple[int, float, float]]) -> Prediction:
        boxes = np.array([[x, 0, x + 10, 10] for _, x, _ in rows], dtype=np.float32).reshape(-1, 4)
        labels = np.array([label for label, _, _ in rows], dtype=np.int64)
        return Prediction(image_id, boxes, labels, np.array([score for *_, score in rows], dtype=np.float32))

    detections = [(1, 0.0, 0.1), (1, 5.0, 0.3), (2, 9.0, 0.2)]
    result = with_boxes(
        index,
        [found(1, detections), found(2, detections), found(3, detections[:2]), found(4, [*detections, (2, 30.0, 0.9)])],
        min_score=0.5,
    )
    assert result.annotated.tolist() == [True, True, False, True]  # empty teaches background; not found teaches nothing
    assert result.labels.tolist() == [1, 2, 2]
    assert result.boxes[:, 0].tolist() == [5, 9, 30]
    assert np.diff(result.box_offsets).tolist() == [2, 0, 0, 1]


def test_killed_and_resumed_equals_uninterrupted(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where guidance begins after the interruption: its clock is part of what is kept."""
    words = ("fit.steps=4", "fit.save_every=1", "guidance.start=0.75", "guidance.gate=0")
    train_once(scenes, tmp_path / "whole", *words)
    losses, calls = WeakDetector.losses, []

    def interrupted(self: WeakDetector, *given: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return losses(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(WeakDetector, "losses", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_once(scenes, tmp_path / "parts", *words)
    monkeypatch.setattr(WeakDetector, "losses", losses)
    train_once(scenes, tmp_path / "parts", *words, "resume=true")
    whole, parts = (
        load_weights(tmp_path / name / "checkpoints" / "last.safetensors").tensors for name in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    assert int(whole["passes"]) == 4
    assert all(whole[name].equal(parts[name]) for name in whole)


def train_once(data: Path, run: Path, *more: str) -> None:
    """A run without its evaluation, which the figures of other tests cover."""
    config = load_config(Config, overrides=settings(data, run, *more))
    experiment = TagExperiment("ws_jds", config)
    model = build(config, experiment.class_names)
    experiment.fit(model, best=None)


def test_the_report_shows_how_the_branches_guide_each_other(weak: Path) -> None:
    page = (weak / "report.html").read_text()
    assert page.count("<h3>Guidance: ") >= 4
    for caption in ("no map: image score", "seeds: orange the class", "segmentation", "weights by it", "detections"):
        assert f"<figcaption>{caption}" in page
