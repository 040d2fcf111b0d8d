"""Deformable attention against loops over queries, heads, levels and points, and how it starts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from boxcycle.models.deformable_attention import DeformableAttention, Levels, sample_levels

SHAPES = [(3, 4), (2, 2)]


def make_levels(batch: int, width: int) -> Levels:
    generator = torch.Generator().manual_seed(1)
    count = sum(h * w for h, w in SHAPES)
    tokens = torch.randn(batch, count, width, generator=generator)
    valid = torch.ones(batch, count, dtype=torch.bool)
    return Levels(tokens, torch.zeros_like(tokens), valid, SHAPES, torch.ones(batch, len(SHAPES), 2))


def bilinear(grid: Tensor, x: float, y: float) -> Tensor:
    """Value of a map [h, w, C] at (x, y) in cells, centres at +0.5, zero outside."""
    x0, y0 = math.floor(x - 0.5), math.floor(y - 0.5)
    total = torch.zeros(grid.shape[2])
    for row in (y0, y0 + 1):
        for column in (x0, x0 + 1):
            if 0 <= row < grid.shape[0] and 0 <= column < grid.shape[1]:
                total += grid[row, column] * (1 - abs(x - 0.5 - column)) * (1 - abs(y - 0.5 - row))
    return total


def test_samples_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(2, 16, 6, generator=generator)
    places = torch.rand(2, 5, 3, 2, 2, 2, generator=generator) * 1.4 - 0.2  # some outside
    weights = torch.rand(2, 5, 3, 2, 2, generator=generator)
    found = sample_levels(values, SHAPES, places, weights)
    for b in range(2):
        maps = [part.unflatten(0, shape) for part, shape in zip(values[b].split([12, 4]), SHAPES, strict=True)]
        for query in range(5):
            for head in range(3):
                wanted = torch.zeros(2)
                for level, (height, width) in enumerate(SHAPES):
                    for point in range(2):
                        x, y = places[b, query, head, level, point].tolist()
                        sample = bilinear(maps[level][..., 2 * head : 2 * head + 2], x * width, y * height)
                        wanted += weights[b, query, head, level, point] * sample
                torch.testing.assert_close(found[b, query, 2 * head : 2 * head + 2], wanted)


def test_heads_start_in_all_directions_and_points_at_growing_distance() -> None:
    bias = DeformableAttention(8, heads=8, levels=2, points=4).offsets.bias.view(8, 2, 4, 2)
    torch.testing.assert_close(bias[:, 0], bias[:, 1])
    torch.testing.assert_close(bias[0, 0, 0], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(bias[1, 0, 2], torch.tensor([3.0, 3.0]))  # 45 degrees: the corner of the square
    torch.testing.assert_close(bias.abs().amax(-1)[0, 0], torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_offsets_are_cells_around_points_and_parts_of_boxes() -> None:
    """At the start all points weigh the same: the mean of the samples is known."""
    attention = DeformableAttention(1, heads=1, levels=2, points=2)
    with torch.no_grad():
        for layer in (attention.values, attention.output):
            layer.weight.fill_(1.0)
    levels = make_levels(1, 1)
    maps = [part.unflatten(0, shape) for part, shape in zip(levels.tokens[0].split([12, 4]), SHAPES, strict=True)]
    point, box = torch.tensor([0.3, 0.6]), torch.tensor([0.3, 0.6, 0.5, 0.2])
    for reference, steps in ((point, None), (box, 0.5 * 0.5 / 2)):  # half the box's width, by the number of points
        found = attention(torch.zeros(1, 1, 1), reference.expand(1, 1, 2, -1), levels)
        samples = [
            bilinear(grid, (0.3 + k * (1 / width if steps is None else steps)) * width, 0.6 * height)
            for grid, (height, width) in zip(maps, SHAPES, strict=True)
            for k in (1, 2)
        ]
        torch.testing.assert_close(found[0, 0], torch.stack(samples).mean(0))


def test_padded_tokens_are_not_seen() -> None:
    attention = DeformableAttention(8, heads=2, levels=2, points=2)
    levels = make_levels(1, 8)
    levels.valid[0, [3, 7, 11, 15]] = False
    changed = levels.tokens.clone()
    changed[0, [3, 7, 11, 15]] = 1e6
    queries, references = torch.randn(1, 9, 8), torch.rand(1, 9, 2, 2)
    one, other = attention(queries, references, levels), attention(queries, references, levels._replace(tokens=changed))
    torch.testing.assert_close(one, other)


def test_a_level_as_a_map() -> None:
    levels = make_levels(2, 5)
    tokens, valid = levels.map(1)
    assert tokens.shape == (2, 5, 2, 2)
    assert valid.shape == (2, 2, 2)
    assert tokens[1, :, 1, 0].equal(levels.tokens[1, 12 + 2])
