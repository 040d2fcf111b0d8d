"""How well exported detectors agree with torch on real images, after a short training: the worst of all pairs.

    python benchmarks/export_agreement.py --data ../shared/data/bccd

Both methods train some steps, are exported, and detect in the images of the evaluation split, each at its own size,
with onnxruntime and with torch. The table counts all detections above the run's threshold (0.01), and the images in
which a tie was decided otherwise: there the comparison of `boxcycle export` looks at a darker picture.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from boxcycle.data.config import DataConfig, open_split
from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.engine.config import FitConfig
from boxcycle.export import agreement, agrees, open_session, run_session, write_onnx
from boxcycle.methods import METHODS
from boxcycle.methods.loading import load
from boxcycle.models.config import DetectorConfig


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    parts = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "onnx", "onnxruntime"))
    print(f"{options.data.name} at {options.size} px, {options.steps} steps; {platform.machine()}, {parts}")
    print(f"{'method':<12} {'export':>7} {'images':>6} {'detections':>10} {'worst IoU':>10} {'score':>8} {'ties':>5}")
    for method in ("supervised", "mtl_ssl"):
        with tempfile.TemporaryDirectory() as folder:
            print(measure(method, Path(folder), options), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def measure(method: str, folder: Path, options: argparse.Namespace) -> str:
    """A row of the table."""
    settings: dict[str, Any] = {
        "data": DataConfig(path=options.data, resize=ResizeConfig(short=options.size, long=options.size * 5 // 3)),
        "detector": DetectorConfig(proposals=50, roi_size=4),
        "fit": FitConfig(steps=options.steps, batch_size=2, workers=0, eval_every=0, device="cpu"),
        "run": folder / method,
    }
    run = load(METHODS[method].train(METHODS[method].Config(**settings)), device="cpu")
    index = open_split(run.config.data, run.config.data.val)
    index = index.subset(range(min(options.images, len(index))))
    dataset = DetectionDataset(index, make_transform(run.config.data.resize, train=False))
    images = [dataset[number][0] for number in range(len(dataset))]
    start = time.perf_counter()
    write_onnx(folder / "model.onnx", run.model, run.class_names, images[:2])
    seconds = time.perf_counter() - start
    session = open_session(folder / "model.onnx")
    with torch.no_grad():
        found = [agreement(run.model.predict([image])[0], run_session(session, image)) for image in images]
    same = [one for one in found if agrees(one)]
    worst_iou, difference = min(one.worst_iou for one in same), max(one.score_difference for one in same)
    detections = sum(one.detections for one in same)
    ties = len(found) - len(same)
    counts = f"{method:<12} {seconds:>5.1f} s {len(images):>6} {detections:>10}"
    return f"{counts} {worst_iou:>10.7f} {difference:>8.1e} {ties:>5}"


if __name__ == "__main__":
    main()
