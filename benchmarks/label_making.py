"""How long the labels of MTL-SSL take: at most 1 ms an image for 64 windows, 20 boxes and 80 classes on one thread.

python benchmarks/label_making.py
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from boxcycle.methods.mtl_ssl import labels

IMAGE = (600, 800)  # height, width


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    cases = [draw_case(options.boxes, options.classes, generator) for _ in range(options.images)]
    jobs: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
        "sample_windows": lambda boxes, _, __: labels.sample_windows(boxes, IMAGE, options.windows, 32, generator),
        "multi_object_labels": lambda boxes, classes, windows: labels.multi_object_labels(
            windows, boxes, classes, options.classes
        ),
        "closeness_labels": lambda boxes, classes, _: labels.closeness_labels(boxes, classes, IMAGE, options.classes),
        "foreground_mask": lambda boxes, _, __: labels.foreground_mask(boxes, IMAGE, 64),
        "refinement_windows": lambda boxes, _, windows: labels.refinement_windows(windows, IMAGE, 5),
    }
    print(
        f"{options.windows} windows, {options.boxes} boxes, {options.classes} classes; 1 of {os.cpu_count()} threads, "
        f"{platform.machine()}, torch {torch.__version__}"
    )
    medians = {name: median_ms(job, cases, options) for name, job in jobs.items()}
    for name, value in {**medians, "sum": sum(medians.values())}.items():
        print(f"{name:20} {value:7.3f} ms an image")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--boxes", type=int, default=20)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--images", type=int, default=200)
    return parser.parse_args()


def draw_case(count: int, num_classes: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Boxes [N, 4] anywhere in the image, a tenth to a half of its sides, with classes [N]."""
    sides = torch.tensor([IMAGE[1], IMAGE[0]])
    extent = (0.1 + 0.4 * torch.rand(count, 2, generator=generator)) * sides
    low = torch.rand(count, 2, generator=generator) * (sides - extent)
    return torch.cat([low, low + extent], 1), torch.randint(1, num_classes + 1, (count,), generator=generator)


def median_ms(
    job: Callable[[Tensor, Tensor, Tensor], object], cases: list[tuple[Tensor, Tensor]], options: argparse.Namespace
) -> float:
    """Median milliseconds of ``job`` over images; the first ones warm up."""
    generator = torch.Generator().manual_seed(1)
    seconds = []
    for boxes, classes in cases[:10] + cases:
        windows = labels.sample_windows(boxes, IMAGE, options.windows, 32, generator)
        begun = time.perf_counter()
        job(boxes, classes, windows)
        seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds[10:])


if __name__ == "__main__":
    main()
