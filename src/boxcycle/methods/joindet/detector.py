"""The detector that JoinDet pretrains: a Deformable DETR for one class, foreground, on a frozen backbone."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torchvision.ops import box_convert, roi_align

from boxcycle.methods.joindet.losses import embedding_loss, unit_mean_square
from boxcycle.models.deformable_detr import DeformableDETR, DetrConfig
from boxcycle.models.detector import Detector
from boxcycle.models.detr_losses import SetLossConfig, Wanted, wanted_of
from boxcycle.models.detr_transformer import DetrOutput
from boxcycle.models.feature_levels import level_of_stride_16
from boxcycle.types import Detections, ImageList, Target

STRIDE = 16  # of the map that embeddings come from
CELLS = 4  # a side, into which a box is pooled for its embedding
CROP = 128  # pixels a side of a crop: DETReg's released code
CHANCE = 0.5  # of foreground, from which a query counts as one


class PretrainDetrConfig(DetrConfig):
    """A Deformable DETR whose two logits, background and foreground, are one distribution. [JoinDet section 3.1]"""

    losses: SetLossConfig = SetLossConfig(classification="softmax")
    embedding: Literal["map", "crops"] = Field(
        "map",
        description="a prior's embedding: pooled from the backbone's map, or from a map of its own crop (DETReg; slow)",
    )
    embedding_weight: float = Field(1.0, gt=0, description="weight of the embeddings")


class JoinDet(Detector):
    """Learns which boxes are foreground, and what the frozen backbone sees in them; labels are not looked at.

    Losses are those of :class:`DeformableDETR` and "embedding". Without ``embedding`` the detector within is what
    ``train detr`` starts from.
    """

    num_classes = 1

    def __init__(self, config: PretrainDetrConfig) -> None:
        super().__init__()
        self.config = config
        self.detector = DeformableDETR(1, config)
        self.detector.maps.requires_grad_(False)
        channels = self.detector.maps.channels[level_of_stride_16(len(self.detector.maps.channels))]
        self.embedding = EmbeddingHead(config.width, channels)
        self.loss_weights = self.detector.loss_weights | {"embedding": config.embedding_weight}
        self.watched = {}

    def losses(self, images: list[Tensor], targets: list[Target]) -> dict[str, Tensor]:
        """The unweighted losses of a batch, keys as :attr:`loss_weights`. [JoinDet Eq. 9] [JoinDet Eq. 10]

        Shapes: images [3, H_i, W_i] in [0, 1]; targets in the image frame, their boxes priors.
        """
        targets = [_foreground(target) for target in targets]
        batch = self.detector.batch(images, targets)
        drop = self.detector.dropout(targets, batch)
        maps = self.detector.maps(batch.tensors)
        output = self.detector.decode(self.detector.encode_maps(maps, batch, drop), drop)
        wanted = [wanted_of(target, size) for target, size in zip(targets, batch.sizes, strict=True)]
        matched = self.detector.match(output, wanted)
        losses = self.detector.set_losses(output, wanted, matched)
        last = matched.layer == len(output.logits) - 1
        image, query, box = matched.image[last], matched.query[last], matched.box[last]
        said = self.embedding(output.queries[-1, image, query]).float()
        self._watch(output, wanted)
        return losses | {"embedding": embedding_loss(said, self.embeddings(batch, maps, wanted)[box], image, wanted)}

    def predict(self, images: list[Tensor]) -> list[Detections]:
        """What looks like an object in each image, best first, image frame. Shapes: images [3, H_i, W_i] in [0, 1]."""
        return self.detector.predict(images)

    @torch.no_grad()
    def embeddings(self, batch: ImageList, maps: list[Tensor], wanted: list[Wanted]) -> Tensor:
        """The target z of every box of a batch, from the frozen backbone. Returns [N of all images, D]."""
        corners = []
        for its, (height, width) in zip(wanted, batch.sizes, strict=True):
            parts = box_convert(its.boxes, "cxcywh", "xyxy")
            corners.append(parts * parts.new_tensor([width, height, width, height]))
        if self.config.embedding == "crops" and any(len(boxes) for boxes in corners):
            crops = roi_align(batch.tensors, corners, CROP, sampling_ratio=2)
            return unit_mean_square(self.detector.maps.trunk(crops).float().mean((2, 3)))
        features = maps[level_of_stride_16(len(maps))].float()
        pooled = roi_align(features, corners, CELLS, 1 / STRIDE, sampling_ratio=2, aligned=True)
        return unit_mean_square(pooled.mean((2, 3)))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Those of the detector, and f_emb beside the transformer."""
        return [*self.detector.parameter_groups(), {"name": "embedding", "params": list(self.embedding.parameters())}]

    def _watch(self, output: DetrOutput, wanted: list[Wanted]) -> None:
        with torch.no_grad():
            sure = output.logits[-1].softmax(-1)[..., 1] > CHANCE
            counts = sure.new_tensor([len(its.labels) for its in wanted], dtype=torch.float32)
            self.watched = {"priors": counts.mean(), "foreground_queries": sure.sum(1).float().mean()}


class EmbeddingHead(nn.Sequential):
    """f_emb: two hidden layers of the transformer's width. [JoinDet section 3.1]"""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, channels)
        )


def _foreground(target: Target) -> Target:
    """The same boxes, all of the one class."""
    return target | {"labels": torch.ones_like(target["labels"])}  # type: ignore[return-value]
