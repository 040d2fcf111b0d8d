"""The contestants of peers.py that run in its own process: what each is, and the recipe that its own project documents.

All share one backbone, EfficientNet-Lite0 up to stride 16 with its ImageNet weights and fixed batch norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN as TorchvisionFasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, box_convert

from boxcycle.data.loader import Batch
from boxcycle.engine.config import FitConfig
from boxcycle.engine.schedule import learning_rate
from boxcycle.methods.mtl_ssl.detector import MultiTaskDetector
from boxcycle.models.backbone import Backbone, build_backbone
from boxcycle.models.batch import pad_images
from boxcycle.models.detectors import build_detector
from recycle_study import plain_target
from study import SMALL, train_unkept

Batches = Iterable[Batch]
BATCH = 2  # images a step, of all that run here


@dataclass(frozen=True)
class Contestant:
    """``build(num_classes, pixels)`` gives a model that predicts as ``model(images)``; ``train(model, batches, steps,
    seed)`` teaches it. ``network``: whose it has, and so about whose speed; empty: its own.
    """

    build: Callable[[int, int], nn.Module]
    train: Callable[[nn.Module, Batches, int, int], None]
    network: str = ""


def train_ours(model: nn.Module, batches: Batches, steps: int, seed: int) -> None:
    """boxcycle's own loop with its defaults."""
    config = FitConfig(
        steps=steps,
        batch_size=BATCH,
        threads=torch.get_num_threads(),
        device="cpu",
        seed=seed,
        log_every=steps,
        save_every=0,
    )
    train_unkept(model, lambda *_: batches, config)


# --- torchvision


class OneMap(nn.Module):
    """The trunk as torchvision wants it: with ``out_channels``."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.trunk, self.out_channels = backbone.trunk, backbone.trunk_channels

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.trunk(images)
        return features


def torchvision_detector(num_classes: int, pixels: int) -> nn.Module:
    """Faster R-CNN on one map, as torchvision's tutorial puts it on a backbone of one's own; its heads' defaults."""
    backbone = build_backbone()
    return TorchvisionFasterRCNN(
        OneMap(backbone),
        num_classes + 1,
        image_mean=list(backbone.mean),
        image_std=list(backbone.std),
        min_size=pixels,  # the longer side is as long already: nothing is resized
        max_size=pixels,
        rpn_anchor_generator=AnchorGenerator((SMALL.anchor_sizes,), (SMALL.anchor_ratios,)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=7, sampling_ratio=2),
    )


def train_torchvision(model: nn.Module, batches: Batches, steps: int, seed: int) -> None:
    """SGD as in torchvision's references: a warm-up, drops at 16/26 and 22/26 of the schedule."""
    torch.manual_seed(seed)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # 0.005 for 2 images: the tutorial's; the references' 0.02 for 16 images, scaled, would be half as much
    optimizer = torch.optim.SGD(parameters, lr=0.005, momentum=0.9, weight_decay=1e-4)
    warm_up = max(1, steps // 26)  # the references' first epoch

    def factor(step: int) -> float:
        drops = (step >= steps * 16 / 26) + (step >= steps * 22 / 26)
        return min(1.0, 0.001 + step / warm_up) * 0.1**drops

    plain_loop(model, batches, optimizer, factor)


def train_torchvision_as_ours(model: nn.Module, batches: Batches, steps: int, seed: int) -> None:
    """The same detector with the optimiser, schedule and clipping of boxcycle, for which few steps are enough."""
    torch.manual_seed(seed)
    config = FitConfig(steps=steps, lr=1.0)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=FitConfig().lr, weight_decay=config.weight_decay)
    plain_loop(model, batches, optimizer, lambda step: learning_rate(config, step), clip=config.clip_norm)


# --- transformers


class HuggingFaceDetr(nn.Module):
    """transformers' Deformable DETR, of the size that `boxcycle train detr` has, on the shared trunk."""

    def __init__(self, num_classes: int, _: int) -> None:
        super().__init__()
        from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection

        # any backbone will do: it is replaced by one that has the weights
        stand_in = {"model_type": "timm_backbone", "backbone": "resnet18", "features_only": True}
        config = DeformableDetrConfig(
            backbone_config=stand_in | {"use_pretrained_backbone": False, "num_channels": 3, "out_indices": [3]},
            num_labels=num_classes,
            num_feature_levels=1,
            d_model=128,
            encoder_layers=3,
            decoder_layers=3,
            encoder_ffn_dim=512,
            decoder_ffn_dim=512,
            num_queries=100,
            with_box_refine=True,
            tie_word_embeddings=False,
            auxiliary_loss=True,
        )
        self.detr = DeformableDetrForObjectDetection(config)
        backbone = build_backbone()
        self.mean, self.std = backbone.mean, backbone.std
        self.detr.model.backbone.model = Maps(backbone.trunk)
        projection = nn.Conv2d(backbone.trunk_channels, config.d_model, 1)
        nn.init.xavier_uniform_(projection.weight)
        nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
        self.detr.model.input_proj[0][0] = projection

    def forward(self, images: list[Tensor], targets: list[Any] | None = None) -> Any:
        """The loss in training; otherwise the 100 best pairs of query and class of each image."""
        batch = pad_images(images, self.mean, self.std)
        mask = torch.zeros(len(images), *batch.tensors.shape[-2:], dtype=torch.long)
        for row, (height, width) in zip(mask, batch.sizes, strict=True):
            row[:height, :width] = 1
        labels = None if targets is None else [relative(*pair) for pair in zip(targets, batch.sizes, strict=True)]
        found = self.detr(batch.tensors, pixel_mask=mask, labels=labels)
        if labels is not None:
            return {"loss": found.loss}
        return [best(*one) for one in zip(found.logits.sigmoid(), found.pred_boxes, batch.sizes, strict=True)]


class Maps(nn.Module):
    """The trunk as transformers wants it: with a list of maps."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.trunk(images)]


def relative(target: Any, size: tuple[int, int]) -> dict[str, Tensor]:
    """A target as transformers wants it: classes from 0, boxes as parts of the image."""
    plain, (height, width) = plain_target(target), size
    boxes = box_convert(plain["boxes"].as_subclass(Tensor), "xyxy", "cxcywh")
    return {"class_labels": plain["labels"] - 1, "boxes": boxes / boxes.new_tensor([width, height, width, height])}


def best(scores: Tensor, boxes: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
    """Shapes: scores [Q, K], boxes [Q, 4] cxcywh as parts of the image; returns boxes [100, 4] xyxy, image frame."""
    height, width = size
    chosen = scores.flatten().topk(min(100, scores.numel()))
    query, label = chosen.indices // scores.shape[1], chosen.indices % scores.shape[1] + 1
    corners = box_convert(boxes[query], "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
    return {"boxes": corners, "labels": label, "scores": chosen.values}


def train_detr(model: nn.Module, batches: Batches, steps: int, seed: int) -> None:
    """The released recipe of Deformable DETR: AdamW, the backbone slower, gradients clipped, one drop at 40/50."""
    torch.manual_seed(seed)
    trunk = [parameter for name, parameter in model.named_parameters() if ".backbone." in name]
    rest = [parameter for name, parameter in model.named_parameters() if ".backbone." not in name]
    groups = [{"params": trunk, "lr": 2e-5}, {"params": rest, "lr": 2e-4}]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    plain_loop(model, batches, optimizer, lambda step: 0.1 if step >= steps * 0.8 else 1.0, clip=0.1)


def plain_loop(
    model: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    factor: Callable[[int], float],
    clip: float | None = None,
) -> None:
    """Losses, backward, step, as the tutorials have it."""
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for images, targets in batches:
        losses = model(images, [plain_target(target) for target in targets])
        optimizer.zero_grad()
        sum(losses.values()).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()


CONTESTANTS = {
    "boxcycle mtl_ssl": Contestant(
        lambda num_classes, _: MultiTaskDetector(build_detector(num_classes, SMALL)), train_ours
    ),
    "boxcycle supervised": Contestant(lambda num_classes, _: build_detector(num_classes, SMALL), train_ours),
    "torchvision Faster R-CNN": Contestant(torchvision_detector, train_torchvision),
    "torchvision, our schedule": Contestant(
        torchvision_detector, train_torchvision_as_ours, network="torchvision Faster R-CNN"
    ),
    "transformers Deformable DETR": Contestant(HuggingFaceDetr, train_detr),
}


def clocked(batches: Batches, now: Callable[[], float], marks: list[float]) -> Iterator[Batch]:
    """The same batches; ``marks`` gets the time at which each is asked for."""
    for batch in batches:
        marks.append(now())
        yield batch
