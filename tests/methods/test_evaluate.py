"""`boxcycle eval`: figures, files, and data that do not go with the detector."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from boxcycle.data import voc
from boxcycle.data.check import DataError
from boxcycle.data.config import DataConfig, open_split
from boxcycle.evaluation.predictions import Prediction
from boxcycle.methods import evaluate as module
from boxcycle.methods.evaluate import EvalConfig, evaluate, open_index
from boxcycle.methods.loading import load


def figures(folder: Path) -> dict:
    return json.loads((folder / "eval.json").read_text())


def test_the_figures_are_those_of_the_end_of_training(finished: Path, tmp_path: Path, capsys) -> None:
    evaluate(EvalConfig(run=finished, out=tmp_path / "out", batch_size=2, device="cpu"))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"predictions.json", "eval.json", "report.html"}
    found, before = figures(tmp_path / "out"), figures(finished)
    assert {key: found[key] for key in before} == before
    assert [row["name"] for row in found["errors"]["per_class"]] == [row["name"] for row in found["per_class"]]
    assert found["errors"]["total"]["boxes"] == sum(row["boxes"] for row in found["per_class"])
    assert found["voc"].keys() == {"AP50 (VOC07, 11 points)", "AP50 (VOC10, area)"}
    assert (tmp_path / "out" / "predictions.json").read_text() == (finished / "predictions.json").read_text()
    said = capsys.readouterr().out
    assert f"predictions, figures and report: {tmp_path / 'out'}" in said
    assert "–" in said, "a class without boxes has no figure"
    assert "errors among detections with a score of" in said
    [heads] = [line.split() for line in said.splitlines() if "localis." in line]
    assert heads[::2] == ["class", "boxes", "right", "localis.", "classif.", "redund.", "backgr.", "missed"]


def test_the_place_of_the_files_is_the_run_and_tells_the_split(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    evaluate(EvalConfig(run=run, split="train", device="cpu"))
    evaluate(EvalConfig(run=run / "checkpoints" / "best.safetensors", device="cpu"))
    assert (run / "eval-train" / "report.html").exists()
    assert (run / "checkpoints" / "eval-val" / "report.html").exists()


@pytest.fixture
def data(scenes: Path, tmp_path: Path) -> Path:
    return shutil.copytree(scenes, tmp_path / "scenes")


def rename(data: Path, old: str, new: str) -> None:
    file = data / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace(f'"name": "{old}"', f'"name": "{new}"').replace(f'"{old}"', f'"{new}"'))


def test_other_classes_are_an_error_that_lists_the_difference(finished: Path, data: Path) -> None:
    rename(data, "cup", "mug")
    with pytest.raises(DataError, match=r"instances_val.json: .* lacks 'cup' and has 'mug' besides"):
        evaluate(EvalConfig(run=finished, data=data, device="cpu"))


def test_classes_are_matched_by_name_and_their_own_ids_come_back(finished: Path, data: Path, tmp_path: Path) -> None:
    file = data / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    for row in content["categories"]:
        row["id"] += 100
    for row in content["annotations"]:
        row["category_id"] += 100
    content["categories"].reverse()
    file.write_text(json.dumps(content))
    evaluate(EvalConfig(run=finished, data=data, out=tmp_path / "out", device="cpu"))
    found, before = (json.loads((place / "predictions.json").read_text()) for place in (tmp_path / "out", finished))
    assert [row["category_id"] - 100 for row in found] == [row["category_id"] for row in before]
    assert figures(tmp_path / "out")["summary"] == figures(finished)["summary"]


def test_difficult_boxes_count_in_figures_and_report_or_in_neither(
    finished: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that finds all boxes but the difficult ones is perfect only where these are ignored."""
    index = open_split(DataConfig(path=scenes), "val")
    index.difficult[::2] = True
    shutil.copytree(index.root, tmp_path / "voc" / "JPEGImages")
    voc.write(index, tmp_path / "voc", "val")
    trained = load(finished, device="cpu")
    hard = open_index(trained, tmp_path / "voc", "val")
    assert 0 < hard.difficult.sum() < len(hard.difficult)
    easy = [~hard.difficult[hard.boxes_of(i)] for i in range(len(hard))]
    perfect = [
        Prediction(
            int(hard.image_ids[i]),
            hard.boxes[hard.boxes_of(i)][kept].astype(np.float32),
            hard.labels[hard.boxes_of(i)][kept],
            np.ones(int(kept.sum()), dtype=np.float32),
        )
        for i, kept in enumerate(easy)
    ]
    monkeypatch.setattr(module, "predict_index", lambda *_: perfect)
    reported = []
    whole = module.write_run_report
    monkeypatch.setattr(
        module, "write_run_report", lambda *given, **more: reported.append(more["difficult"]) or whole(*given, **more)
    )
    recall = {}
    for difficult in ("ignore", "use"):
        out = tmp_path / difficult
        evaluate(EvalConfig(run=finished, data=tmp_path / "voc", out=out, difficult=difficult, device="cpu"))
        recall[difficult] = figures(out)["summary"]["AR100"]
    assert recall["ignore"] == 100
    assert recall["use"] < 100
    assert reported == ["ignore", "use"]
