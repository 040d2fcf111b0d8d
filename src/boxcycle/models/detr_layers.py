"""The layers of Deformable DETR's encoder and decoder, and a dropout that belongs to the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, scaled_dot_product_attention

from boxcycle.models.deformable_attention import DeformableAttention, Levels

Drop = Callable[[Tensor], Tensor]


class ImageDropout:
    """Dropout of tensors [B, ...] whose draws come from each image's own generator, not from the batch's."""

    def __init__(self, rate: float, generators: Sequence[torch.Generator]) -> None:
        self.rate, self.generators = rate, generators

    def __call__(self, values: Tensor) -> Tensor:
        keep = torch.empty_like(values)
        for row, generator in zip(keep, self.generators, strict=True):
            row.bernoulli_(1 - self.rate, generator=generator)
        return values * keep / (1 - self.rate)


class SelfAttention(nn.Module):
    """Attention of all queries to all; ``positions`` are added to what is compared, not to what is passed on."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (_xavier(nn.Linear(width, width)) for _ in range(3))
        self.output = _xavier(nn.Linear(width, width))

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Shapes: tokens [B, Q, C], positions [B, Q, C]; returns [B, Q, C]."""
        places = tokens + positions
        query, key, value = (
            layer(given).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, given in ((self.query, places), (self.key, places), (self.value, tokens))
        )
        return self.output(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers for each token."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first, self.second = _xavier(nn.Linear(width, hidden)), _xavier(nn.Linear(hidden, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Shapes: tokens [B, S, C]; returns the same."""
        return self.second(relu(self.first(tokens)))


class EncoderLayer(nn.Module):
    """Every token looks around itself on all levels."""

    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.attention, self.attention_norm = DeformableAttention(width, heads, levels, points), nn.LayerNorm(width)
        self.feed_forward, self.feed_forward_norm = FeedForward(width, hidden), nn.LayerNorm(width)

    def forward(self, levels: Levels, references: Tensor, drop: Drop) -> Levels:
        """Shapes: references [B, S, levels, 2]; returns the levels with new tokens."""
        tokens = levels.tokens
        seen = self.attention(tokens + levels.positions, references, levels)
        tokens = self.attention_norm(tokens + drop(seen))
        return levels._replace(tokens=self.feed_forward_norm(tokens + drop(self.feed_forward(tokens))))


class DecoderLayer(nn.Module):
    """Queries look at each other, then around their references on all levels."""

    def __init__(self, width: int, heads: int, levels: int, points: int, hidden: int) -> None:
        super().__init__()
        self.self_attention, self.self_attention_norm = SelfAttention(width, heads), nn.LayerNorm(width)
        self.attention, self.attention_norm = DeformableAttention(width, heads, levels, points), nn.LayerNorm(width)
        self.feed_forward, self.feed_forward_norm = FeedForward(width, hidden), nn.LayerNorm(width)

    def forward(self, queries: Tensor, positions: Tensor, references: Tensor, memory: Levels, drop: Drop) -> Tensor:
        """Shapes: queries and positions [B, Q, C], references [B, Q, levels, 2 or 4]; returns [B, Q, C]."""
        queries = self.self_attention_norm(queries + drop(self.self_attention(queries, positions)))
        seen = self.attention(queries + positions, references, memory)
        queries = self.attention_norm(queries + drop(seen))
        return self.feed_forward_norm(queries + drop(self.feed_forward(queries)))


class BoxHead(nn.Sequential):
    """Three linear layers from a query to what moves its reference box, (cx, cy, w, h) before the sigmoid.

    It starts at no movement and, where ``small``, at boxes of an eighth of the image's sides: sigmoid(-2) = 0.12.
    """

    def __init__(self, width: int, *, small: bool) -> None:
        last = nn.Linear(width, 4)
        super().__init__(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), last)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([0.0, 0.0, -2.0, -2.0] if small else [0.0] * 4))


def cell_references(levels: Levels) -> Tensor:
    """The centre of every cell, as parts of the padded map of each level. Returns [B, S, levels, 2]."""
    places = []
    for (height, width), ratio in zip(levels.shapes, levels.ratios.unbind(1), strict=True):
        y = (torch.arange(height, device=ratio.device) + 0.5) / height
        x = (torch.arange(width, device=ratio.device) + 0.5) / width
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij"), -1).flip(-1).flatten(0, 1)  # (x, y)
        places.append(grid / ratio[:, None])  # as parts of the image
    return torch.cat(places, 1)[:, :, None] * levels.ratios[:, None]


def inverse_sigmoid(places: Tensor) -> Tensor:
    """The logit of parts in [0, 1], finite also at both ends."""
    return (places.clamp(min=1e-5) / (1 - places).clamp(min=1e-5)).log()


def _xavier(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
