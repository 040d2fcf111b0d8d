"""Do detection and segmentation help each other? Every arm on the same images in the same order, seed by seed.

    python benchmarks/ws_jds_study.py run scenes --seeds 5      # trains what is missing, adds to the results file
    python benchmarks/ws_jds_study.py table scenes              # prints the figures so far
    python benchmarks/ws_jds_study.py run scenes --smoke        # every arm for two steps on a few images

Arms are plain WSDDN and the four variants of the paper's Table 1. Training sees tags; boxes and masks only judge:
CorLoc on the training images, AP50 and mean IoU on the judged split. Two rows of chance stand beside them: a random
proposal, and the box of the whole image, for each tag. ``retrained``: AP50 of mtl_ssl on Faster R-CNN, which learns
from the best box of each tag that WSDDN or the detector guided both ways finds in the training images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from boxcycle.data.config import DataConfig
from boxcycle.data.index import Index
from boxcycle.data.proposals import ProposalConfig, open_proposals
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.splits import budget
from boxcycle.data.tags import without_boxes
from boxcycle.data.transforms import ResizeConfig
from boxcycle.engine.config import FitConfig
from boxcycle.evaluation.best_boxes import best_box_places
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.corloc import corloc
from boxcycle.evaluation.predictions import Prediction, predict_dataset
from boxcycle.evaluation.segmentation import has_masks, segmentation_metrics
from boxcycle.methods.experiment import batches_of, dataset_for
from boxcycle.methods.label import with_boxes
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.methods.ws_jds.detector import WeakDetector
from boxcycle.methods.ws_jds.network import GuidanceConfig, WeakDetectorConfig
from boxcycle.models.detectors import build_detector
from study import SMALL, Rows, add_numbers, difference, given, seeds_of, spread, study_parser, train_unkept
from study_data import open_voc20

FIGURES = ("CorLoc", "AP50", "mIoU", "retrained")


@dataclass(frozen=True)
class Setting:
    """A data set and how long it is learnt."""

    images: int  # training images of a seed, drawn by boxcycle.data.splits.budget
    pixels: int  # longer side
    steps: int  # of 4 images, from ImageNet weights
    judged: int = 60  # images evaluated
    sampled: int = 32  # proposals of an image that teach in a step
    proposals: int = 128  # of an image at most
    roi_size: int = 3
    lr: float = 1e-3
    retrained: int = 0  # steps of 4 images of a detector that learns from pseudo boxes; 0: there is none
    method: str = "fast"  # of proposals
    detector: dict[str, Any] = field(default_factory=dict)  # settings of WeakDetectorConfig, for all arms
    guidance: dict[str, Any] = field(default_factory=dict)  # settings of GuidanceConfig, for all arms


SETTINGS = {
    "scenes": Setting(images=120, pixels=192, steps=240),
    "voc20": Setting(images=138, pixels=224, steps=240),
}
ARMS: dict[str, dict[str, Any]] = {
    "WSDDN": {"variant": "parallel", "segmentation": 0.0},
    "parallel": {"variant": "parallel"},
    "to segmentation": {"variant": "to_segmentation"},
    "to detection": {"variant": "to_detection"},
    "both": {"variant": "both"},
}
NUMBERS = ("images", "pixels", "steps", "judged", "sampled", "retrained", "lr")  # of a setting, by option
RETRAINED = ("WSDDN", "both")  # arms whose boxes teach a full detector


def open_data(name: str, folder: Path) -> tuple[Index, Index, Index]:
    """Training, validation and test split of a set by name."""
    if name == "scenes":
        config = SceneConfig(size=192)
        path = make_scenes(folder / name, config, {"train": 400, "val": 100, "test": 200})
        return tuple(read_split(path, split) for split in ("train", "val", "test"))  # type: ignore[return-value]
    return open_voc20()


def build_model(arm: str, num_classes: int, setting: Setting, folder: Path, seed: int) -> WeakDetector:
    """The detector of an arm; the parts that arms share begin with equal weights."""
    torch.manual_seed(seed)
    config = WeakDetectorConfig(**({"roi_size": setting.roi_size, "sampled": setting.sampled} | setting.detector))
    guidance = GuidanceConfig(**(setting.guidance | ARMS[arm]))
    after = round(guidance.start * setting.steps)
    return WeakDetector(num_classes, config, guidance, proposal_config(setting, folder), guided_after=after)


def proposal_config(setting: Setting, folder: Path) -> ProposalConfig:
    return ProposalConfig(method=setting.method, limit=setting.proposals, cache=folder / "proposals", workers=0)


def data_config(setting: Setting) -> DataConfig:
    resize = ResizeConfig(short=setting.pixels, long=setting.pixels)
    return DataConfig(path=Path(), resize=resize, cache=True)


def train(model: nn.Module, index: Index, setting: Setting, steps: int, seed: int, threads: int) -> float:
    """Train a model in place; returns the seconds of processor time it took."""
    dataset = dataset_for(model, index, data_config(setting), train=True)
    config = FitConfig(steps=steps, lr=setting.lr, threads=threads, workers=0, seed=seed, log_every=steps, save_every=0)
    return train_unkept(model, partial(batches_of, dataset, config), config)


def judge(
    model: WeakDetector, learnt: Index, judged: Index, found: Sequence[Prediction], setting: Setting
) -> dict[str, float]:
    """CorLoc of what is found in the images learnt from, AP50 and mean IoU on those judged, in percent."""
    others = dataset_for(model, judged, data_config(setting))
    figures = {
        "CorLoc": corloc(learnt, found).mean,
        "AP50": coco_metrics(judged, predict_dataset(model, others)).summary["AP50"],
    }
    if model.segmenter is not None and has_masks(judged):
        figures["mIoU"] = segmentation_metrics(model, others).mean
    return figures


def retrain(
    found: Sequence[Prediction], learnt: Index, judged: Index, setting: Setting, seed: int, threads: int
) -> float:
    """AP50 of mtl_ssl's detector, which learns from the best box of each tag as if a person had drawn it."""
    torch.manual_seed(seed)
    model = MultiTaskDetector(build_detector(learnt.num_classes, SMALL), TaskConfig())
    train(model, with_boxes(learnt, found, min_score=0.5), setting, setting.retrained, seed, threads)
    predictions = predict_dataset(model, dataset_for(model, judged, data_config(setting)))
    return coco_metrics(judged, predictions).summary["AP50"]


def chance(index: Index, setting: Setting, folder: Path, seed: int) -> dict[str, float]:
    """CorLoc of a random proposal for each tag (mean of 20 draws), and of the whole image."""
    proposals = open_proposals(index, proposal_config(setting, folder))
    rng = np.random.default_rng(seed)

    def guess(draw: bool) -> list[Prediction]:
        found = []
        for i in range(len(index)):
            tags, boxes = index.tags_of(i), proposals[i]
            rows = rng.integers(len(boxes), size=len(tags)) if draw else np.zeros(len(tags), dtype=int)
            found.append(Prediction(int(index.image_ids[i]), boxes[rows], tags, np.ones(len(tags), dtype=np.float32)))
        return found

    draws = [corloc(index, guess(True)).mean for _ in range(20)]
    return {"random proposal": float(np.mean(draws)), "whole image": corloc(index, guess(False)).mean}


def run_seed(
    arms: Sequence[str], pool: Index, judged: Index, setting: Setting, seed: int, options: argparse.Namespace
) -> Iterable[dict[str, Any]]:
    """Train and judge arms of one seed, all on the same images."""
    index = pool.subset(budget(pool, unit="images", amount=min(setting.images, len(pool)), seed=seed))
    judged = judged.subset(range(min(len(judged), setting.judged)))
    by_chance = chance(index, setting, options.out, seed)
    for arm in arms:
        model = build_model(arm, index.num_classes, setting, options.out, seed)
        seconds = train(model, without_boxes(index), setting, setting.steps, seed, options.threads)
        found = predict_dataset(model, dataset_for(model, index, data_config(setting)))
        figures = judge(model, index, judged, found, setting)
        if arm in RETRAINED and setting.retrained:
            figures["retrained"] = retrain(found, index, judged, setting, seed, options.threads)
        row = {"arm": arm, "seed": seed, "seconds": round(seconds, 1), "figures": figures, "chance": by_chance}
        yield row | {"places": best_box_places(index, found)}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means with their standard deviations, and paired differences to WSDDN with their 95 % interval."""
    print("| arm | seeds | " + " | ".join(FIGURES) + " | CorLoc - WSDDN (95 %) | AP50 - WSDDN (95 %) | CPU s a run |")
    print("|" + "---|" * (len(FIGURES) + 5))
    for arm in ARMS:
        mine = {row["seed"]: row for row in rows if row["arm"] == arm}
        if not mine:
            continue
        cells = [arm, str(len(mine))]
        for name in FIGURES:
            values = [row["figures"][name] for row in mine.values() if name in row["figures"]]
            cells.append(spread(values) if values else "")
        for name in ("CorLoc", "AP50"):
            own, base = (by_seed(rows, which, name) for which in (arm, "WSDDN"))
            cells.append(difference(own, base) if arm != "WSDDN" else "")
        cells.append(f"{np.mean([row['seconds'] for row in mine.values()]):.0f}")
        print("| " + " | ".join(cells) + " |")
    for name in ("random proposal", "whole image"):
        values = list({row["seed"]: row["chance"][name] for row in rows}.values())
        if values:
            print(f"| chance: {name} | {len(values)} | {np.mean(values):.1f} | | | | | | |")


def by_seed(rows: Sequence[dict[str, Any]], arm: str, name: str) -> dict[int, float]:
    """A figure of an arm by seed."""
    return {row["seed"]: row["figures"][name] for row in rows if row["arm"] == arm}


def print_places(rows: Sequence[dict[str, Any]]) -> None:
    """Where the best box of each tag lies in the images learnt from, in percent, means over the seeds."""
    found = {arm: [row["places"] for row in rows if row["arm"] == arm and "places" in row] for arm in ARMS}
    names = next((list(places[0]) for places in found.values() if places), [])
    if names:
        print("\n| best box of a tag | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for arm, places in found.items():
        if places:
            print(f"| {arm} | " + " | ".join(f"{np.mean([its[name] for its in places]):.0f}" for name in names) + " |")


def main() -> None:
    parser = study_parser(__doc__, SETTINGS, seeds=5, out="runs/ws-jds-study")
    parser.add_argument("--arms", nargs="*", default=list(ARMS), choices=list(ARMS))
    add_numbers(parser, NUMBERS)
    for name, example in (("detector", '{"stride": 16}'), ("guidance", '{"threshold": 0.1}')):
        parser.add_argument(f"--{name}", type=json.loads, default={}, help=f"settings of all arms, such as '{example}'")
    parser.add_argument("--smoke", action="store_true", help="every arm for two steps, one seed: does it run?")
    options = parser.parse_args()
    setting = replace(SETTINGS[options.data], **given(options, NUMBERS))
    detector, guidance = setting.detector | options.detector, setting.guidance | options.guidance
    setting = replace(setting, detector=detector, guidance=guidance)
    if options.smoke:
        setting, options.seeds = replace(setting, images=16, pixels=64, steps=2, retrained=2, judged=6, sampled=16), 1
    rows = Rows(options, setting)
    if options.job == "run":
        pool, val, test = open_data(options.data, options.out)
        for seed in seeds_of(options):
            missing = [arm for arm in options.arms if not rows.has(arm=arm, seed=seed)]
            if missing:
                judged = val if options.split == "val" else test
                for row in run_seed(missing, pool, judged, setting, seed, options):
                    rows.keep(row)
    print(rows.heading())
    print_table(rows)
    print_places(rows)


if __name__ == "__main__":
    main()
