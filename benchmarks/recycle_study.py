"""Does `boxcycle.recycle` help torchvision's Faster R-CNN? Plain against recycled, seed by seed, in torchvision's loop.

    python benchmarks/recycle_study.py run bccd --seeds 5        # trains what is missing, adds to the results file
    python benchmarks/recycle_study.py run bccd --weights mobilenet_v3_large.pth
    python benchmarks/recycle_study.py table bccd                # prints the table again

The tasks leave the detector exactly as plain training would (tests/methods/mtl_ssl/test_recycle.py), so one run gives
both arms: the detector with its own classes and with the refined ones. Without ``--weights`` it starts from random
ones: torchvision's are not part of this package, and from random weights a short schedule leaves little to compare.
``--weights`` takes a file of torchvision's, of the whole detector or of its MobileNet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn
from torchvision.transforms import v2

import boxcycle
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.splits import budget
from boxcycle.data.transforms import Transform
from boxcycle.evaluation.coco import coco_metrics
from boxcycle.evaluation.predictions import predict_dataset
from boxcycle.methods.mtl_ssl.recycle import RecycledDetector
from study import Rows, add_numbers, difference, given, seeds_of, study_parser
from study_data import open_data

ARMS = {"plain": "own", "recycled, refined": "refined"}  # and what a row calls their figures
# torchvision's 0.01 is for long schedules: after a few hundred steps statistics would still be those of the start
MOMENTUM = 0.1


@dataclass(frozen=True)
class Setting:
    """A data set and how long it is learnt."""

    images: int  # training images of a seed, drawn by boxcycle.data.splits.budget
    pixels: int  # shorter side that torchvision's transform makes
    steps: int
    batch: int = 2
    lr: float = 1e-3  # of AdamW, which needs fewer steps from random weights than the references' SGD
    sampled: int = 32  # regions of an image that teach the box head
    judged: int = 100  # images evaluated
    weights: str = ""  # file name; empty: random


NUMBERS = ("images", "pixels", "steps", "judged")  # of a setting, by option
SETTINGS = {"scenes": Setting(images=50, pixels=160, steps=120), "bccd": Setting(images=30, pixels=160, steps=120)}


def build_detector(num_classes: int, setting: Setting, weights: Path | None) -> nn.Module:
    """The detector of a seed before its first step; torch's global generator draws what no file gives."""
    sizes = {"min_size": setting.pixels, "max_size": 2 * setting.pixels, "box_batch_size_per_image": setting.sampled}
    detector = fasterrcnn_mobilenet_v3_large_fpn(
        weights=None, weights_backbone=None, num_classes=num_classes + 1, rpn_post_nms_top_n_test=300, **sizes
    )
    for norm in detector.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = MOMENTUM
    if weights is not None:
        load_fitting(detector, weights)
    return detector


def load_fitting(detector: nn.Module, file: Path) -> None:
    """Take what fits by name and shape; a classifier's ``features`` are the detector's ``backbone.body``."""
    found = torch.load(file, map_location="cpu", weights_only=True)
    names = {name: name.replace("features.", "backbone.body.", 1) for name in found}
    own = detector.state_dict()
    fitting = {new: found[old] for old, new in names.items() if new in own and own[new].shape == found[old].shape}
    if len(fitting) < len(own) / 2:
        raise SystemExit(f"{file}: only {len(fitting)} of the detector's {len(own)} tensors are in it")
    detector.load_state_dict(fitting, strict=False)


def train(model: nn.Module, index: Index, setting: Setting, seed: int) -> float:
    """torchvision's loop: sum the losses, step. Returns the seconds of processor time that it took."""
    dataset = DetectionDataset(index, Transform(None, v2.RandomHorizontalFlip(0.5)), cache=True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=setting.lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, setting.lr, total_steps=setting.steps, pct_start=0.1)
    torch.manual_seed(seed)  # what the detector samples
    model.train()
    begun = time.process_time()
    for images, targets in make_loader(dataset, batch_size=setting.batch, steps=setting.steps, seed=seed):
        losses = model(images, [plain_target(target) for target in targets])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        schedule.step()
    return time.process_time() - begun


def plain_target(target: Any) -> dict[str, Tensor]:
    """Boxes and labels without ignore regions, which torchvision's detectors would learn as objects."""
    kept = ~target["iscrowd"].bool() if "iscrowd" in target else slice(None)
    return {name: target[name][kept] for name in ("boxes", "labels")}


def judge(model: nn.Module, index: Index, setting: Setting) -> dict[str, float]:
    """AP, AP50 and AP75 on a split."""
    dataset = DetectionDataset(index.subset(range(min(len(index), setting.judged))))
    summary = coco_metrics(dataset.index, predict_dataset(model, dataset)).summary
    return {name: summary[name] for name in ("AP", "AP50", "AP75")}


def run_one(model: RecycledDetector, index: Index, judged: Index, setting: Setting, seed: int) -> dict[str, Any]:
    """Train one seed; judge the refined classes and the detector's own."""
    row: dict[str, Any] = {"seconds": round(train(model, index, setting, seed), 1)}
    row["refined"] = judge(model, judged, setting)
    model.refines = False
    return row | {"own": judge(model, judged, setting)}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Means, and paired differences to the plain detector with their 95 % interval."""
    print("| arm | seeds | AP | AP50 | AP50 - plain (95 %) | AP - plain (95 %) | CPU s a run |")
    print("|---|---|---|---|---|---|---|")
    seconds = np.mean([row["seconds"] for row in rows])
    for arm, figures in ARMS.items():
        cells = [arm, str(len(rows))]
        cells += [f"{np.mean([row[figures][metric] for row in rows]):.1f}" for metric in ("AP", "AP50")]
        for metric in ("AP50", "AP"):
            new, old = ({row["seed"]: row[source][metric] for row in rows} for source in (figures, "own"))
            cells.append(difference(new, old) if arm != "plain" else "")
        print("| " + " | ".join([*cells, f"{seconds:.0f}"]) + " |")


def main() -> None:
    parser = study_parser(__doc__, SETTINGS, seeds=5, out="runs/recycle-study")
    parser.add_argument("--weights", type=Path, help="a .pth of torchvision: the detector's or its MobileNet's")
    add_numbers(parser, NUMBERS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    weights = options.weights.name if options.weights else ""
    setting = replace(SETTINGS[options.data], weights=weights, **given(options, NUMBERS))
    rows = Rows(options, setting)
    if options.job == "run":
        pool, val, test = open_data(options.data, options.out)
        for seed in (seed for seed in seeds_of(options) if not rows.has(seed=seed)):
            index = pool.subset(budget(pool, unit="images", amount=min(setting.images, len(pool)), seed=seed))
            torch.manual_seed(seed)
            model = boxcycle.recycle(build_detector(index.num_classes, setting, options.weights))
            judged = val if options.split == "val" else test
            rows.keep({"seed": seed} | run_one(model, index, judged, setting, seed))
    print(rows.heading())
    print_table(rows)


if __name__ == "__main__":
    main()
