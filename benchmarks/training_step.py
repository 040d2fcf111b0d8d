"""How long a training step and a prediction take, beside a plain torchvision loop on the same parts, in one run.

    python benchmarks/training_step.py --threads 1 --data ../shared/data/bccd

boxcycle trains through ``fit``, with all that it does around a step (accelerate, checks, clipping, progress). The other
side is torchvision's ``FasterRCNN``, assembled from copies of the same trunk, anchors, RoIAlign, region head and linear
layers, in the loop of torchvision's tutorial: losses, backward, step. Both see the same batches of the same loader,
one after the other, so that whatever else the machine does hits both; before anything is timed, both must find the same
in an image. Without ``--data``: generated scenes.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign, roi_align

from boxcycle.data.dataset import DetectionDataset
from boxcycle.data.loader import Batch, make_loader
from boxcycle.data.read import read_split
from boxcycle.data.scenes import SceneConfig, make_scenes
from boxcycle.data.transforms import ResizeConfig, make_transform
from boxcycle.engine.config import FitConfig
from boxcycle.engine.fit import fit
from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN

WARM_UP = 3  # steps of each side that do not count


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = DetectorConfig(backbone=options.backbone)
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_data(options, Path(folder))
        images = [dataset[number][0] for number in range(min(len(dataset), 10))]
        ours = FasterRCNN(dataset.index.num_classes, config)
        plain = assemble(ours, config, options.size)
        check_equal(ours, plain, images[0])
        print(
            f"{options.backbone}, batches of {options.batch} images, longer side {options.size} pixels; "
            f"{options.threads} of {os.cpu_count()} threads, {platform.machine()}, torch {torch.__version__}"
        )
        report("prediction", *time_prediction(ours, plain, images, options.steps))
        report("training step", *time_training(ours, plain, dataset, options, Path(folder)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a data set with a split 'train'")
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20, help="of each side")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=320)
    return parser.parse_args()


def open_data(options: argparse.Namespace, folder: Path) -> DetectionDataset:
    """Training images, decoded once: reading files is no part of either side."""
    path = options.data or make_scenes(folder / "scenes", SceneConfig(size=options.size), {"train": 4 * options.batch})
    resize = ResizeConfig(short=options.size, long=options.size)
    return DetectionDataset(read_split(path, "train"), make_transform(resize, train=True), cache=True)


# --- torchvision's detector from our parts


class OneMap(nn.Module):
    """A trunk as torchvision wants it: with ``out_channels``."""

    def __init__(self, trunk: nn.Module, channels: int) -> None:
        super().__init__()
        self.trunk, self.out_channels = trunk, channels

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(images)
        return features


class AlignedPool(MultiScaleRoIAlign):
    """The RoIAlign of our region head; torchvision's own has no half-pixel-correct form."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__(["0"], size, sampling_ratio=2)
        self.size, self.stride = size, stride

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        return roi_align(x["0"], boxes, self.size, 1 / self.stride, sampling_ratio=2, aligned=True)


def assemble(ours: FasterRCNN, config: DetectorConfig, size: int) -> nn.Module:
    """torchvision's Faster R-CNN with copies of our parts and our settings."""
    region, regions = ours.head.region, config.regions
    return TorchvisionFasterRCNN(
        OneMap(copy.deepcopy(ours.backbone.trunk), ours.backbone.trunk_channels),
        image_mean=list(ours.backbone.mean),
        image_std=list(ours.backbone.std),
        min_size=size,  # the longer side is as long already: nothing is resized
        max_size=size,
        _skip_resize=True,
        rpn_anchor_generator=AnchorGenerator((config.anchor_sizes,), (config.anchor_ratios,)),
        rpn_head=copy.deepcopy(ours.proposer.head),
        rpn_pre_nms_top_n_train=config.rpn_candidates,
        rpn_pre_nms_top_n_test=config.rpn_candidates,
        rpn_post_nms_top_n_train=config.proposals,
        rpn_post_nms_top_n_test=config.proposals,
        rpn_nms_thresh=config.rpn_nms_iou,
        rpn_batch_size_per_image=config.rpn_sampled,
        box_roi_pool=AlignedPool(region.size, region.stride),
        box_head=copy.deepcopy(region.stage),
        box_predictor=copy_predictor(ours),
        box_score_thresh=regions.score_threshold,
        box_nms_thresh=regions.nms_iou,
        box_detections_per_img=regions.detections,
        box_batch_size_per_image=regions.sampled,
        box_positive_fraction=regions.positive_fraction,
    )


def copy_predictor(ours: FasterRCNN) -> FastRCNNPredictor:
    """Class logits and boxes; torchvision's has a box for the background too, which nothing uses."""
    classifier, regressor = ours.head.region.classifier, ours.head.regressor
    predictor = FastRCNNPredictor(classifier.in_features, classifier.out_features)
    predictor.cls_score.load_state_dict(classifier.state_dict())
    with torch.no_grad():
        predictor.bbox_pred.weight[4:] = regressor.weight
        predictor.bbox_pred.bias[4:] = regressor.bias
    return predictor


def check_equal(ours: FasterRCNN, plain: nn.Module, image: Tensor) -> None:
    """Both find the same: else two detectors would be compared that are not of the same parts."""
    with torch.no_grad():
        [found], [expected] = ours.eval().predict([image]), plain.eval()([image])
    for name in ("boxes", "scores"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-3)


# --- timing


def time_training(
    ours: FasterRCNN, plain: nn.Module, dataset: DetectionDataset, options: argparse.Namespace, folder: Path
) -> tuple[list[float], list[float]]:
    """Seconds of the steps of ``fit`` and of the plain loop, which takes a step whenever ``fit`` asks for a batch.

    Ours last from being given a batch until the next is asked for, and fetching the batch counts on both sides.
    """
    count = options.steps + WARM_UP + 1  # fit does not ask again after its last step
    config = FitConfig(
        steps=count,
        batch_size=options.batch,
        lr=1e-4,
        schedule="constant",
        log_every=count,
        save_every=0,
        threads=options.threads,
        device="cpu",
    )
    parameters = [parameter for parameter in plain.train().parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay)
    seconds: tuple[list[float], list[float]] = ([], [])

    def plain_step(batch: Batch) -> None:
        total = sum(plain(*batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    def batches(start_step: int, rank: int, world_size: int) -> Iterator[Batch]:
        for_us, for_plain = (iter(make_loader(dataset, batch_size=options.batch, steps=count, seed=0)) for _ in "ab")
        for _ in range(count):
            seconds[1].append(timed(lambda: plain_step(next(for_plain))))
            begun = time.perf_counter()
            yield next(for_us)
            seconds[0].append(time.perf_counter() - begun)

    fit(ours.train(), batches, config, folder / "run")
    return seconds[0][WARM_UP:], seconds[1][WARM_UP:-1]


def time_prediction(
    ours: FasterRCNN, plain: nn.Module, images: list[Tensor], rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of single images, in turn; both detectors with the same weights."""
    seconds: tuple[list[float], list[float]] = ([], [])
    ours.eval(), plain.eval()
    with torch.no_grad():
        for number in range(WARM_UP + rounds):
            image = [images[number % len(images)]]
            seconds[0].append(timed(lambda image=image: ours(image)))
            seconds[1].append(timed(lambda image=image: plain(image)))
    return seconds[0][WARM_UP:], seconds[1][WARM_UP:]


def timed(job: Callable[[], object]) -> float:
    """Seconds that ``job`` takes."""
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun


def report(what: str, ours: list[float], plain: list[float]) -> None:
    """Medians, and the median of the ratios of neighbours in time."""
    ratio = statistics.median(one / other for one, other in zip(ours, plain, strict=True))
    print(
        f"{what:14} boxcycle {1000 * statistics.median(ours):7.1f} ms   torchvision "
        f"{1000 * statistics.median(plain):7.1f} ms   ratio {ratio:.3f}   ({len(ours)} each)"
    )


if __name__ == "__main__":
    main()
