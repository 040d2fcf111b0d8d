"""Data loading beside a plain torchvision loop: images a second, same images, same size, same processes, one run.

    python benchmarks/loading.py                       # generated scenes
    python benchmarks/loading.py --data ../shared/data/bccd --workers 0 2

The plain loop is what people write: a Dataset that opens a file with Pillow, converts it, and calls torchvision's v2
transforms (to tensor, resize, flip, to float) on image and boxes, in a DataLoader that shuffles. Rounds alternate; the
figure is the median ratio of a pair of rounds, which other work on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.index import Index
from boxcycle.data.loader import make_loader
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.transforms import ResizeConfig, make_transform


class Plain(Dataset[Any]):
    """The same samples with nothing but Pillow and torchvision."""

    def __init__(self, index: Index, short: int, long: int) -> None:
        self.files = [index.image_path(i) for i in range(len(index))]
        self.boxes = [torch.from_numpy(index.boxes[index.boxes_of(i)]).float() for i in range(len(index))]
        self.labels = [torch.from_numpy(index.labels[index.boxes_of(i)]) for i in range(len(index))]
        steps = [v2.ToImage(), v2.Resize(short, max_size=long, antialias=True), v2.RandomHorizontalFlip()]
        self.transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> Any:
        with Image.open(self.files[position]) as file:
            image = file.convert("RGB")
        boxes = tv_tensors.BoundingBoxes(self.boxes[position], format="XYXY", canvas_size=image.size[::-1])  # type: ignore[call-overload]
        return self.transform(image, {"boxes": boxes, "labels": self.labels[position]})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set; otherwise 100 generated scenes of 640 pixels")
    parser.add_argument("--short", type=int, default=320)
    parser.add_argument("--images", type=int, default=160, help="of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        path = options.data or make_scenes(Path(folder) / "scenes", SceneConfig(size=640), {"train": 100})
        index = read_split(path, "train")
        print("| workers | boxcycle, images/s | torchvision, images/s | ratio |\n|---|---|---|---|")
        for workers in options.workers:
            print(row(index, options, workers), flush=True)


def row(index: Index, options: argparse.Namespace, workers: int) -> str:
    """The line of the table for a number of worker processes."""
    long = 2 * options.short
    resize = ResizeConfig(short=options.short, long=long)
    ours, plain = DetectionDataset(index, make_transform(resize, train=True)), Plain(index, options.short, long)
    steps = options.images // 4

    def our_loader(seed: int) -> Iterable[Any]:
        return make_loader(ours, batch_size=4, steps=steps, seed=seed, workers=workers)

    def plain_loader(seed: int) -> Iterable[Any]:
        generator = torch.Generator().manual_seed(seed)
        sampler = torch.utils.data.RandomSampler(plain, num_samples=4 * steps, generator=generator)
        return DataLoader(plain, batch_size=4, sampler=sampler, collate_fn=list, num_workers=workers)

    pairs = [(speed(our_loader(seed)), speed(plain_loader(seed))) for seed in range(options.rounds + 1)][1:]
    mine, theirs = (statistics.median(values) for values in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    return f"| {workers} | {mine:.1f} | {theirs:.1f} | {ratio:.2f} |"


def speed(loader: Iterable[Any]) -> float:
    """Images a second from the first batch asked for to the last."""
    begun, images = time.perf_counter(), 0
    for batch in loader:
        images += len(batch[0]) if isinstance(batch, tuple) else len(batch)
    return images / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
