"""The whole way by command line alone: doctor, split, train, eval, predict, on generated scenes and on real data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.engine.checkpoint import load_weights
from command_line import boxcycle, invoke, stopped_in_step

QUICK = [
    *("data.resize.short=96", "data.resize.long=96", "detector.roi_size=4", "detector.proposals=20"),
    *("detector.regions.sampled=8", "fit.steps=2", "fit.batch_size=2", "fit.workers=0", "fit.device=cpu"),
]
QUICK_TASKS = ["tasks.windows=4", "tasks.refined=4"]


def refused(*words: object) -> str:
    """Run a verb, which must end in one sentence; returns it."""
    result = invoke(*words)
    assert result.exit_code == 2, f"{words}\n{result.output}"
    [sentence] = result.stderr.strip().splitlines()
    return sentence


pytestmark = pytest.mark.usefixtures("quiet_place")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scenes(tmp_path_factory.mktemp("data") / "scenes", SceneConfig(size=96), {"train": 8, "val": 4})


def check_results(folder: Path, image_ids: Iterable[int], category_ids: Iterable[int]) -> None:
    """predictions.json names images and categories of the data set, and there are some."""
    rows = json.loads((folder / "predictions.json").read_text())
    assert rows
    assert {row["image_id"] for row in rows} <= set(image_ids)
    assert {row["category_id"] for row in rows} <= set(category_ids)
    assert all(len(row["bbox"]) == 4 and 0 < row["score"] <= 1 for row in rows)


def the_whole_way(data: Path, pictures: str, amount: str) -> tuple[list[int], list[int]]:
    """Every verb on one data set; returns the ids of the evaluated images and of the categories."""
    assert json.loads(invoke("doctor", f"data={data}", "--json").stdout)["counts"]["error"] == 0
    boxcycle("split", f"data={data}", f"amounts={amount}", "destination=budgets")
    [budget] = Path("budgets").iterdir()
    given = [f"data={data}", f"data.budget={budget}", *QUICK]
    boxcycle("train", "supervised", "run=plain", *given)
    boxcycle("train", "mtl_ssl", "init=plain", "run=ssl", *given, *QUICK_TASKS)
    boxcycle("eval", "run=ssl", "device=cpu")
    boxcycle("predict", "run=ssl", f"images={pictures}", "out=found", "min_score=0", "device=cpu")
    runs = [Path("plain"), Path("ssl")]
    for run in runs:
        files = {file.name for file in run.iterdir()}
        assert files >= {"config.yaml", "env.json", "metrics.csv", "predictions.json", "eval.json", "report.html"}
    [evaluated] = Path("ssl").glob("eval-*")
    assert (evaluated / "report.html").exists()
    index = open_split(DataConfig(path=data), "val")
    image_ids, category_ids = index.image_ids.tolist(), index.category_ids.tolist()
    for folder in (*runs, evaluated):
        check_results(folder, image_ids, category_ids)
        figures = json.loads((folder / "eval.json").read_text())
        assert len(figures["summary"]) == 12
        assert [row["name"] for row in figures["per_class"]] == list(index.class_names)
    images = json.loads(Path("found/images.json").read_text())["images"]
    check_results(Path("found"), [row["id"] for row in images], category_ids)
    assert len(list(Path("found").glob("*.jpg"))) == len(images) > 0
    return image_ids, category_ids


def test_scenes(scenes: Path) -> None:
    image_ids, category_ids = the_whole_way(scenes, f"{scenes}/images/val", amount="50%")
    file = json.loads((scenes / "annotations" / "instances_val.json").read_text())
    assert image_ids == [image["id"] for image in file["images"]]
    assert category_ids == [category["id"] for category in file["categories"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bccd", "coco-mini"])
def test_real_data(shared_data: Path, name: str) -> None:
    the_whole_way(shared_data / name, f"{shared_data / name}/JPEGImages/*11.jpg", amount="25%")


def test_a_stopped_run_goes_on_to_the_same_weights(scenes: Path) -> None:
    settings = [f"data={scenes}", *QUICK, "fit.steps=4", "fit.ema=0.5"]
    boxcycle("train", "supervised", "run=whole", *settings)
    with stopped_in_step(3):
        stopped = invoke("train", "supervised", "run=parts", *settings)
    assert stopped.exit_code == 128 + signal.SIGTERM
    assert "stopped after step 3, which is saved in parts; to go on: resume=true" in stopped.stderr
    assert "was started with other settings: data.resize.long was 96 and is 128" in refused(
        "train", "supervised", "run=parts", "resume=true", *settings, "data.resize.long=128"
    )
    boxcycle("train", "supervised", "config=parts/config.yaml", "resume=true")  # the run's own settings are enough
    for name in ("best", "last"):
        one, other = (load_weights(Path(run, "checkpoints", f"{name}.safetensors")) for run in ("whole", "parts"))
        assert one.metadata["step"] == other.metadata["step"] == "4"
        assert one.tensors.keys() == other.tensors.keys()
        assert all(tensor.equal(other.tensors[key]) for key, tensor in one.tensors.items())
    for file in ("predictions.json", "eval.json"):
        assert Path("whole", file).read_text() == Path("parts", file).read_text()


def test_what_is_refused_is_refused_in_one_sentence(scenes: Path, tmp_path: Path) -> None:
    train = ["train", "supervised", f"data={scenes}", *QUICK]
    Path("photos").mkdir()
    Path("photos/a.jpg").touch()
    assert refused(*train, "run=photos").startswith("photos is not empty; resume=true goes on with its run")
    assert "so it holds no run that could be thrown away" in refused(*train, "run=photos", "overwrite=true")
    assert "resume=true needs run=FOLDER" in refused(*train, "resume=true")
    assert "goes on with the run that overwrite=true throws away" in refused(
        *train, "run=photos", "resume=true", "overwrite=true"
    )
    assert refused(*train, "run=new", "init=nowhere") == "no weights at nowhere"
    torch.save({"weights": torch.zeros(1)}, "old.pth")
    for words in (["eval", "run=old.pth"], ["predict", "run=old.pth", "images=photos"], [*train, "init=old.pth"]):
        assert "old.pth is not a safetensors file: it is a file of torch.save, whose loading can run code" in refused(
            *words
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.pth", "photos"], "nothing was begun"


def test_other_classes_are_refused_with_the_difference(scenes: Path) -> None:
    boxcycle("train", "supervised", f"data={scenes}", "run=plain", "fit.eval_every=0", *QUICK)
    shutil.copytree(scenes, "renamed")
    for file in Path("renamed/annotations").iterdir():
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] = category["name"].replace("cup", "mug")
        file.write_text(json.dumps(content))
    difference = "lacks ['mug'] and has ['cup'] beside"
    assert difference in refused("train", "mtl_ssl", "data=renamed", "init=plain", "run=ssl", *QUICK, *QUICK_TASKS)
    assert not Path("ssl").exists()
    assert "lacks 'cup' and has 'mug' besides" in refused("eval", "run=plain", "data=renamed", "device=cpu")
    assert "is of another model" in refused(
        "train", "mtl_ssl", f"data={scenes}", "init=plain", "run=ssl", *QUICK, "detector.anchor_sizes=16,32"
    )


@pytest.mark.parametrize("lacking", ["truth", "detections"])
def test_without_boxes_or_without_detections_there_are_figures_and_reports(
    scenes: Path, lacking: str, tiny: str
) -> None:
    data = Path(shutil.copytree(scenes, "data"))
    if lacking == "truth":
        file = data / "annotations" / "instances_val.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    threshold = 0.999 if lacking == "detections" else 0.0
    boxcycle(
        *("train", "supervised", f"data={data}", "run=run", *QUICK, "fit.steps=1"),
        *(f"detector.backbone={tiny}", "detector.weights=none", f"detector.regions.score_threshold={threshold}"),
    )
    boxcycle("eval", "run=run", "device=cpu")
    for folder in (Path("run"), Path("run/eval-val")):
        found = json.loads((folder / "predictions.json").read_text())
        assert bool(found) == (lacking == "truth")
        assert json.loads((folder / "eval.json").read_text())["summary"]["AP50"] == (None if lacking == "truth" else 0)
        assert (folder / "report.html").exists()


def test_a_full_disk_ends_in_one_sentence(scenes: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # no file of this process can be larger
    try:
        sentence = refused("train", "supervised", f"data={scenes}", "run=run", *QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "run/checkpoints/resume.pt cannot be written; is the disk full?" in sentence
    assert [file.name for file in Path("run/checkpoints").iterdir()] == []


@pytest.mark.slow
def test_two_processes_share_a_run_and_one_keeps_its_folder(scenes: Path) -> None:
    """The run before it is thrown away once, by one of them."""
    Path("run/checkpoints").mkdir(parents=True)
    Path("run/checkpoints/old").touch()
    words = ["train", "mtl_ssl", f"data={scenes}", "run=run", "overwrite=true", *QUICK, *QUICK_TASKS]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "boxcycle.cli", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert not Path("run/checkpoints/old").exists()
    assert Path("run/report.html").exists()
    assert Path("run/predictions.json").exists()
    assert done.stdout.count("learns from 8 images") == 1
    assert done.stdout.count("AP50") == 1
