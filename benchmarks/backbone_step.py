"""How long a training step of trunk and head takes, beside timm's own modules, measured in one run.

    python benchmarks/backbone_step.py --backbone efficientnet_lite0 --threads 1

A step is one forward and one backward pass: the trunk on a batch of images, the head on region features whose
gradient is wanted too. All ways have the same weights, frozen stages and fixed statistics, and their outputs are
compared before they are timed. Rounds alternate between the ways; the table shows the fastest round of each, which
other programs on the machine disturb least, and the speed relative to the first way.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import time

import torch
from torch import Tensor, nn

from boxcycle.models.backbone import RoIHead, Trunk
from boxcycle.models.backbone_cuts import ARCHITECTURES
from boxcycle.models.backbone_norm import fold_batch_norms
from boxcycle.models.backbone_weights import create_network


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    architecture = ARCHITECTURES[options.backbone]
    ways = make_ways(options.backbone)
    images = torch.randn(options.images, 3, options.size, options.size)
    regions = torch.randn(options.regions, architecture.trunk_channels, 7, 7, requires_grad=True)
    print(
        f"{options.backbone}: {options.images} images of {options.size} x {options.size}, {options.regions} regions; "
        f"{options.threads} of {os.cpu_count()} threads, {platform.machine()}, torch {torch.__version__}"
    )
    compare({name: trunk for name, (trunk, _) in ways.items()}, "trunk", images, options.rounds)
    compare({name: head for name, (_, head) in ways.items()}, "head", regions, options.rounds)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=ARCHITECTURES, default="efficientnet_lite0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--regions", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def make_ways(name: str) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Trunk and head in each way, with equal weights."""
    architecture = ARCHITECTURES[name]
    weights = "default" if name == "efficientnet_lite0" else "none"
    stages, body = architecture.cut(create_network(name, architecture.timm_name, weights).eval())
    timm = nn.ModuleList([nn.Sequential(stages), nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten())])
    ours = nn.ModuleList([Trunk(copy.deepcopy(stages)), RoIHead(copy.deepcopy(body))])
    fold_batch_norms(ours, train_affine=architecture.train_affine)
    for module in timm.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(architecture.train_affine)
    for trunk in (timm[0], ours[0]):
        for stage in list(trunk.children())[: architecture.frozen]:
            stage.requires_grad_(False)
    channels_last = copy.deepcopy(timm).to(memory_format=torch.channels_last)
    ours = ours.to(memory_format=torch.channels_last)
    return {"timm": tuple(timm), "timm, channels last": tuple(channels_last), "boxcycle": tuple(ours)}


def compare(ways: dict[str, nn.Module], part: str, inputs: Tensor, rounds: int) -> None:
    """Check that all outputs are equal, then print each way's seconds and speed."""
    with torch.no_grad():
        expected, *others = (way(inputs) for way in ways.values())
    for other in others:
        torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(inputs).mean().backward()
            seconds[name].append(time.perf_counter() - start)
    reference = min(next(iter(seconds.values())))
    for name, times in seconds.items():
        print(f"{part:6}{name:20} {min(times):8.3f} s   {reference / min(times):6.2f} x")


if __name__ == "__main__":
    main()
