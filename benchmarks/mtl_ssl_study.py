"""Does MTL-SSL help? Every arm on the same images in the same order from the same weights, seed by seed.

    python benchmarks/mtl_ssl_study.py run scenes --seeds 5      # trains what is missing, adds to the results file
    python benchmarks/mtl_ssl_study.py table scenes              # prints the table of docs/reproduce/mtl-ssl.md

Every arm of a seed starts from the same plain detector, trained for ``first_steps``; the tasks' heads are its copies.
The refinement trains nothing but its own layer, so one run gives two arms: the same weights with and without it. The
run whose tasks do not teach the shared features (Table 6: "+Refinement") gives the baseline, exactly
(tests/methods/mtl_ssl/test_detector.py).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.splits import budget
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.engine.config import FitConfig
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import predict_dataset
from boxcycle.methods.experiment import CALIBRATING, batches_of
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.backbone_calibration import calibrate, uncalibrated
from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import build_detector
from boxcycle.models.two_stage import TwoStageDetector
from study import SMALL, Rows, add_numbers, difference, given, seeds_of, study_parser, train_unkept
from study_data import open_data


@dataclass(frozen=True)
class Setting:
    """A data set and how long it is learnt."""

    images: int  # training images of a seed, drawn by boxcycle.data.splits.budget
    pixels: int  # longer side
    first_steps: int  # of 4 images, of the plain detector that every arm of the seed starts from; 0: from ImageNet
    steps: int  # of each arm
    longer: int  # steps of the plain detector that take as long as ``steps`` with all tasks
    batch: int = 4
    judged: int = 100  # images evaluated
    lr: float = 1e-3
    tasks: dict[str, Any] = field(default_factory=dict)  # settings of TaskConfig, for all runs
    detector: dict[str, Any] = field(default_factory=dict)  # settings of DetectorConfig, for all runs


PAPER = {"multi_object": 1.0, "closeness": 0.3, "foreground": 1.0}
LIGHT = {"multi_object": 0.1, "closeness": 0.03, "foreground": 0.1}  # a tenth of the paper's weights
# Networks of up to 100 layers from random weights: as few steps, cells and regions as show that they train.
RANDOM = Setting(
    images=16,
    pixels=96,
    first_steps=0,
    steps=8,
    longer=10,
    batch=2,
    judged=30,
    lr=1e-4,
    tasks=LIGHT | {"windows": 16, "refined": 8},
    detector={"weights": "none", "frozen": 0, "roi_size": 3, "proposals": 100, "regions": {"sampled": 16}},
)
SETTINGS = {
    "scenes": Setting(images=16, pixels=256, first_steps=0, steps=400, longer=500, batch=2, tasks=LIGHT),
    "bccd": Setting(images=10, pixels=256, first_steps=0, steps=400, longer=500, batch=2, tasks=LIGHT),
    "voc20": Setting(images=100, pixels=256, first_steps=0, steps=600, longer=750, batch=2, tasks=LIGHT),
    "scenes-long": Setting(images=25, pixels=256, first_steps=0, steps=600, longer=750, tasks=LIGHT),
    "coco-super": Setting(
        images=40,
        pixels=256,
        first_steps=0,
        steps=1500,
        longer=1875,
        batch=2,
        tasks=LIGHT,
        detector={"frozen": 6},  # the whole trunk: photographs are what ImageNet taught it
    ),
    "scenes-random": RANDOM,
    "bccd-random": replace(RANDOM, images=10),
    "scenes-many": Setting(images=200, pixels=256, first_steps=0, steps=300, longer=375, tasks=PAPER),
    "scenes-hard": Setting(images=200, pixels=256, first_steps=400, steps=200, longer=250, lr=5e-4, tasks=PAPER),
}
JOINT: dict[str, Any] = {"stop_gradient": False}  # the tasks teach the shared features
# one entry a training run; each gives "<name>" and, where it refines, "<name>, refined"
RUNS: dict[str, dict[str, Any]] = {
    "baseline": {"stop_gradient": True, "foreground": 0.0},
    "+1": JOINT | {"closeness": 0.0, "foreground": 0.0, "refinement": 0.0},
    "+2": JOINT | {"multi_object": 0.0, "foreground": 0.0, "refinement": 0.0},
    "+3": JOINT | {"multi_object": 0.0, "closeness": 0.0, "refinement": 0.0},
    "+1,2": JOINT | {"foreground": 0.0, "refinement": 0.0},
    "+1,2,3": JOINT,
    # the paper's future work, which has no figures in it
    "+edges": JOINT | {"multi_object": 0.0, "closeness": 0.0, "foreground": 0.0, "refinement": 0.0, "edges": 0.1},
    "+3 by masks": JOINT | {"multi_object": 0.0, "closeness": 0.0, "refinement": 0.0, "foreground_masks": True},
}
LONGER = "baseline, equal time"  # a run without tasks
REFINED = {"baseline": "refinement only", "+1,2,3": "all"}  # what the arm with refinement is called
NUMBERS = ("images", "pixels", "first_steps", "steps", "longer", "batch", "judged", "lr")  # of a setting, by option


def plain_detector(num_classes: int, setting: Setting) -> TwoStageDetector:
    """The plain detector of every arm, its backbone from ImageNet unless the setting says otherwise."""
    return build_detector(num_classes, DetectorConfig.model_validate(SMALL.model_dump() | setting.detector))


def train(
    model: nn.Module, index: Index, setting: Setting, steps: int, seed: int, threads: int, *, masks: bool = False
) -> float:
    """Train a model in place; returns the seconds of processor time it took."""
    dataset = DetectionDataset(index, make_transform(resize(setting), train=True), masks=masks, cache=True)
    config = FitConfig(
        steps=steps,
        batch_size=setting.batch,
        lr=setting.lr,
        clip="group",
        threads=threads,
        workers=0,
        seed=seed,
        log_every=steps,
        save_every=0,
    )
    begun = time.process_time()
    if uncalibrated(model):  # as `boxcycle train` does where weights are "none"
        [first] = make_loader(dataset, batch_size=CALIBRATING, steps=1, seed=seed)
        calibrate(model, *first)
    train_unkept(model, partial(batches_of, dataset, config), config)
    return time.process_time() - begun


def first_weights(index: Index, setting: Setting, seed: int, threads: int) -> dict[str, Tensor]:
    """The plain detector after its first steps: where every arm of the seed starts."""
    torch.manual_seed(seed)
    detector = plain_detector(index.num_classes, setting)
    if setting.first_steps:
        train(detector, index, setting, setting.first_steps, 1000 + seed, threads)
    return {name: value.clone() for name, value in detector.state_dict().items()}


def judge(model: nn.Module, index: Index, setting: Setting) -> dict[str, float]:
    """AP, AP50 and AP75 on a split, from the 100 best proposals of each image."""
    detector = model.detector if isinstance(model, MultiTaskDetector) else model
    detector.proposer.count = 100
    dataset = DetectionDataset(
        index.subset(range(min(len(index), setting.judged))), make_transform(resize(setting), train=False)
    )
    summary = coco_metrics(dataset.index, predict_dataset(model, dataset)).summary
    detector.proposer.count = 300
    return {name: summary[name] for name in ("AP", "AP50", "AP75")}


def resize(setting: Setting) -> ResizeConfig:
    return ResizeConfig(short=setting.pixels, long=setting.pixels)


def run_one(
    run: str, first: dict[str, Tensor], index: Index, judged: Index, setting: Setting, seed: int, threads: int
) -> dict[str, Any]:
    """Train one run of one seed and judge it with and without refinement."""
    detector = plain_detector(index.num_classes, setting)
    detector.load_state_dict(first)
    if run == LONGER:
        seconds = train(detector, index, setting, setting.longer, seed, threads)
        return {"seconds": round(seconds, 1), "plain": judge(detector, judged, setting)}
    tasks = TaskConfig(**setting.tasks | RUNS[run])  # a task that is off stays off
    model = MultiTaskDetector(detector, tasks)
    seconds = train(model, index, setting, setting.steps, seed, threads, masks=tasks.foreground_masks)
    row: dict[str, Any] = {"seconds": round(seconds, 1)}
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
            name = REFINED.get(row["run"], f"{row['run']}, refined")
            found.setdefault(name, {})[row["seed"]] = row["refined"][metric]
    return found


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means, and paired differences to the baseline with their 95 % interval."""
    seconds = {
        run: np.mean([row["seconds"] for row in rows if row["run"] == run])
        for run in (*RUNS, LONGER)
        if any(r["run"] == run for r in rows)
    }
    print("| arm | seeds | AP | AP50 | AP50 - baseline (95 %) | AP - baseline (95 %) | CPU s a run |")
    print("|---|---|---|---|---|---|---|")
    by_metric = {metric: arms(rows, metric) for metric in ("AP", "AP50")}
    for arm, figures in by_metric["AP50"].items():
        cells = [arm, str(len(figures))]
        cells += [f"{np.mean(list(by_metric[metric][arm].values())):.1f}" for metric in ("AP", "AP50")]
        for metric in ("AP50", "AP"):
            baseline = by_metric[metric].get("baseline", {})
            cells.append(difference(by_metric[metric][arm], baseline) if arm != "baseline" else "")
        run = {name: run for run, name in REFINED.items()}.get(arm, arm.removesuffix(", refined"))
        print("| " + " | ".join([*cells, f"{seconds[run]:.0f}"]) + " |")


def print_beside(rows: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], changes: dict[str, Any]) -> None:
    """The paired difference of each arm to the same arm with other settings of the tasks, over the seeds both have."""
    for arm in arms(rows, "AP50"):
        for metric in ("AP50", "AP"):
            found = difference(*(arms(source, metric).get(arm, {}) for source in (rows, others)))
            if found:
                print(f"{arm}, {metric} minus that with {json.dumps(changes)}: {found}")


def read_options() -> tuple[argparse.Namespace, Setting]:
    """What was typed, and the setting with its changes."""
    parser = study_parser(__doc__, SETTINGS, seeds=5, out="runs/mtl-ssl-study")
    parser.add_argument("--runs", nargs="*", default=[*RUNS, LONGER], choices=[*RUNS, LONGER])
    add_numbers(parser, NUMBERS)
    for name, example in (("tasks", '{"multi_object": 0.1}'), ("detector", '{"name": "rfcn", "roi_size": 3}')):
        parser.add_argument(f"--{name}", type=json.loads, default={}, help=f"settings of all runs, such as '{example}'")
    parser.add_argument("--beside", type=json.loads, help="also the differences to runs with these settings of tasks")
    options = parser.parse_args()
    setting = replace(SETTINGS[options.data], **given(options, NUMBERS))
    tasks, detector = setting.tasks | options.tasks, setting.detector | options.detector
    return options, replace(setting, tasks=tasks, detector=detector)


def missing_runs(
    rows: Rows, options: argparse.Namespace, setting: Setting
) -> Iterator[tuple[str, int, Index, dict[str, Tensor], Index]]:
    """What the results file lacks, seed by seed: run, seed, its images, its first weights, and the images judged."""
    pool, val, test = open_data(options.data, options.out)
    for seed in seeds_of(options):
        missing = [run for run in options.runs if not rows.has(run=run, seed=seed)]
        if missing:
            index = pool.subset(budget(pool, unit="images", amount=min(setting.images, len(pool)), seed=seed))
            first = first_weights(index, setting, seed, options.threads)
            yield from ((run, seed, index, first, val if options.split == "val" else test) for run in missing)


def main() -> None:
    options, setting = read_options()
    rows = Rows(options, setting)
    if options.job == "run":
        for run, seed, index, first, judged in missing_runs(rows, options, setting):
            rows.keep({"run": run, "seed": seed} | run_one(run, first, index, judged, setting, seed, options.threads))
    print(rows.heading())
    print_table(rows)
    if options.beside:
        print_beside(rows, Rows(options, replace(setting, tasks=setting.tasks | options.beside)), options.beside)


if __name__ == "__main__":
    main()
