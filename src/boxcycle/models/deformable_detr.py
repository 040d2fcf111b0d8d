"""Deformable DETR: queries look around on feature maps and become a set of boxes, without anchors or suppression.

Zhu et al., "Deformable DETR: Deformable Transformers for End-to-End Object Detection", ICLR 2021.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torchvision.ops import box_convert, clip_boxes_to_image

from boxcycle.models.backbone import build_backbone
from boxcycle.models.batch import pad_images
from boxcycle.models.deformable_attention import Levels
from boxcycle.models.detector import Detector
from boxcycle.models.detr_layers import Drop, ImageDropout
from boxcycle.models.detr_losses import (
    SetLossConfig,
    SetMatch,
    Wanted,
    foreground_probs,
    match_sets,
    set_losses,
    wanted_of,
)
from boxcycle.models.detr_transformer import DetrOutput, DetrTransformer
from boxcycle.models.feature_levels import GROUPS, FeatureLevels, FeatureMaps
from boxcycle.ops.randomness import image_generator
from boxcycle.types import Detections, ImageList, Target, check_target

DROPOUT_STREAM = 3  # see ops.randomness
SLOW = ("offsets", "references")  # learn at a tenth of the rate: the released code of Deformable DETR


class DetrConfig(BaseModel):
    """A Deformable DETR by name and number."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field(
        "efficientnet_lite0",
        description="efficientnet_lite0 | resnet18 | resnet50 | resnet101 | mobilenet_v1 | inception_resnet_v2 | vgg16",
    )
    weights: str = Field(
        "default", description="default (packaged ImageNet weights) | none | hub | a .safetensors or .pth file"
    )
    frozen: int | None = Field(
        None, ge=0, description="first stages that do not learn; empty: the backbone's own default"
    )
    backbone_lr: float = Field(0.1, gt=0, description="learning rate of the backbone, as part of fit.lr")
    levels: int = Field(1, ge=1, le=6, description="1: stride 16; more: strides 8, 16, 32, 64, ... (the paper: 4)")
    width: int = Field(128, gt=0, multiple_of=GROUPS, description="channels of a token (the paper: 256)")
    heads: int = Field(8, gt=0, description="heads of each attention")
    points: int = Field(4, gt=0, description="places that a head looks at on each level")
    encoder_layers: int = Field(3, ge=0, description="layers of the encoder (the paper: 6)")
    decoder_layers: int = Field(3, ge=1, description="layers of the decoder (the paper: 6)")
    feed_forward: int = Field(512, gt=0, description="width of the layers between (the paper: 1024)")
    queries: int = Field(100, gt=0, description="queries, the most objects of an image (the paper: 300)")
    dropout: float = Field(0.1, ge=0, lt=1, description="part of the activations that a layer leaves out in training")
    refine: bool = Field(True, description="each layer moves the boxes of the layer before (the paper's first: false)")
    two_stage: bool = Field(False, description="the encoder's best tokens are the first boxes")
    detections: int = Field(100, gt=0, description="detections kept of an image")
    losses: SetLossConfig = SetLossConfig()

    @model_validator(mode="after")
    def _fields_agree(self) -> DetrConfig:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads ({self.heads}); got {self.width}")
        if self.two_stage and not (self.refine and self.losses.classification == "focal"):
            raise ValueError("two_stage needs refine=true and losses.classification=focal")
        return self


class DeformableDETR(Detector):
    """Deformable DETR for K classes, its losses and its detections.

    Losses "class", "box" and "giou" are of the last layer, "aux_..." the sums over those before, "proposal_..." of the
    first stage of two.
    """

    def __init__(self, num_classes: int, config: DetrConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DetrConfig()
        self.num_classes = num_classes
        backbone = build_backbone(config.backbone, weights=config.weights, frozen=config.frozen)
        self.mean, self.std = backbone.mean, backbone.std
        self.maps = FeatureMaps(backbone, config.backbone, min(config.levels, 3))
        self.levels = FeatureLevels(self.maps.channels, config.levels, config.width)
        self.transformer = DetrTransformer(
            _classifier(config.width, num_classes, config.losses.classification),
            heads=config.heads,
            levels=config.levels,
            points=config.points,
            hidden=config.feed_forward,
            encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers,
            queries=config.queries,
            refine=config.refine,
            two_stage=config.two_stage,
        )
        weights = {"class": config.losses.class_weight, "box": config.losses.box_weight}
        weights["giou"] = config.losses.giou_weight
        parts = ["", *["aux_"] * (config.decoder_layers > 1), *["proposal_"] * config.two_stage]
        self.loss_weights = {part + name: weight for part in parts for name, weight in weights.items()}
        self.watched = {}

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The unweighted losses of a batch, keys as :attr:`loss_weights`.

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in the image frame.
        """
        batch = self.batch(images, targets)
        drop = self.dropout(targets, batch)
        output = self.decode(self.encode(batch, drop), drop)
        wanted = [wanted_of(target, size) for target, size in zip(targets, batch.sizes, strict=True)]
        return self.set_losses(output, wanted, self.match(output, wanted))

    def predict(self, images: list[Tensor]) -> list[Detections]:
        """Detections of each image, best first, image frame. Shapes: images [3, H_i, W_i] in [0, 1]."""
        batch = self.batch(images)
        output = self.decode(self.encode(batch))
        return self.detect(output.logits[-1], output.boxes[-1], batch.sizes)

    def batch(self, images: list[Tensor], targets: list[Target] | None = None) -> ImageList:
        """Check the targets, normalise the images and pad them to one size, a multiple of 32."""
        batch = pad_images(images, self.mean, self.std)
        for size, target in zip(batch.sizes, targets or [], strict=targets is not None):
            check_target(target, size, self.num_classes)
        return batch

    def encode(self, batch: ImageList, drop: Drop | None = None) -> Levels:
        """The encoder's map of a batch."""
        return self.encode_maps(self.maps(batch.tensors), batch, drop)

    def encode_maps(self, maps: list[Tensor], batch: ImageList, drop: Drop | None = None) -> Levels:
        """The encoder's map of a batch, from the backbone's maps of it."""
        return self.transformer.encode(self.levels(maps, batch), drop or _as_it_is)

    def decode(self, memory: Levels, drop: Drop | None = None) -> DetrOutput:
        """Classes and boxes of the queries after each layer."""
        return self.transformer.decode(memory, drop or _as_it_is)

    def match(self, output: DetrOutput, wanted: list[Wanted]) -> SetMatch:
        """Which query of each layer learns which box."""
        return match_sets(output.logits, output.boxes, wanted, self.config.losses)

    def set_losses(self, output: DetrOutput, wanted: list[Wanted], matched: SetMatch) -> dict[str, Tensor]:
        """The losses of all layers, summed up; the first of two stages is matched here."""
        config = self.config.losses
        by_layer = set_losses(output.logits, output.boxes, wanted, matched, config)
        losses = {name: values[-1] for name, values in by_layer.items()}
        if len(output.logits) > 1:
            losses |= {f"aux_{name}": values[:-1].sum() for name, values in by_layer.items()}
        if output.proposals is not None:
            anything = [its._replace(labels=torch.ones_like(its.labels)) for its in wanted]
            found = match_sets(*output.proposals, anything, config)
            by_layer = set_losses(*output.proposals, anything, found, config)
            losses |= {f"proposal_{name}": values.sum() for name, values in by_layer.items()}
        return losses

    def detect(self, logits: Tensor, boxes: Tensor, sizes: list[tuple[int, int]]) -> list[Detections]:
        """The best pairs of a query and a class.

        Shapes: logits [B, Q, K or K+1], boxes [B, Q, 4] cxcywh as parts of the images.
        """
        scores = foreground_probs(logits, self.config.losses.classification)
        probs = distribution(logits, self.config.losses.classification)
        return [self._detect(*image) for image in zip(scores, probs, boxes, sizes, strict=True)]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The backbone, and what says where to look, learn more slowly than the rest."""
        groups: dict[str, dict[str, Any]] = {
            "backbone": {"params": [], "lr_scale": self.config.backbone_lr},
            "places": {"params": [], "lr_scale": 0.1},
            "transformer": {"params": []},
        }
        for name, parameter in self.named_parameters():
            place = any(part in SLOW for part in name.split("."))
            group = "backbone" if name.startswith("maps.") else "places" if place else "transformer"
            groups[group]["params"].append(parameter)
        return [{"name": name, **group} for name, group in groups.items()]

    def dropout(self, targets: list[Target], batch: ImageList) -> Drop | None:
        """The dropout of a batch in training, drawn image by image."""
        if not self.config.dropout or not self.training:
            return None
        device = batch.tensors.device
        return ImageDropout(self.config.dropout, [image_generator(its, DROPOUT_STREAM, device) for its in targets])

    def _detect(self, scores: Tensor, probs: Tensor, boxes: Tensor, size: tuple[int, int]) -> Detections:
        best = scores.flatten().topk(min(self.config.detections, scores.numel()))
        query, label = best.indices // self.num_classes, best.indices % self.num_classes + 1
        height, width = size
        corners = box_convert(boxes[query], "cxcywh", "xyxy") * boxes.new_tensor([width, height, width, height])
        corners = clip_boxes_to_image(corners, size)
        solid = ((corners[:, 2:] - corners[:, :2]) > 0).all(1)
        return Detections(
            boxes=corners[solid], labels=label[solid], scores=best.values[solid], probs=probs[query[solid]]
        )


def distribution(logits: Tensor, classification: str) -> Tensor:
    """Background and classes as one distribution, background first.

    Independent classes, of which a box can have one: the odds of each against background are those of its sigmoid, so
    that a background logit of 0 makes it a softmax.

    Shapes: logits [..., K], or with softmax [..., K+1]; returns [..., K+1].
    """
    if classification == "focal":
        logits = torch.cat([torch.zeros_like(logits[..., :1]), logits], -1)
    return logits.softmax(-1)


def _as_it_is(values: Tensor) -> Tensor:
    return values


def _classifier(width: int, num_classes: int, classification: str) -> nn.Linear:
    """Starts at a probability of 0.01 for each class, so that background does not drown the first steps."""
    background = int(classification == "softmax")
    layer = nn.Linear(width, num_classes + background)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.constant_(layer.bias, -math.log(99))
    nn.init.zeros_(layer.bias[:background])
    return layer
