"""What the tasks and the refinement cost, in prediction and in a training step: the paper's form and cheaper ones.

    python benchmarks/refinement_cost.py --backbones efficientnet_lite0 resnet50 resnet101 --threads 1

All forms share one detector, see the same image and take turns. Seconds are of processor time, so that other work on
the machine counts little; each round's are divided by the plain detector's of that round. GMAC are counted by torch,
without noise: RoIAlign and what is no product is not in them, and the weight gradient of a depthwise convolution stands
in them as that of a full one, so that training steps of EfficientNets look larger than they are, on all rows.

The proposals are 300 random boxes. Detections are suppressed, and proposals refined, by the number of proposals for
which some class is likely. Random weights are given a background bias that makes this ``--share`` of them; ``--run``
prints it for a trained detector.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from boxcycle.methods.mtl_ssl import labels
from boxcycle.methods.mtl_ssl.config import TaskConfig
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.methods.mtl_ssl.tasks import image_means, per_region
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.types import Detections, ImageList, Target

Job = Callable[[], object]
LIKELY = 0.01  # the least score of a detection, by default
FORMS = [
    "plain",
    "not refined",
    "as the paper",
    "region",
    "region, likely ones",
    "dense",
    "dense, likely ones",
    "shared",
]
REFINING = {
    "region": {"heads": "region"},
    "region, likely ones": {"heads": "region", "refine_above": LIKELY},
    "dense": {"heads": "dense"},
    "dense, likely ones": {"heads": "dense", "refine_above": LIKELY},
    "shared": {"heads": "shared"},
}
DEFAULT = TaskConfig()  # which of the rows it is, is printed


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.run:
        return print_shares(options.run, options.images)
    height, width = options.size
    print(
        f"image {height} x {width}, {options.classes} classes, a class of probability {LIKELY} for {options.share:.0%} "
        f"of the proposals; {options.threads} of {os.cpu_count()} threads, {platform.machine()}, "
        f"torch {torch.__version__}; the default is heads={DEFAULT.heads}, refine_above={DEFAULT.refine_above}"
    )
    for name in options.backbones:
        torch.manual_seed(0)
        image, target = make_sample(height, width, options.classes)
        detector = Proposing300(options.classes, DetectorConfig(backbone=name, weights="none"))
        settle(detector, image, options.share)
        print(f"\n{name}; a region of the second stage costs {1000 * cost_of_a_region(detector):.1f} MMAC")
        jobs = prediction_jobs(detector, image)
        jobs["plain"]()  # warms up
        compare("prediction", {form: jobs[form] for form in options.forms}, options.rounds)
        if options.steps:
            jobs = training_jobs(detector, image, target)
            compare("training step", {form: jobs[form] for form in options.forms if form in jobs}, options.steps)
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet_lite0", "resnet50", "resnet101"])
    parser.add_argument("--size", nargs=2, type=int, default=[600, 1000], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.45, help="of proposals for which some class is likely")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="predictions of each form")
    parser.add_argument("--steps", type=int, default=3, help="training steps of each form; 0: none")
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS, help="rows; plain is always one")
    parser.add_argument("--run", type=Path, help="print the share of likely proposals of this run's detector and data")
    parser.add_argument("--images", type=int, default=40, help="of the run's data")
    options = parser.parse_args()
    options.forms = [form for form in FORMS if form in {"plain", *options.forms}]
    return options


# --- what is compared


class Proposing300(FasterRCNN):
    """A detector whose proposals are 300 random boxes; those of random weights may be few."""

    def propose(
        self, maps: Tensor, batch: ImageList, targets: list[Target] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        _, losses = super().propose(maps, batch, targets)
        height, width = batch.sizes[0]
        sides = torch.tensor([width, height])
        corners = torch.rand(300, 2, 2, generator=torch.Generator().manual_seed(1)) * (sides - 17)
        return [torch.cat([corners.amin(1), corners.amax(1) + 16], 1)], losses


def cost_of_a_region(detector: FasterRCNN) -> float:
    """GMAC of one region through the region head."""
    maps = torch.zeros(1, detector.backbone.trunk_channels, 4, 4)
    return measure(no_grad(lambda: detector.head(maps, [torch.tensor([[0.0, 0, 32, 32]])])))[0]


def make_sample(height: int, width: int, classes: int) -> tuple[Tensor, Target]:
    """An image of noise and eight boxes."""
    generator = torch.Generator().manual_seed(0)
    sides = torch.tensor([width, height])
    low = torch.rand(8, 2, generator=generator) * 0.6 * sides
    extent = (0.1 + 0.3 * torch.rand(8, 2, generator=generator)) * sides
    classes_drawn = torch.randint(1, classes + 1, (8,), generator=generator)
    image = torch.rand(3, height, width, generator=generator)
    return image, Target(boxes=torch.cat([low, low + extent], 1), labels=classes_drawn, seed=0)


@torch.no_grad()
def settle(detector: FasterRCNN, image: Tensor, share: float) -> None:
    """Shift the background's bias until ``share`` of the proposals have a likely class."""
    batch = detector.eval().batch([image])
    maps = detector.features(batch)
    proposals, _ = detector.propose(maps, batch)
    logits, _ = detector.classify(maps, proposals)
    best, others = logits[:, 1:].amax(1), logits[:, 1:].logsumexp(1)
    # the background logit at which the best class has the probability LIKELY
    limit = (best.exp() / LIKELY - others.exp()).log() - logits[:, 0]
    detector.head.region.classifier.bias[0] += limit.quantile(1 - share)


def prediction_jobs(detector: FasterRCNN, image: Tensor) -> dict[str, Job]:
    """The plain detector, the paper's form and ours; without refinement ours is the plain detector, stage for stage."""
    jobs: dict[str, Job] = {"plain": lambda: detector.eval().predict([image])}
    for name, tasks in REFINING.items():
        model = MultiTaskDetector(detector, TaskConfig.model_validate(tasks)).eval()
        jobs[name] = lambda model=model: model.predict([image])
        if name == "region":
            jobs["as the paper"] = lambda model=model: predict_literally(model, image)
    unrefined = MultiTaskDetector(detector, TaskConfig(refinement=0)).eval()
    jobs["not refined"] = lambda: unrefined.predict([image])
    return {name: no_grad(job) for name, job in jobs.items()}


def predict_literally(model: MultiTaskDetector, image: Tensor) -> list[Detections]:
    """The refinement as printed: five windows and the closeness of every proposal through heads of their own."""
    detector = model.detector
    batch = detector.batch([image])
    maps = detector.features(batch)
    proposals, _ = detector.propose(maps, batch)
    logits, deltas = detector.classify(maps, proposals)
    windows = labels.refinement_windows(proposals[0], batch.sizes[0], 5)  # [P, 5, 4]
    around = model.window_head(maps, [windows.flatten(0, 1)]).unflatten(0, (-1, 5))
    counts = [len(proposals[0])]
    closeness = per_region(image_means(model.closeness_head(maps, proposals), counts), counts)
    return detector.detect(model.refiner(logits, around, closeness), deltas, proposals, batch.sizes)


def training_jobs(detector: FasterRCNN, image: Tensor, target: Target) -> dict[str, Job]:
    """Losses of one image and their gradients, of the plain detector and of each form."""

    def step(model: FasterRCNN | MultiTaskDetector) -> None:
        losses = model.train().losses([image], [target])
        torch.stack([model.loss_weights[name] * value for name, value in losses.items()]).sum().backward()
        model.zero_grad()

    jobs: dict[str, Job] = {"plain": lambda: step(detector)}
    for name in ("region", "dense", "shared"):
        model = MultiTaskDetector(detector, TaskConfig.model_validate({"heads": name}))
        jobs[name] = lambda model=model: step(model)
    return jobs


def no_grad(job: Job) -> Job:
    """The same job without recording gradients."""

    def quiet() -> object:
        with torch.no_grad():
            return job()

    return quiet


# --- how it is measured


def compare(what: str, jobs: dict[str, Job], rounds: int) -> None:
    """Print operations and seconds of each job, beside those of the job ``plain``."""
    measured = [{name: measure(job) for name, job in jobs.items()} for _ in range(rounds)]
    print(f"| {what} | GMAC | / plain | CPU s | / plain |\n|---|---|---|---|---|")
    for name in jobs:
        operations, seconds = zip(*(row[name] for row in measured), strict=True)
        pairs = [(row[name], row["plain"]) for row in measured]
        ratios = [statistics.median(one[i] / plain[i] for one, plain in pairs) for i in range(2)]
        cells = [f"{operations[0]:.1f}", f"{ratios[0]:.2f}", f"{statistics.median(seconds):.2f}", f"{ratios[1]:.2f}"]
        print("| " + " | ".join([name, *cells]) + " |", flush=True)


def measure(job: Job) -> tuple[float, float]:
    """Thousand millions of multiplications with an addition, and seconds of processor time."""
    with FlopCounterMode(display=False) as counter:  # costs microseconds an operator
        begun = time.process_time()
        job()
        seconds = time.process_time() - begun
    return counter.get_total_flops() / 2e9, seconds


@torch.no_grad()
def print_shares(run: Path, images: int) -> None:
    """Part of a trained detector's proposals for which some class has at least a certain probability."""
    from boxcycle.data.config import open_split
    from boxcycle.data.dataset import DetectionDataset
    from boxcycle.data.transforms import make_transform
    from boxcycle.methods.loading import load

    loaded = load(run, device="cpu")
    model = loaded.model
    detector = model.detector if isinstance(model, MultiTaskDetector) else model
    index = open_split(loaded.config.data, loaded.config.data.val, [])
    dataset = DetectionDataset(index, make_transform(loaded.config.data.resize, train=False))
    best = []
    for number in range(min(images, len(dataset))):
        batch = detector.batch([dataset[number][0]])
        maps = detector.features(batch)
        logits, _ = detector.classify(maps, detector.propose(maps, batch)[0])
        best.append(logits.softmax(1)[:, 1:].amax(1))
    print(f"{run}: {len(torch.cat(best)) / len(best):.0f} proposals an image")
    for limit in (0.001, 0.01, 0.05, 0.1):
        print(f"some class has the probability {limit} for {(torch.cat(best) >= limit).float().mean():.1%}")


if __name__ == "__main__":
    main()
