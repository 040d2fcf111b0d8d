"""boxcycle beside what people use: AP50 with few and with all labels after the same minutes of one processor.

    python benchmarks/peers.py run bccd --seeds 3 --labels 0.1     # trains what is missing, adds to the results file
    python benchmarks/peers.py table bccd                          # prints the table of docs/reproduce/peers.md

All contestants of a seed learn from the same images, drawn by boxcycle.data.splits.budget, at the same size, and are
judged by boxcycle's COCO figures on boxes in the pixels of the files. How many images a contestant can learn from in
its minutes is measured first, all in turn, and kept in ``speed.json``: so schedules end when the time does, and what
else the machine is doing shortens all of them alike. Nothing is downloaded but Ultralytics' code, which this script
installs beneath ``--out`` (AGPL-3.0: it is no dependency of boxcycle); where that fails its row is left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boxcycle.data import yolo_write
from boxcycle.data.convert import place_images
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.splits import budget
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import Prediction, predict_dataset, read_predictions
from peers_contestants import BATCH, CONTESTANTS, clocked
from study import Rows, difference, seeds_of, spread
from study_data import open_data

YOLO = "yolo26n"  # the smallest that Ultralytics documents now
OURS = "boxcycle mtl_ssl"
# modules that Ultralytics imports, and the packages that bring those that this environment lacks
YOLO_NEEDS = {
    "cv2": "opencv-python-headless",
    "requests": "requests",
    "polars": "polars",
    "_polars_runtime_32": "polars-runtime-32",
}
WARM_UP = 3  # steps that do not count when speed is measured


@dataclass(frozen=True)
class Setting:
    """How long and at which size everyone learns."""

    minutes: float = 2.0  # of one thread's processor time, for training alone
    pixels: int = 256  # longer side
    threads: int = 1


# --- one contestant, one seed


def train_here(name: str, index: Index, setting: Setting, steps: int, seed: int) -> tuple[torch.nn.Module, list[float]]:
    """A trained contestant of this process, and the processor time at which each of its batches was asked for."""
    torch.manual_seed(seed)
    contestant, marks = CONTESTANTS[name], []
    model = contestant.build(index.num_classes, setting.pixels)
    dataset = DetectionDataset(index, make_transform(resize(setting), train=True), cache=True)
    batches = make_loader(dataset, batch_size=BATCH, steps=steps, seed=seed)
    contestant.train(model, clocked(batches, time.process_time, marks), steps, seed)
    return model, [*marks, time.process_time()]


def train_yolo(
    index: Index, judged: Index, setting: Setting, epochs: int, seed: int, out: Path
) -> tuple[list[Prediction], list[float]]:
    """Ultralytics' predictions after training from random weights, and the processor time after each batch."""
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "model": f"{YOLO}.yaml",
            "data": str(yolo_data(index, Path(folder) / "data")),
            "epochs": epochs,
            "pixels": setting.pixels,
            "seed": seed,
            "threads": setting.threads,
            "folder": folder,
            "images": [[int(judged.image_ids[i]), str(judged.image_path(i))] for i in range(len(judged))],
        }
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(job), encoding="utf-8")
        path = os.pathsep.join([str(out / "ultralytics"), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {"PYTHONPATH": path, "YOLO_CONFIG_DIR": str(out), "YOLO_OFFLINE": "true"}
        script = Path(__file__).with_name("peers_yolo.py")
        done = subprocess.run([sys.executable, script, file], env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"Ultralytics failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        answer = json.loads((Path(folder) / "answer.json").read_text(encoding="utf-8"))
        for row in answer["predictions"]:
            row["category_id"] = int(judged.category_ids[row.pop("class")])
        file.write_text(json.dumps(answer["predictions"]), encoding="utf-8")
        return read_predictions(file, judged), answer["seconds"]


def yolo_data(index: Index, folder: Path) -> Path:
    """The training images in Ultralytics' layout; it wants a validation split too, which is not looked at."""
    images = folder / "images" / "train"
    place_images(index, images, copy=False)
    yolo_write.write(index, folder, "train")
    names = json.dumps(dict(enumerate(index.class_names)))
    file = folder / "data.yaml"
    file.write_text(f"path: {folder}\ntrain: images/train\nval: images/train\nnames: {names}\n", encoding="utf-8")
    return file


def run_one(name: str, index: Index, judged: Index, setting: Setting, seconds: float, seed: int, out: Path) -> Any:
    """A row: figures on the judged split, images seen, and the processor seconds that training took."""
    images = 60 * setting.minutes / seconds
    if name == YOLO:
        epochs = max(1, round(images / len(index)))
        predictions, marks = train_yolo(index, judged, setting, epochs, seed, out)
        seen, spent = epochs * len(index), marks[-1]
    else:
        steps = max(1, round(images / BATCH))
        model, marks = train_here(name, index, setting, steps, seed)
        predictions = predict_dataset(model, DetectionDataset(judged, make_transform(resize(setting), train=False)))
        seen, spent = steps * BATCH, marks[-1] - marks[0]
    summary = coco_metrics(judged, predictions).summary
    figures = {metric: summary[metric] for metric in ("AP", "AP50", "AP75")}
    return figures | {"images_seen": seen, "seconds": round(spent, 1)}


def resize(setting: Setting) -> ResizeConfig:
    return ResizeConfig(short=setting.pixels, long=setting.pixels)


# --- how fast each is


def measure_speed(names: Sequence[str], index: Index, setting: Setting, out: Path, rounds: int = 2) -> dict[str, float]:
    """Processor seconds of training for each image: medians over rounds, in each of which all take their turn."""
    few = index.subset(range(min(len(index), 96)))  # six of Ultralytics' batches
    found: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            if name == YOLO:
                _, marks = train_yolo(few, few.subset([]), setting, epochs=1, seed=number, out=out)
                found[name].append(statistics.median(np.diff(marks)) / 16)
            else:
                _, marks = train_here(name, few, setting, steps=WARM_UP + 6, seed=number)
                found[name].append(statistics.median(np.diff(marks)[WARM_UP:]) / BATCH)
            print(f"round {number}: {name} {found[name][-1]:.3f} s an image", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def speeds(names: Sequence[str], index: Index, setting: Setting, out: Path) -> dict[str, float]:
    """Those of an earlier call with this setting, so that all seeds are trained equally long; else measured now."""
    file, about = out / "speed.json", asdict(setting)
    kept = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    for row in kept:
        if row["setting"] == about and set(names) <= set(row["seconds"]):
            return row["seconds"]
    measured = measure_speed(names, index, setting, out)
    file.write_text(json.dumps([*kept, {"setting": about, "seconds": measured}], indent=1) + "\n", encoding="utf-8")
    return measured


def install_yolo(out: Path) -> bool:
    """Whether Ultralytics is there; installed beneath ``out`` without touching this environment."""
    target = out / "ultralytics"
    if (target / "ultralytics").is_dir():
        return True
    wanted = ["ultralytics", "ultralytics-thop"]
    wanted += [package for module, package in YOLO_NEEDS.items() if importlib.util.find_spec(module) is None]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), *wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"Ultralytics cannot be installed here, so its row is left out: {done.stderr.strip().splitlines()[-1:]}")
    return done.returncode == 0


# --- the table


def print_table(rows: Sequence[dict[str, Any]], metric: str) -> None:
    """Mean and standard deviation over seeds, and our main method's paired difference to each."""
    print("| labels | contestant | seeds | AP | AP50 | mtl_ssl - this, AP50 (95 %) | images seen | CPU s |")
    print("|---|---|---|---|---|---|---|---|")
    for labels in sorted({row["labels"] for row in rows}):
        ours = by_seed(rows, labels, OURS)
        for name in (*CONTESTANTS, YOLO):
            found = by_seed(rows, labels, name)
            if not found:
                continue
            values = list(found.values())
            gain = "" if name == OURS else difference(figures(ours, metric), figures(found, metric))
            spreads = [spread([row[key] for row in values]) for key in ("AP", "AP50")]
            cells = [f"{labels:.0%}", name, str(len(found)), *spreads, gain]
            cells += [f"{np.mean([row[key] for row in values]):.0f}" for key in ("images_seen", "seconds")]
            print("| " + " | ".join(cells) + " |")


def figures(found: dict[int, dict[str, Any]], metric: str) -> dict[int, float]:
    return {seed: row[metric] for seed, row in found.items()}


def by_seed(rows: Sequence[dict[str, Any]], labels: float, name: str) -> dict[int, dict[str, Any]]:
    return {row["seed"]: row for row in rows if row["labels"] == labels and row["run"] == name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["run", "table"])
    parser.add_argument("data", choices=["bccd", "scenes"])
    parser.add_argument("--labels", type=float, nargs="+", default=[0.1, 1.0], help="parts of the training images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--runs", nargs="*", default=[*CONTESTANTS, YOLO], choices=[*CONTESTANTS, YOLO])
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--minutes", type=float, default=Setting.minutes, help="of processor time for each training")
    parser.add_argument("--pixels", type=int, default=Setting.pixels, help="longer side")
    parser.add_argument("--threads", type=int, default=Setting.threads)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    options = parser.parse_args()
    options.out = options.out.resolve()
    setting = replace(Setting(), minutes=options.minutes, pixels=options.pixels, threads=options.threads)
    torch.set_num_threads(setting.threads)
    rows = Rows(options, setting)
    if options.job == "run":
        run_missing(rows, options, setting)
    print(rows.heading())
    print_table(rows, "AP50")


def run_missing(rows: Rows, options: argparse.Namespace, setting: Setting) -> None:
    """Train and judge what the results file lacks, seed by seed."""
    pool, val, test = open_data(options.data, options.out)
    judged = val if options.split == "val" else test
    names = [name for name in options.runs if name != YOLO or install_yolo(options.out)]
    networks = {name: CONTESTANTS[name].network or name if name in CONTESTANTS else name for name in names}
    seconds = speeds(list(dict.fromkeys(networks.values())), pool, setting, options.out)
    for seed in seeds_of(options):
        for labels in options.labels:
            index = pool.subset(budget(pool, unit="images", amount=float(labels), seed=seed))
            for name in names:
                about = {"run": name, "labels": labels, "seed": seed}
                if not rows.has(**about):
                    rows.keep(about | run_one(name, index, judged, setting, seconds[networks[name]], seed, options.out))
                    print(rows[-1], flush=True)


if __name__ == "__main__":
    main()
