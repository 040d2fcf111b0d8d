"""What grows with the number of classes: labels, heads and refinement at K = 20, 80 and 500, in one run.

    python benchmarks/many_classes.py

One image of 600 x 1000 pixels (a map of 38 x 63 cells), 300 proposals, 128 of them sampled in training. Milliseconds
are the median of processor time on one thread; ``MB made`` is the size of all tensors that operators return, an upper
bound of the memory in use, and does not depend on the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from boxcycle.methods.mtl_ssl import labels
from boxcycle.methods.mtl_ssl.heads import Cells, MapHead
from boxcycle.methods.mtl_ssl.refinement import Refiner
from boxcycle.models.backbone import RoIHead
from boxcycle.models.faster_rcnn import RegionHead

IMAGE, MAP = (600, 1000), (38, 63)
PROPOSALS, SAMPLED, WINDOWS, BOXES = 300, 128, 64, 20


class Made(TorchDispatchMode):
    """Adds up the bytes of the tensors that operators return, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.bytes += sum(leaf.nbytes for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[20, 80, 500])
    parser.add_argument("--channels", type=int, default=1280, help="of the last stage: EfficientNet-Lite0's")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"1 of {os.cpu_count()} threads, {platform.machine()}, torch {torch.__version__}")
    print("| what | K | parameters | ms | MB made |\n|---|---|---|---|---|")
    cases = {classes: jobs(classes, options.channels) for classes in options.classes}
    for name in next(iter(cases.values())):
        for classes, case in cases.items():
            job, weights = case[name]
            count = f"{sum(p.numel() for p in weights) / 1e6:.2f} million" if weights else ""
            print(
                f"| {name} | {classes} | {count} | {median_ms(job, options.rounds):.1f} | {made(job):.1f} |", flush=True
            )


def jobs(classes: int, channels: int) -> dict[str, tuple[Callable[[], object], list[nn.Parameter]]]:
    """What is measured for a number of classes: a job, and the weights that it has."""
    generator = torch.Generator().manual_seed(0)
    boxes, proposals, windows = (draw(count, generator) for count in (BOXES, PROPOSALS, WINDOWS))
    drawn = torch.randint(1, classes + 1, (BOXES,), generator=generator)
    around = labels.refinement_windows(proposals, IMAGE, 5)[:, :-1].flatten(0, 1)
    region = RegionHead(RoIHead(nn.Identity()), 16, 7, channels, classes)
    head, refiner = MapHead(region), Refiner(classes, windows=5, closeness=True)
    cells = Cells(torch.randn(1, channels, MAP[0] // 2, MAP[1] // 2 + 1, generator=generator), MAP)
    vectors = torch.randn(PROPOSALS, channels, generator=generator)
    given = [torch.randn(PROPOSALS, *shape, classes + 1, generator=generator) for shape in ((), (5,), ())]

    def quiet(job: Callable[[], object]) -> Callable[[], object]:
        return torch.no_grad()(job)

    def teach(outputs: Callable[[], Tensor], weights: Iterable[nn.Parameter]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(outputs().square().mean(), list(weights))

    def both_labels() -> object:
        return (
            labels.multi_object_labels(windows, boxes, drawn, classes),
            labels.closeness_labels(boxes, drawn, IMAGE, classes),
        )

    at_classifier, at_head, at_refiner = (list(part.parameters()) for part in (region.classifier, head, refiner))
    return {
        "labels of 64 windows and 20 boxes": (quiet(both_labels), []),
        "detector's linear layer, 300 regions": (quiet(lambda: region.classifier(vectors)), at_classifier),
        "dense head, map and 1200 windows": (quiet(lambda: head(cells, [around])), at_head),
        "dense head, map and 64 windows, with gradient": (teach(lambda: head(cells, [windows]), at_head), at_head),
        "refiner, 300 proposals": (quiet(lambda: refiner(*given)), at_refiner),
        "refiner, 32 proposals, with gradient": (
            teach(lambda: refiner(*(value[:32] for value in given)), at_refiner),
            at_refiner,
        ),
    }


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Boxes [count, 4] anywhere in the image."""
    sides = torch.tensor([IMAGE[1], IMAGE[0]])
    corners = torch.rand(count, 2, 2, generator=generator) * (sides - 9)
    return torch.cat([corners.amin(1), corners.amax(1) + 8], 1)


def median_ms(job: Callable[[], object], rounds: int) -> float:
    """Median milliseconds of processor time; the first two rounds warm up."""
    seconds = []
    for _ in range(rounds + 2):
        begun = time.process_time()
        job()
        seconds.append(time.process_time() - begun)
    return 1000 * statistics.median(seconds[2:])


def made(job: Callable[[], object]) -> float:
    """Megabytes of the tensors that a job makes."""
    with Made() as mode:
        job()
    return mode.bytes / 1e6


if __name__ == "__main__":
    main()
