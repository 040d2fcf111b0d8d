"""How long W of Eq. 3 takes: at most 2 ms for 2,048 proposals, 20 classes and a map of 61 x 86 on one thread, and a
hundredth of the time of a loop over the proposals.

python benchmarks/proposal_weights.py
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from boxcycle.methods.ws_jds import labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proposals", type=int, default=2048)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(61, 86), help="height and width of the map")
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    masks, boxes = draw_case(options.classes, tuple(options.size), options.proposals)
    fast = best_and_median_ms(lambda: labels.proposal_weights(masks, boxes), options.repeats)
    slow = best_and_median_ms(lambda: looped(masks, boxes), max(2, options.repeats // 50))
    difference = (labels.proposal_weights(masks, boxes) - looped(masks, boxes)).abs().nan_to_num().max()
    print(
        f"{options.proposals} proposals, {options.classes} classes, map {options.size[0]} x {options.size[1]}; "
        f"1 of {os.cpu_count()} threads, {platform.machine()}, torch {torch.__version__}"
    )
    print(f"integral images    {fast[1]:9.2f} ms (median; best {fast[0]:.2f})")
    print(f"loop over boxes    {slow[1]:9.2f} ms (median; best {slow[0]:.2f}), {slow[0] / fast[0]:.0f} times as long")
    print(f"largest difference {float(difference):9.1e}")


def draw_case(classes: int, size: tuple[int, ...], count: int) -> tuple[Tensor, Tensor]:
    """Masks [K, H, W] and boxes [R, 4] in cells, none empty."""
    generator = torch.Generator().manual_seed(0)
    corners = (torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1], size[0]])).floor().long()
    boxes = torch.cat([corners.amin(1), corners.amax(1) + 1], dim=1)
    return torch.rand(classes, *size, generator=generator) ** 4, boxes


def looped(masks: Tensor, boxes: Tensor) -> Tensor:
    """The same weights, a box and a class at a time."""
    cells = labels.threshold_map(masks).float()
    height, width = cells.shape[1:]
    rows = []
    for x1, y1, x2, y2 in boxes.tolist():
        across, down = (x2 - x1) / 2 * 1.8, (y2 - y1) / 2 * 1.8
        left, right = (max(0, min(width, math.floor((x1 + x2) / 2 + side + 0.5))) for side in (-across, across))
        top, bottom = (max(0, min(height, math.floor((y1 + y2) / 2 + side + 0.5))) for side in (-down, down))
        area, outer = (x2 - x1) * (y2 - y1), (right - left) * (bottom - top)
        row = []
        for cell in cells:
            inside, whole = cell[y1:y2, x1:x2].sum(), cell[top:bottom, left:right].sum()
            row.append(inside / area**0.5 - (whole - inside) / max(outer - area, 1) ** 0.5)
        rows.append(torch.stack(row))
    return torch.stack(rows)


def best_and_median_ms(job: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Milliseconds of ``job``: the fastest of all repeats, which a busy machine disturbs least, and the median."""
    job()
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        job()
        seconds.append(time.perf_counter() - begun)
    return 1000 * min(seconds), 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
