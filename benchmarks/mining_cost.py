"""What packing, windows, pruning and early stop save in mining; does consistency pick better boxes than confidence?

    python benchmarks/mining_cost.py scenes
    python benchmarks/mining_cost.py bccd --any-context

A detector is trained on a small budget, then mines the rest of the training split again and again. The first row pastes
every candidate once a forward, as the paper does; the others are measured against it: forwards for each of its
candidates (in whole images; the one that finds the candidates is not counted), processor time, and the rank correlation
(Spearman's) of the consistency of the candidates that both measured. Then the part of the best candidates that is right
(class, IoU 0.5) for several orders of the same candidates, at equal numbers of boxes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.pool import Pool, regions
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.splits import budget
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import fit
from boxcycle.engine.records import environment
from boxcycle.methods.ssm.config import MiningConfig
from boxcycle.methods.ssm.labels import Candidates, joined
from boxcycle.methods.ssm.questions import Oracle
from boxcycle.methods.ssm.selection import QuestionConfig, can_be_selected
from boxcycle.methods.ssm.validation import Miner
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.two_stage import RegionConfig
from boxcycle.types import Target

REAL = Path(__file__).parents[2] / "shared" / "data"
PLAIN: dict[str, Any] = {"pack": 1, "prune": False, "early_stop": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "one paste a forward": {},
    "pack 4": {"pack": 4},
    "windows of 2.5": {"window": 2.5},
    "windows of 1.5": {"window": 1.5},
    "prune": {"prune": True},
    "prune, early stop": {"prune": True, "early_stop": True},
    "prune, early stop, pack 4": {"prune": True, "early_stop": True, "pack": 4},
    "prune, early stop, windows of 2.5": {"prune": True, "early_stop": True, "window": 2.5},
    "prune, early stop, pack 4, windows of 2.5": {"prune": True, "early_stop": True, "pack": 4, "window": 2.5},
}


def train_detector(index: Index, options: argparse.Namespace) -> FasterRCNN:
    """A plain detector after a short training."""
    torch.manual_seed(options.seed)
    config = DetectorConfig(anchor_sizes=(16, 32, 64, 128), proposals=100, roi_size=4, regions=RegionConfig(sampled=32))
    detector = FasterRCNN(index.num_classes, config)
    dataset = DetectionDataset(index, make_transform(resize(options), train=True), cache=True)

    def batches(start: int, *_: int) -> Iterable[tuple[list[Tensor], list[Target]]]:
        return make_loader(dataset, batch_size=4, steps=options.steps, seed=options.seed, start_step=start)

    settings = FitConfig(
        steps=options.steps, lr=1e-3, threads=options.threads, workers=0, seed=options.seed, save_every=0
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(detector, batches, settings, Path(folder))
    return detector.eval()


def resize(options: argparse.Namespace) -> ResizeConfig:
    return ResizeConfig(short=options.pixels, long=options.pixels)


def mine(
    detector: FasterRCNN, pool: Pool, options: argparse.Namespace, **changes: Any
) -> tuple[Candidates, Miner, float]:
    """All candidates of the pool, the miner that counted, and the seconds it took."""
    config = MiningConfig(any_context=options.any_context, **changes)
    miner = Miner(detector, pool, resize(options), config, QuestionConfig(), seed=options.seed, cache=True)
    begun = time.process_time()
    found = joined([miner.mine(int(position)) for position in pool.unlabelled], pool.index.num_classes)
    return found, miner, time.process_time() - begun


def print_costs(detector: FasterRCNN, pool: Pool, options: argparse.Namespace) -> dict[str, Candidates]:
    """A row for each variant; returns what each found."""
    results: dict[str, Candidates] = {}
    plain_seconds, count = 0.0, 0
    print("| variant | pastes | forwards a candidate | CPU s | CPU time, ratio | rank correlation (candidates) |")
    print("|---|---|---|---|---|---|")
    for name, changes in VARIANTS.items():
        found, miner, seconds = mine(detector, pool, options, **(PLAIN | changes))
        plain = results.setdefault("one paste a forward", found)
        plain_seconds, count = plain_seconds or seconds, count or int((found.tests > 0).sum())
        forwards = (miner.canvases - len(pool.unlabelled) - miner.spared) / count
        complete = found.tests == plain.tests  # an early stop leaves a score of fewer trials, which no one uses
        rank = rank_correlation(plain.consistency[complete], found.consistency[complete])
        cells = [name, str(miner.pasted), f"{forwards:.2f}", f"{seconds:.0f}", f"{seconds / plain_seconds:.2f}"]
        print(
            "| " + " | ".join([*cells, f"{rank:.3f} ({int((complete & (plain.tests > 0)).sum())})"]) + " |", flush=True
        )
        results[name] = found
    return results


def print_precision(found: Candidates, views: Candidates, oracle: Oracle, counts: Sequence[int]) -> None:
    """How many of the best candidates are right, by three orders of the same candidates that have a class at 0.5."""
    sure = can_be_selected(found.probs, 1.0, 0.9) & (found.tests > 0)
    found, views = found[sure], views[sure]
    orders = {
        "confidence": -found.probs.amax(1),
        "consistency when pasted": -found.consistency,
        "consistency of views": -views.consistency,
        "confidence x consistency when pasted": -found.consistency * found.probs.amax(1),
    }
    counts = [count for count in counts if count < len(found)] + [len(found)]
    print("| order | " + " | ".join(f"best {count}" for count in counts) + " |\n|---|" + "---|" * len(counts))
    for name, keys in orders.items():
        ranked = found[found.ranked(keys)]
        cells = [f"{100 * right(ranked[:count], oracle):.1f}" for count in counts]
        print(f"| {name} | " + " | ".join(cells) + " |")


def right(candidates: Candidates, oracle: Oracle) -> float:
    boxes = candidates.boxes.double().numpy()
    return oracle.right(regions(candidates.image_ids.numpy(), boxes, candidates.labels.numpy()))


def rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's, over the candidates that both measured."""
    both = ~(one.isnan() | other.isnan())
    ranks = [torch.from_numpy(np.argsort(np.argsort(its[both].numpy()))).double() for its in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["scenes", "bccd"])
    parser.add_argument("--labelled", type=int, default=60, help="images of the budget")
    parser.add_argument("--pool", type=int, default=60, help="images to mine")
    parser.add_argument("--pixels", type=int, default=192, help="longer side")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--any-context", action="store_true", help="for classes that every image shows")
    parser.add_argument("--out", type=Path, default=Path("runs/mining"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = REAL / "bccd"
    if options.data == "scenes":
        path = make_scenes(options.out / "scenes", SceneConfig(size=256), {"train": 400, "val": 1})
    index = read_split(path, "train")
    labelled = budget(index, unit="images", amount=options.labelled, seed=options.seed)
    rest = np.setdiff1d(np.arange(len(index)), labelled)[: options.pool]
    index = index.subset(np.concatenate([labelled, rest]))
    pool = Pool.start(index, np.arange(len(labelled)))
    print(f"{options.data}: {vars(options)}\nmachine: {environment()['machine']}")
    detector = train_detector(pool.training_index(), options)
    results = print_costs(detector, pool, options)
    whole = results["one paste a forward"]
    views, _, _ = mine(detector, pool, options, validate_by="views", prune=False)
    print_precision(whole, views, Oracle(index), [25, 50, 100, 200])


if __name__ == "__main__":
    main()
