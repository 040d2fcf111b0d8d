"""Masks at test, by a CRF."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from boxcycle.methods.ws_jds.refinement import check, refined

SIZE = (90, 120)


def scene() -> tuple[Tensor, Tensor, Tensor]:
    """A bright square on dark ground with some noise, its true mask, and what a map of stride 16 says of it."""
    truth = torch.zeros(1, *SIZE)
    truth[:, 20:70, 30:90] = 1
    noise = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))
    image = (0.2 + 0.5 * truth + 0.05 * noise).expand(3, -1, -1)
    cells = avg_pool2d(truth[None], 16, ceil_mode=True)
    return image, truth[0] > 0, interpolate(0.1 + 0.8 * cells, SIZE, mode="bilinear")[0]


def overlap(mask: Tensor, truth: Tensor) -> float:
    found = mask > 0.5
    return float((found & truth).sum() / (found | truth).sum())


@pytest.mark.parametrize("how", ["small", "full"])
def test_masks_come_to_the_edges_of_the_image(how: str) -> None:
    if how == "full":
        pytest.importorskip("pydensecrf", reason="needs pydensecrf2")
    image, truth, coarse = scene()
    found = refined(image, coarse, how)  # type: ignore[arg-type]
    assert found.shape == coarse.shape
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-6
    assert overlap(coarse[0], truth) < 0.9
    assert overlap(found[0], truth) > 0.95  # cells of "small" are two pixels wide


def test_both_agree_where_the_small_map_is_the_image() -> None:
    pytest.importorskip("pydensecrf", reason="needs pydensecrf2")
    image, _, coarse = scene()
    image, coarse = image[:, 10:70, 20:84], coarse[:, 10:70, 20:84]  # 60 x 64 cells
    small, full = refined(image, coarse, "small"), refined(image, coarse, "full")
    assert ((small > 0.5) == (full > 0.5)).float().mean() > 0.98


def test_nothing_to_refine() -> None:
    image, _, coarse = scene()
    assert refined(image, coarse, "none") is coarse
    assert refined(image, coarse[:0], "small").shape == (0, *SIZE)


def test_what_is_not_installed_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    check("small")
    with pytest.raises(ValueError, match=r"detector.crf=full needs pydensecrf2: pip install 'boxcycle\[crf\]'"):
        check("full")
