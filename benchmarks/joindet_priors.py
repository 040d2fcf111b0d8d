"""What the priors of a large data set cost: file, time and memory of an update, measured and carried on to COCO.

    python benchmarks/joindet_priors.py --images 2000

Images are generated, and all are one file: reading it takes as long as reading as many. The detector has random
weights and is made to find many priors, 30 an image at most, so that sizes are those of the worst case.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from boxcycle.data.dataset import read_image
from boxcycle.engine.records import environment
from boxcycle.methods.joindet.detector import JoinDet, PretrainDetrConfig
from boxcycle.methods.joindet.labels import random_boxes
from boxcycle.methods.joindet.priors import PriorConfig, next_view
from boxcycle.methods.joindet.store import Found, Priors, collect, sweep

COCO = 118_287  # images of train2017


def memory() -> float:
    """Largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def first_priors(images: int) -> Priors:
    """Thirty random boxes for each image."""
    drawn = (random_boxes(30, torch.Generator().manual_seed(image)) for image in range(images))
    return collect(((*boxes, 0, 0, 0.0) for boxes in drawn), "first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--pixels", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    detector = JoinDet(PretrainDetrConfig(width=128, queries=50)).eval().detector
    config, previous = PriorConfig(), first_priors(options.images)
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder) / "photo.png"
        noise = np.random.default_rng(0).integers(0, 255, (options.pixels // 16, options.pixels // 16, 3))
        Image.fromarray(noise.astype(np.uint8)).resize((options.pixels, options.pixels)).save(photo)

        def find(image: int) -> Found:
            pixels = torch.from_numpy(read_image(photo)).permute(2, 0, 1).float() / 255
            view = next_view(detector, pixels, previous.of(image), config)
            return (*view.priors, len(view.regions), len(view.instances[0]), view.density)

        find(0)
        before, begun = memory(), time.process_time()
        priors = sweep(Path(folder) / "1.npz", "measured", options.images, find)
        seconds, grown = time.process_time() - begun, memory() - before
        size = (Path(folder) / "1.npz").stat().st_size
    print(f"machine: {environment()['machine']}\n{options.images} images of {options.pixels} px: {priors.describe()}")
    print("| | measured | an image | COCO train2017 |\n|---|---|---|---|")
    for name, value, unit in (("file", size / 2**20, "MiB"), ("update", seconds, "s of processor time")):
        each = value / options.images
        print(f"| {name}, {unit} | {value:.2f} | {each:.5f} | {each * COCO:.0f} |")
    print(f"| memory that the sweep adds, MiB | {grown:.1f} | {grown / options.images:.5f} | |")


if __name__ == "__main__":
    main()
