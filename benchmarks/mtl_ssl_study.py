"""Does MTL-SSL help? Every arm on the same images in the same order from the same weights, seed by seed.

    python benchmarks/mtl_ssl_study.py run scenes --seeds 5      # trains what is missing, adds to the results file
    python benchmarks/mtl_ssl_study.py table scenes              # prints the table of docs/reproduce/mtl-ssl.md

The refinement trains nothing but its own layer, so one run gives two arms: the same weights with and without it. The run whose tasks do not
teach the shared features (Table 6's "+Refinement") gives the baseline, exactly (tests/methods/mtl_ssl/test_detector.py).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.splits import budget
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import fit
from boxcycle.engine.records import environment
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.paired import paired_difference
from boxcycle.evaluation.predictions import predict_dataset
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector, TaskConfig
from boxcycle.models.faster_rcnn import FasterRCNN, FasterRCNNConfig
from boxcycle.models.two_stage import RegionConfig

REAL = Path(__file__).parents[2] / "shared" / "data"
SMALL = {"windows": 16, "refined": 8}  # in proportion to 32 sampled regions as the paper's 64 to 256


@dataclass(frozen=True)
class Setting:
    """A data set and how long it is learnt."""

    images: int  # training images of a seed, drawn by boxcycle.data.splits.budget
    pixels: int  # longer side
    steps: int  # of 4 images
    judged: int = 100  # images evaluated
    lr: float = 5e-4
    tasks: dict[str, Any] = field(default_factory=dict)


SETTINGS = {
    "scenes": Setting(images=100, pixels=160, steps=400),
    "bccd": Setting(images=20, pixels=160, steps=300),
    "voc20": Setting(images=138, pixels=160, steps=400),
}
# one entry a training run; each gives "<name>" and, where it refines, "<name>, refined"
RUNS: dict[str, dict[str, Any]] = {
    "baseline": {"stop_gradient": True, "foreground": 0.0},
    "+1": {"closeness": 0.0, "foreground": 0.0, "refinement": 0.0},
    "+2": {"multi_object": 0.0, "foreground": 0.0, "refinement": 0.0},
    "+3": {"multi_object": 0.0, "closeness": 0.0, "refinement": 0.0},
    "+1,2": {"foreground": 0.0, "refinement": 0.0},
    "+1,2,3": {},
}


def open_data(name: str, folder: Path) -> tuple[Index, Index, Index]:
    """Training, validation and test split of a set by name."""
    if name == "scenes":
        path = make_scenes(folder / "scenes-hard-160", SceneConfig(size=160, difficulty="hard"), {"train": 400, "val": 100, "test": 200})
        return tuple(read_split(path, split) for split in ("train", "val", "test"))  # type: ignore[return-value]
    if name == "bccd":
        return tuple(read_split(REAL / "bccd", split) for split in ("train", "val", "test"))  # type: ignore[return-value]
    classes = (REAL / "coco-mini" / "classes_voc20.txt").read_text(encoding="utf-8").split("\n")
    kept = [line.strip() for line in classes if line.strip()]
    train, val = (read_split(REAL / "coco-mini", f"voc20_{split}", keep_classes=kept) for split in ("train", "val"))
    return train, val, val  # it has no third split: settings are those found on scenes


def build(num_classes: int, tasks: dict[str, Any]) -> MultiTaskDetector:
    """The detector with its tasks."""
    regions = RegionConfig(sampled=32)
    config = FasterRCNNConfig(anchor_sizes=(16, 32, 64, 128), roi_size=4, proposals=300, regions=regions)
    return MultiTaskDetector(FasterRCNN(num_classes, config), TaskConfig(**(SMALL | tasks)))


def train(train_index: Index, setting: Setting, tasks: dict[str, Any], seed: int, threads: int) -> tuple[MultiTaskDetector, float]:
    """Train one run; returns the model and the seconds it took."""
    torch.manual_seed(seed)
    model = build(train_index.num_classes, setting.tasks | tasks)
    dataset = DetectionDataset(train_index, make_transform(resize(setting), train=True), cache=True)
    config = FitConfig(
        steps=setting.steps, lr=setting.lr, clip="group", threads=threads, workers=0, seed=seed, log_every=setting.steps, save_every=0
    )
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(model, lambda start, *_: make_loader(dataset, batch_size=4, steps=setting.steps, seed=seed, start_step=start), config, Path(folder))
    return model, time.process_time() - begun


def judge(model: nn.Module, index: Index, setting: Setting) -> dict[str, float]:
    """AP, AP50 and AP75 on a split, from the 100 best proposals of each image."""
    detector = model.detector if isinstance(model, MultiTaskDetector) else model
    detector.proposer.count = 100
    dataset = DetectionDataset(index.subset(range(min(len(index), setting.judged))), make_transform(resize(setting), train=False))
    summary = coco_metrics(dataset.index, predict_dataset(model, dataset)).summary
    detector.proposer.count = 300
    return {name: summary[name] for name in ("AP", "AP50", "AP75")}


def resize(setting: Setting) -> ResizeConfig:
    return ResizeConfig(short=setting.pixels, long=setting.pixels)


def run_one(name: str, run: str, setting: Setting, seed: int, data: tuple[Index, Index, Index], split: str, threads: int) -> dict[str, Any]:
    """Train one run of one seed and judge it with and without refinement."""
    pool, val, test = data
    images = budget(pool, unit="images", amount=min(setting.images, len(pool)), seed=seed)
    model, seconds = train(pool.subset(images), setting, RUNS[run], seed, threads)
    judged = val if split == "val" else test
    row = {"data": name, "split": split, "run": run, "seed": seed, "setting": asdict(setting), "seconds": round(seconds, 1)}
    if model.refiner is not None:
        row["refined"] = judge(model, judged, setting)
        model.refiner = None
    return row | {"plain": judge(model, judged, setting)}


def arms(rows: Sequence[dict[str, Any]], metric: str) -> dict[str, dict[int, float]]:
    """Figure of each arm by seed."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        found.setdefault(row["run"], {})[row["seed"]] = row["plain"][metric]
        if "refined" in row:
            name = "refinement only" if row["run"] == "baseline" else "all" if row["run"] == "+1,2,3" else f"{row['run']}, refined"
            found.setdefault(name, {})[row["seed"]] = row["refined"][metric]
    return found


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means, and paired differences to the baseline with their 95 % interval."""
    seconds = {run: np.mean([row["seconds"] for row in rows if row["run"] == run]) for run in RUNS if any(r["run"] == run for r in rows)}
    print("| arm | seeds | AP | AP50 | AP50 - baseline (95 %) | AP - baseline (95 %) | CPU s a run |")
    print("|---|---|---|---|---|---|---|")
    by_metric = {metric: arms(rows, metric) for metric in ("AP", "AP50")}
    baseline = {metric: by_metric[metric]["baseline"] for metric in by_metric}
    for arm, figures in by_metric["AP50"].items():
        cells = [arm, str(len(figures))]
        cells += [f"{np.mean(list(by_metric[metric][arm].values())):.1f}" for metric in ("AP", "AP50")]
        for metric in ("AP50", "AP"):
            seeds = sorted(set(by_metric[metric][arm]) & set(baseline[metric]))
            new, old = ([source[seed] for seed in seeds] for source in (by_metric[metric][arm], baseline[metric]))
            cells.append("" if arm == "baseline" else str(paired_difference(new, old)))
        run = {"refinement only": "baseline", "all": "+1,2,3"}.get(arm, arm.removesuffix(", refined"))
        print("| " + " | ".join([*cells, f"{seconds[run]:.0f}"]) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["run", "table"])
    parser.add_argument("data", choices=SETTINGS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--steps", type=int, help="instead of the setting's own")
    parser.add_argument("--images", type=int, help="instead of the setting's own")
    parser.add_argument("--tasks", type=json.loads, default={}, help='settings of all runs, such as \'{"multi_object": 0.1}\'')
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/mtl-ssl-study"))
    options = parser.parse_args()
    changes = {name: getattr(options, name) for name in ("steps", "images") if getattr(options, name)}
    setting = replace(SETTINGS[options.data], **changes)
    setting = replace(setting, tasks=setting.tasks | options.tasks)
    results = options.out / "results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    mine = [row for row in known if (row["data"], row["split"]) == (options.data, options.split) and row["setting"] == asdict(setting)]
    if options.job == "run":
        data = open_data(options.data, options.out)
        done = {(row["run"], row["seed"]) for row in mine}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for run in options.runs:
                if (run, seed) in done:
                    continue
                row = run_one(options.data, run, setting, seed, data, options.split, options.threads)
                with results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                mine.append(row)
    print(f"{options.data}, {options.split}: {asdict(setting)}\nmachine: {environment()['machine']}")
    print_table(mine)


if __name__ == "__main__":
    main()
