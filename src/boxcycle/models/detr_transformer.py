"""Encoder and decoder of Deformable DETR: tokens of an image in, classes and boxes of a set of queries out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from boxcycle.models.deformable_attention import Levels
from boxcycle.models.detr_layers import BoxHead, DecoderLayer, Drop, EncoderLayer, cell_references, inverse_sigmoid
from boxcycle.models.positions import waves

FIRST_SIZE = 0.05  # side of a proposal of the finest level, doubled from level to level [Deformable DETR section A.4]


class DetrOutput(NamedTuple):
    """What the decoder says after each layer, the last one last; boxes are cxcywh as parts of the un-padded image.

    ``logits`` [layers, B, Q, classes]; ``boxes`` [layers, B, Q, 4]; ``queries`` [layers, B, Q, C]: the vectors that
    both come from; ``memory``: the encoder's map; ``proposals``: logits [1, B, S, classes] and boxes [1, B, S, 4] of
    all tokens, with two stages only.
    """

    logits: Tensor
    boxes: Tensor
    queries: Tensor
    memory: Levels
    proposals: tuple[Tensor, Tensor] | None


class DetrTransformer(nn.Module):
    """Encoder, decoder and heads. [Deformable DETR section 4, A.4]

    ``refine``: each layer moves the boxes of the layer before, with heads of its own; else all layers share theirs.
    ``two_stage`` (with ``refine`` only): the encoder's best tokens are the queries' first boxes.
    """

    def __init__(
        self,
        classifier: nn.Linear,
        *,
        heads: int,
        levels: int,
        points: int,
        hidden: int,
        encoder_layers: int,
        decoder_layers: int,
        queries: int,
        refine: bool,
        two_stage: bool,
    ) -> None:
        super().__init__()
        width, self.count, self.refine, self.two_stage = classifier.in_features, queries, refine, two_stage
        sizes = (width, heads, levels, points, hidden)
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(*sizes) for _ in range(decoder_layers))
        apart = decoder_layers + two_stage if refine else 1
        self.class_heads = nn.ModuleList(_copy_of(classifier) for _ in range(apart))
        # with refinement the later layers start with no movement; proposals have a size of their own
        self.box_heads = nn.ModuleList(BoxHead(width, small=not two_stage and i == 0) for i in range(apart))
        if two_stage:
            self.proposal, self.proposal_norm = nn.Linear(width, width), nn.LayerNorm(width)
            self.start, self.start_norm = nn.Linear(2 * width, 2 * width), nn.LayerNorm(2 * width)
        else:
            self.queries = nn.Embedding(queries, 2 * width)  # where a query looks from, and what it starts as
            self.references = nn.Linear(width, 2)
            nn.init.xavier_uniform_(self.references.weight)
            nn.init.zeros_(self.references.bias)

    def encode(self, levels: Levels, drop: Drop) -> Levels:
        """The same levels with tokens that have looked around."""
        references = cell_references(levels)
        for layer in self.encoder:
            levels = layer(levels, references, drop)
        return levels

    def decode(self, memory: Levels, drop: Drop) -> DetrOutput:
        """Queries look at the encoder's map, layer by layer."""
        places, queries, references, proposals = (
            self._from_proposals(memory) if self.two_stage else self._learnt(memory)
        )
        logits, boxes, vectors = [], [], []
        for number, layer in enumerate(self.decoder):
            ratios = memory.ratios.repeat(1, 1, references.shape[-1] // 2)
            queries = layer(queries, places, references[:, :, None] * ratios[:, None], memory, drop)
            row = min(number, len(self.class_heads) - 1)
            first = pad(inverse_sigmoid(references), (0, 4 - references.shape[-1]))
            logits.append(self.class_heads[row](queries).float())
            boxes.append((self.box_heads[row](queries).float() + first).sigmoid())
            vectors.append(queries)
            if self.refine:
                references = boxes[-1].detach()
        return DetrOutput(torch.stack(logits), torch.stack(boxes), torch.stack(vectors), memory, proposals)

    def _learnt(self, memory: Levels) -> tuple[Tensor, Tensor, Tensor, None]:
        places, queries = self.queries.weight.expand(len(memory.tokens), -1, -1).chunk(2, -1)
        return places, queries, self.references(places).sigmoid(), None

    def _from_proposals(self, memory: Levels) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Every token proposes a box around itself; the best ones become queries. [Deformable DETR section A.4]"""
        boxes = proposal_boxes(memory)
        usable = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True) & memory.valid[..., None]
        tokens = self.proposal_norm(self.proposal(memory.tokens.masked_fill(~usable, 0.0)))
        logits = self.class_heads[-1](tokens).float()
        moved = self.box_heads[-1](tokens).float() + boxes.logit().masked_fill(~usable, torch.inf)
        best = logits[..., 0].topk(min(self.count, logits.shape[1]), dim=1).indices
        references = moved.gather(1, best[..., None].expand(-1, -1, 4)).detach().sigmoid()
        # waves come as (cx, cy, w, h), each of half the width: together twice the width
        places, queries = self.start_norm(self.start(waves(references, tokens.shape[-1] // 2))).chunk(2, -1)
        return places, queries, references, (logits[None], moved.sigmoid()[None])


def proposal_boxes(memory: Levels) -> Tensor:
    """A square around every token's centre, larger on coarser levels. Returns [B, S, 4] cxcywh, parts of the image."""
    sizes = [memory.ratios.new_full((h * w, 2), FIRST_SIZE * 2**i) for i, (h, w) in enumerate(memory.shapes)]
    centres = cell_references(memory)[:, :, 0] / memory.ratios[:, None, 0]
    return torch.cat([centres, torch.cat(sizes).expand(len(centres), -1, -1)], -1)


def _copy_of(layer: nn.Linear) -> nn.Linear:
    copy = nn.Linear(layer.in_features, layer.out_features)
    copy.load_state_dict(layer.state_dict())
    return copy
