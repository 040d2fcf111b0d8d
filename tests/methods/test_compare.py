"""`boxcycle compare`: which runs are one group, what they cost, and what cannot be compared."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from boxcycle import yaml12
from boxcycle.cli import app
from boxcycle.data.config import LABELLED_BY
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.engine.checkpoint import load_weights, save_weights
from boxcycle.methods.compare import CompareConfig, compare
from boxcycle.methods.finished import read_finished
from boxcycle.methods.label import LabelConfig, label

Copy = Callable[..., Path]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Copy:
    """``copy(name, ap50, {"fit.seed": 3})``: the finished run again, under other settings and with another figure."""

    def make(name: str, ap50: float = 10.0, changes: dict[str, Any] | None = None) -> Path:
        folder = tmp_path / name
        shutil.copytree(finished, folder)
        config = yaml12.load((folder / "config.yaml").read_text())
        for key, value in (changes or {}).items():
            place, *parts = [config, *key.split(".")]
            for part in parts[:-1]:
                place = place[part]
            place[parts[-1]] = value
        (folder / "config.yaml").write_text(yaml12.dump(config))
        record = json.loads((folder / "eval.json").read_text())
        record["summary"] |= {"AP50": ap50, "AP": ap50 / 2}
        (folder / "eval.json").write_text(json.dumps(record))
        return folder

    return make


def test_runs_that_differ_in_the_seed_are_one_group(copy: Copy, scenes: Path, tmp_path: Path) -> None:
    plain = [copy(f"plain{s}", 10.0 + s, {"fit.seed": s, "run": f"r{s}", "fit.workers": s}) for s in range(3)]
    other = [copy(f"fast{s}", 12.0 + s, {"fit.seed": s, "fit.lr": 0.5}) for s in range(2)]
    groups = compare(CompareConfig(runs=(*plain, *other), out=tmp_path / "out"))
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("supervised, lr 0.001", 3),
        ("supervised, lr 0.5", 2),
    ]
    boxes = len(read_split(scenes, "train").boxes)
    assert groups[0].figure("AP50")[:2] == (11.0, 1.0)
    assert {run.result.labels.boxes for group in groups for run in group.runs} == {boxes}
    with (tmp_path / "out" / "runs.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(row["seed"], row["AP50"], row["boxes"]) for row in table] == [
        *((str(s), f"{10 + s}", str(boxes)) for s in range(3)),
        *((str(s), f"{12 + s}", str(boxes)) for s in range(2)),
    ]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "runs.csv",
        "labels.png",
        "labels.svg",
        "report.html",
    }


def test_labels_of_a_budget_and_its_seed(copy: Copy, scenes: Path, tmp_path: Path) -> None:
    names = list(read_split(scenes, "train").file_names)
    runs = []
    for seed in (0, 1):
        file = tmp_path / f"budget{seed}.json"
        record = {"unit": "images", "amount": 0.5, "seed": seed, "labelled": names[seed : seed + 2]}
        file.write_text(json.dumps(record))
        runs.append(copy(f"b{seed}", 5.0, {"data.budget": str(file), "fit.seed": seed}))
    groups = compare(CompareConfig(runs=(*runs, copy("all")), out=tmp_path / "out"))
    assert [group.name for group in groups] == ["supervised, 50 % of the images", "supervised, all labels"]
    index = read_split(scenes, "train")
    expected = [sum(len(index.boxes[index.boxes_of(i)]) for i in (s, s + 1)) for s in (0, 1)]
    assert [run.result.labels.boxes for run in groups[0].runs] == expected


def test_rounds_of_questions_cost_boxes_and_minutes(copy: Copy, scenes: Path, tmp_path: Path) -> None:
    run = copy("asked")
    rounds = [{"human_boxes": n, "minutes": n / 2, "AP": 1.0, "AP50": 2.0 + n, "AP75": None} for n in (0, 6)]
    (run / "labels.json").write_text(json.dumps(rounds))
    ((group,)) = compare(CompareConfig(runs=(run,), out=tmp_path / "out"))
    first = len(read_split(scenes, "train").boxes)
    assert [point.labels for point in group.runs[0].course] == [(first, 0, 0.0), (first + 6, 0, 3.0)]
    assert group.runs[0].result.labels == (first + 6, 0, 3.0)


def test_labels_come_along_with_weights_and_with_pseudo_boxes(copy: Copy, scenes: Path, tmp_path: Path) -> None:
    weak = copy("weak")
    again = read_finished(copy("again", 1.0, {"init": str(weak / "checkpoints" / "best.safetensors")}))
    assert again.before is not None
    assert len(again.sources()) == 1  # the same labels twice were bought once
    pseudo = tmp_path / "pseudo"
    shutil.copytree(scenes, pseudo)
    (pseudo / LABELLED_BY).write_text(json.dumps({"run": str(weak)}))
    taught = read_finished(copy("taught", 1.0, {"data.path": str(pseudo)}))
    assert {source.path for source in taught.sources()} == {scenes.resolve()}
    assert taught.settings()["data.path"] == "labelled by supervised"
    mined = read_finished(copy("mined", 1.0, {"data.budget": "few.json", "ssm": {"pseudo": str(pseudo)}}))
    assert {source.budget for source in mined.sources()} == {None, Path("few.json")}
    assert mined.settings()["ssm.pseudo"] == "labelled by supervised"


def test_pretraining_on_images_alone_costs_no_labels(copy: Copy) -> None:
    """And it needs no figures of its own: where nobody drew a box there is nothing to judge it by."""
    pretrained = copy("pretrained")
    weights = load_weights(pretrained / "checkpoints" / "best.safetensors")
    for file in (pretrained / "checkpoints").glob("*.safetensors"):
        save_weights(file, weights.tensors, weights.metadata | {"method": "joindet"})
    for name in ("eval.json", "predictions.json"):
        (pretrained / name).unlink()
    tuned = read_finished(copy("tuned", 1.0, {"init": str(pretrained), "data.budget": "few.json"}))
    assert tuned.before is not None
    assert tuned.before.sources() == set()
    assert [source.budget for source in tuned.sources()] == [Path("few.json")]


def test_a_labelled_data_set_names_the_run_that_drew_its_boxes(copy: Copy, tmp_path: Path) -> None:
    weak = copy("weak")
    label(LabelConfig(run=weak, out=tmp_path / "pseudo", min_score=0.0, device="cpu"))
    taught = read_finished(copy("taught", 1.0, {"data.path": str(tmp_path / "pseudo")}))
    assert taught.labeller is not None
    assert taught.labeller.folder == weak.resolve()
    assert taught.sources() == read_finished(weak).sources()


def test_bad_input_ends_in_one_sentence(copy: Copy, tmp_path: Path) -> None:
    run = copy("run")
    unfinished = copy("unfinished")
    (unfinished / "eval.json").unlink()
    (tmp_path / "photos").mkdir()
    other = make_scenes(tmp_path / "other", SceneConfig(size=64, seed=9), {"train": 6, "val": 3})
    cases = {
        (): "no run to compare",
        (tmp_path / "nowhere",): "nowhere does not exist",
        (tmp_path / "photos",): "photos holds no run: it has no config.yaml",
        (run, unfinished): r"unfinished is not finished: it has no eval\.json; resume=true goes on",
        (run, copy("elsewhere", 1.0, {"data.path": str(other)})): r"evaluated on different data.*3 images.*3 images",
        (run, copy("twin")): "have the same settings and seed 0; give one",
    }
    for runs, sentence in cases.items():
        with pytest.raises(ValueError, match=sentence) as raised:
            compare(CompareConfig(runs=runs, out=tmp_path / "out"))
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_the_command_takes_folders(copy: Copy, tmp_path: Path) -> None:
    runs = [str(copy("a, b")), str(copy("other", 20.0, {"fit.lr": 0.5}))]
    result = CliRunner().invoke(app, ["compare", *runs, f"out={tmp_path / 'out'}"])
    assert result.exit_code == 0, result.stderr or result.exception
    assert "Runs by group" in result.stdout
    assert "report.html" in result.stdout
    assert CliRunner().invoke(app, ["compare"]).stderr == "'runs' is required: give runs=...\n"
