"""What packing, windows, pruning and early stop save in mining; does consistency pick better boxes than confidence?

    python benchmarks/mining_cost.py scenes
    python benchmarks/mining_cost.py bccd --any-context

A detector is trained on a small budget, then mines other images again and again. The first row pastes every candidate
once a forward, as the paper does; the others are measured against it: forwards for each of its candidates (in whole
images; the one that finds the candidates is not counted), processor time, the rank correlation (Spearman's) of the
consistency of the candidates that both measured to the end, and of the pseudo boxes that either gives, the part that
both give. The second row is the first with other targets and places: how well the measure agrees with itself. The last
row is the round after: the detector has learnt on, and what has not changed keeps its score.

Then what mining adds to the training of a round, and the part of the best candidates that is right (class, IoU 0.5) for
several orders of the same candidates, at equal numbers of boxes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from boxcycle.methods.ssm.mining import blocks
from boxcycle.methods.ssm.questions import Oracle
from boxcycle.methods.ssm.selection import QuestionConfig, can_be_selected, pseudo_boxes
from boxcycle.methods.ssm.validation import Miner
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.two_stage import RegionConfig
from boxcycle.types import Target

REAL = Path(__file__).parents[2] / "shared" / "data"
PLAIN: dict[str, Any] = {"pack": 1, "prune": False, "early_stop": False}
FIRST, AGAIN = "one paste a forward", "the same, other targets and places"
VARIANTS: dict[str, dict[str, Any]] = {
    FIRST: {},
    AGAIN: {},
    "pack 4, images apart": {"pack": 4, "block": 1},
    "pack 4": {"pack": 4},
    "pack 10": {"pack": 10},
    "pack 16, 8 px apart": {"pack": 16, "gap": 8},
    "windows of 2.5": {"window": 2.5},
    "prune, early stop": {"prune": True, "early_stop": True},
    "prune, early stop, pack 10 (the default)": {"prune": True, "early_stop": True, "pack": 10},
}
NEXT = "the round after, by default"
ROUNDS = (1, 2, 4, 7)  # 7: as 5,000 steps of 16 images would be for the 11,540 of PASCAL VOC 2012


def new_detector(index: Index, options: argparse.Namespace) -> FasterRCNN:
    torch.manual_seed(options.seed)
    config = DetectorConfig(anchor_sizes=(16, 32, 64, 128), proposals=100, roi_size=4, regions=RegionConfig(sampled=32))
    return FasterRCNN(index.num_classes, config)


def train(detector: FasterRCNN, index: Index, options: argparse.Namespace, steps: int) -> float:
    """Train a detector in place for some steps of 4 images; returns the seconds that an image took."""
    dataset = DetectionDataset(index, make_transform(resize(options), train=True), cache=True)

    def batches(start: int, *_: int) -> Iterable[tuple[list[Tensor], list[Target]]]:
        return make_loader(dataset, batch_size=4, steps=steps, seed=options.seed, start_step=start)

    settings = FitConfig(steps=steps, lr=1e-3, threads=options.threads, workers=0, seed=options.seed, save_every=0)
    begun = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        fit(detector, batches, settings, Path(folder))
    detector.eval()
    return (time.process_time() - begun) / (4 * steps)


def resize(options: argparse.Namespace) -> ResizeConfig:
    return ResizeConfig(short=options.pixels, long=options.pixels)


class Pass(NamedTuple):
    """One mining pass: what it found, the miner that counted, and the seconds it took."""

    found: Candidates
    miner: Miner
    seconds: float

    @property
    def forwards(self) -> float:
        """Of whole images, without those that found the candidates."""
        return self.miner.canvases - len(self.miner.pool.unlabelled) - self.miner.spared


def mine(
    detector: FasterRCNN,
    pool: Pool,
    options: argparse.Namespace,
    *,
    seed: int = 0,
    previous: Candidates | None = None,
    **changes: Any,
) -> Pass:
    config = MiningConfig(any_context=options.any_context, **changes)
    settings = {"seed": options.seed + seed, "cache": True, "previous": previous}
    miner = Miner(detector, pool, resize(options), config, QuestionConfig(), **settings)
    begun = time.process_time()
    its = [image.candidates for block in blocks(pool, config.block) for image in miner.mine(block)]
    return Pass(joined(its, pool.index.num_classes), miner, time.process_time() - begun)


def print_costs(detector: FasterRCNN, pool: Pool, options: argparse.Namespace) -> dict[str, Pass]:
    """A row for each variant; returns what each found."""
    results: dict[str, Pass] = {}
    names = ["variant", "pastes", "forwards a candidate", "CPU s", "CPU time, ratio", "rank correlation (candidates)"]
    print("| " + " | ".join([*names, "pseudo boxes", "in common, %"]) + " |\n" + "|---" * 8 + "|")
    for name, changes in VARIANTS.items():
        results[name] = mine(detector, pool, options, seed=int(name == AGAIN), **(PLAIN | changes))
        print_row(name, results[name], results[FIRST])
    return results


def print_row(name: str, its: Pass, first: Pass | None) -> None:
    """``first``: the pass it is measured against, over the same candidates; None: no other has its candidates."""
    count = int((its.found.labels > 0).sum())
    cells = [name, str(its.miner.pasted), f"{its.forwards / count:.2f}", f"{its.seconds:.0f}"]
    if first is not None:
        same = (its.found.tests == first.found.tests) & (first.found.tests > 0)  # an early stop leaves fewer trials
        rank = rank_correlation(first.found.consistency[same], its.found.consistency[same])
        given, other = chosen(first.found), chosen(its.found)
        common = 100 * len(given & other) / max(len(given | other), 1)
        cells += [f"{its.seconds / first.seconds:.2f}", f"{rank:.3f} ({int(same.sum())})"]
        cells += [str(len(other)), f"{common:.0f}"]
    print("| " + " | ".join(cells + [""] * (8 - len(cells))) + " |", flush=True)


def chosen(found: Candidates) -> set[tuple[float, ...]]:
    """The pseudo boxes that mining gives, by image and box."""
    its = pseudo_boxes(found).candidates
    return {(image_id, *box) for image_id, box in zip(its.image_ids.tolist(), its.boxes.tolist(), strict=True)}


def print_share(default: Pass, training: float) -> None:
    """What the default adds to a round's training. ``training``: seconds that an image of a step takes."""
    mining = default.seconds / len(default.miner.pool.unlabelled)
    print(
        f"\nfinding and validating takes {mining:.2f} s an image; training takes {training:.2f} s an image and step\n"
    )
    print("| images trained in a round for each that it mines | " + " | ".join(map(str, ROUNDS)) + " |")
    print("|---" * (len(ROUNDS) + 1) + "|")
    print("| mining adds, % | " + " | ".join(f"{100 * mining / training / times:.0f}" for times in ROUNDS) + " |\n")


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
    parser.add_argument("--pool", type=int, default=120, help="images to mine")
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
    known = pool.training_index()
    detector = new_detector(known, options)
    training = train(detector, known, options, options.steps)
    results = print_costs(detector, pool, options)
    views = mine(detector, pool, options, validate_by="views", prune=False)
    default = results[[*VARIANTS][-1]]
    train(detector, known, options, options.steps // 2)
    print_row(NEXT, mine(detector, pool, options, previous=default.found), None)
    print_share(default, training)
    print_precision(results[FIRST].found, views.found, Oracle(index), [25, 50, 100, 200])


if __name__ == "__main__":
    main()
