"""How cost grows with the data: reading, splitting, starting and checking 1,000, 10,000 and 100,000 images; classes.

    python benchmarks/growth.py images            # COCO files of 7 boxes an image
    python benchmarks/growth.py images --format voc --sizes 1000 10000
    python benchmarks/growth.py classes           # one training step at 3, 80 and 500 classes

Every image file exists: one small JPEG under as many names (hard links), so that what is measured is boxcycle and not
the decoding of photographs. Each size is measured in a process of its own; memory is the growth of that process, and of
the index the bytes of its arrays. Seconds are of processor time (user and system), and in brackets of the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

BOXES = 7  # an image, as in COCO (860,001 boxes in 118,287 images)
SIDE = 64  # pixels of the shared image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["images", "classes", "one"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[3, 80, 500])
    parser.add_argument("--format", choices=["coco", "voc", "yolo"], default="coco")
    parser.add_argument("--doctor", action=argparse.BooleanOptionalAction, default=True, help="decode every image too")
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.what == "one":
        print(json.dumps(measure(options.path, options.doctor)))
        return
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    if options.what == "images":
        images_table(options)
    else:
        classes_table(options.classes)


# --- images


def images_table(options: argparse.Namespace) -> None:
    """A row for each number of images."""
    print(
        "| images | read | bytes an image: index | process | split 10 % | first batch | doctor |\n" + "|---" * 7 + "|"
    )
    for count in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder), count, options.format)
            flag = "--doctor" if options.doctor else "--no-doctor"
            command = [sys.executable, __file__, "one", "--path", str(path), flag]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        doctor = row.get("doctor", "–")
        cells = (row["read"], row["index"], row["process"], row["split"], row["start"], doctor)
        print(f"| {count:,} | " + " | ".join(map(str, cells)) + " |", flush=True)


def write(folder: Path, count: int, layout: str) -> Path:
    """A data set of ``count`` images; returns where it lies."""
    source = folder / "coco"
    images = source / "images" / "train"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    first = images / "000000.jpg"
    Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(first, quality=80)
    for number in range(1, count):
        place = images / f"{number:06d}.jpg"
        if number % 50_000:
            os.link(first, place)
        else:
            first = Path(shutil.copy(first, place))  # ext4 allows a file 65,000 names
    (source / "annotations").mkdir()
    (source / "annotations" / "instances_train.json").write_text(json.dumps(coco(count, rng)))
    if layout == "coco":
        return source
    from boxcycle.data.convert import WRITERS
    from boxcycle.data.read import read_split

    target = folder / layout
    WRITERS[layout].write(read_split(source, "train"), target, "train")
    place = target / ("JPEGImages" if layout == "voc" else "images/train")
    place.parent.mkdir(parents=True, exist_ok=True)
    images.rename(place)
    return target


def coco(count: int, rng: np.random.Generator) -> dict[str, Any]:
    """COCO's lists with random boxes of 80 classes."""
    corners = rng.integers(0, SIDE // 2, (count * BOXES, 2)).tolist()
    sides = rng.integers(4, SIDE // 2, (count * BOXES, 2)).tolist()
    labels = rng.integers(1, 81, count * BOXES).tolist()
    boxes = zip(corners, sides, labels, strict=True)
    return {
        "images": [{"id": n, "file_name": f"{n:06d}.jpg", "width": SIDE, "height": SIDE} for n in range(count)],
        "annotations": [
            {"id": n, "image_id": n // BOXES, "category_id": k, "bbox": [*c, *s], "area": s[0] * s[1], "iscrowd": 0}
            for n, (c, s, k) in enumerate(boxes)
        ],
        "categories": [{"id": k, "name": f"class{k}"} for k in range(1, 81)],
    }


def measure(path: Path, doctor: bool) -> dict[str, Any]:
    """What one process needs for the data set at ``path``."""
    from boxcycle.data.dataset import DetectionDataset
    from boxcycle.data.doctor import examine
    from boxcycle.data.loader import make_loader
    from boxcycle.data.read import read_split
    from boxcycle.data.splits import budget

    before = psutil.Process().memory_info().rss
    index, read = timed(lambda: read_split(path, "train"))
    grown = psutil.Process().memory_info().rss - before
    arrays = [v for v in vars(index).values() if isinstance(v, np.ndarray)]
    texts = [array for v in (index.file_names, index.segmentations) for array in (v.bytes, v.offsets)]
    size = sum(array.nbytes for array in [*arrays, *texts])
    _, split = timed(lambda: budget(index, unit="images", amount=0.1, seed=0))
    _, start = timed(lambda: next(iter(make_loader(DetectionDataset(index), batch_size=4, steps=1, seed=0))))
    row = {"read": read, "index": round(size / len(index)), "process": round(grown / len(index))}
    row |= {"split": split, "start": start}
    return row | ({"doctor": timed(lambda: examine(path))[1]} if doctor else {})


def timed(job: Callable[[], Any]) -> tuple[Any, str]:
    """What a job gives, and its seconds: of the processor, and (of the clock)."""
    clock, processor = time.perf_counter(), time.process_time()
    result = job()
    return result, f"{time.process_time() - processor:.2f} s ({time.perf_counter() - clock:.1f})"


# --- classes


def classes_table(counts: list[int]) -> None:
    """A training step of four images of 320 pixels, forward and backward, by number of classes and method."""
    import torch
    from torch import nn

    from boxcycle.methods.mtl_ssl.config import TaskConfig
    from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
    from boxcycle.models.config import DetectorConfig
    from boxcycle.models.detectors import build_detector

    torch.set_num_threads(1)
    print("| method | classes | parameters | step, seconds of processor | beside the first | MB of gradients |")
    print("|---" * 6 + "|")
    for method in ("supervised", "mtl_ssl"):
        first = 0.0
        for count in counts:
            torch.manual_seed(0)
            model: nn.Module = build_detector(count, DetectorConfig(weights="none"))
            if method == "mtl_ssl":
                model = MultiTaskDetector(model, TaskConfig())  # type: ignore[arg-type]
            seconds = step_seconds(model.train(), count)
            first = first or seconds
            size = sum(p.numel() for p in model.parameters()) / 1e6
            gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None) / 1e6
            row = f"{size:.1f} million | {seconds:.2f} | {seconds / first:.2f} times | {gradients:.0f}"
            print(f"| {method} | {count} | {row} |", flush=True)


def step_seconds(model: Any, classes: int) -> float:
    """Median processor time of three steps, after one to warm up."""
    import torch

    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(3, 320, 320, generator=generator) for _ in range(4)]
    targets = []
    for seed in range(4):
        corners = torch.rand(BOXES, 2, generator=generator) * 200
        boxes = torch.cat([corners, corners + 20 + torch.rand(BOXES, 2, generator=generator) * 90], 1)
        labels = torch.randint(1, classes + 1, (BOXES,), generator=generator)
        crowd = torch.zeros(BOXES, dtype=torch.int64)
        targets.append({"boxes": boxes, "labels": labels, "iscrowd": crowd, "seed": seed})
    seconds = []
    for _ in range(4):
        begun = time.process_time()
        model.zero_grad()
        sum(model(images, targets).values()).backward()
        seconds.append(time.process_time() - begun)
    return sorted(seconds[1:])[1]


if __name__ == "__main__":
    main()
