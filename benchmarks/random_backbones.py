"""What random weights give a detector to learn from, before and after the norms have statistics.

    python benchmarks/random_backbones.py

Prints the standard deviation of the trunk's features and the detector's losses on two images of noise, for each of the
paper's backbones: as they are created, and after `boxcycle.models.backbone_calibration.calibrate` on the same images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from boxcycle.models.backbone_calibration import calibrate
from boxcycle.models.config import DetectorConfig
from boxcycle.models.detectors import build_detector
from boxcycle.models.two_stage import RegionConfig, TwoStageDetector
from boxcycle.types import Target

BACKBONES = ("mobilenet_v1", "resnet101", "inception_resnet_v2")
SMALL = {"weights": "none", "roi_size": 3, "proposals": 50, "regions": RegionConfig(sampled=8)}


@torch.no_grad()
def describe(detector: TwoStageDetector, images: list[Tensor], targets: list[Target]) -> str:
    """The cells of a row: spread of the features, and the losses."""
    spread = detector.features(detector.batch(images)).std()
    losses = detector.losses(images, targets)
    return " | ".join([f"{spread:.3g}", *(f"{value:.3g}" for value in losses.values())])


def main() -> None:
    torch.set_num_threads(1)
    images = [torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    targets = [Target(boxes=torch.tensor([[8.0, 5, 60, 50]]), labels=torch.tensor([2]), seed=seed) for seed in range(2)]
    print("| backbone | statistics | std of features | RPN: objectness | RPN: boxes | classes | boxes |")
    print("|---|---|---|---|---|---|---|")
    for name in BACKBONES:
        torch.manual_seed(0)
        detector = build_detector(3, DetectorConfig(backbone=name, **SMALL)).train()
        print(f"| {name} | none | {describe(detector, images, targets)} |")
        calibrate(detector, images, targets)
        print(f"| {name} | of these images | {describe(detector, images, targets)} |")


if __name__ == "__main__":
    main()
