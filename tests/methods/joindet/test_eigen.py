"""The eigen attention map against SciPy's dense solver and worked examples, and where there is no map."""

import json
from pathlib import Path

import pytest
import scipy.linalg
import torch
from torch import Tensor

from boxcycle.methods.joindet.eigen import eigen_attention, eigen_maps, token_graph

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text())["eigen"]


def random_features(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Smooth maps with noise, as a network's are."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 24, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")
    return smooth + 0.3 * torch.randn(count, 24, *size, generator=generator)


def dense(features: Tensor, center: bool = True) -> tuple[Tensor, float]:
    """Map [h, w] and second eigenvalue as TokenCut computes them, in float64."""
    tokens = features.flatten(1).T.double()
    if center:
        tokens = tokens - tokens.mean(0)
    tokens = tokens / tokens.norm(dim=1, keepdim=True)
    weights = torch.where(tokens @ tokens.T > 0.2, 1.0, 1e-5).numpy()
    degrees = torch.diag(torch.from_numpy(weights.sum(1))).numpy()
    values, vectors = scipy.linalg.eigh(degrees - weights, degrees, subset_by_index=[1, 2])
    found = torch.from_numpy(vectors[:, 0])
    if not found[found.abs().argmax()] > found.mean():
        found = -found
    return found.view(features.shape[1:]).float(), float(values[0])


def agree(one: Tensor, other: Tensor) -> None:
    cosine = (one * other).sum() / (one.norm() * other.norm())
    assert cosine > 0.9999
    masks = one > one.mean(), other > other.mean()
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() >= 0.99


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in EXAMPLES])
def test_examples(case: dict) -> None:
    height, width = case["grid"]
    features, wanted = torch.tensor(case["features"]).T.reshape(1, -1, height, width), case["expect"]
    [found] = eigen_maps(features, case["tau"], center=False)
    assert found.eigenvalue == pytest.approx(wanted["lambda2"], abs=1e-5)
    assert found.degenerate == wanted.get("degenerate", False)
    if found.degenerate:
        assert found.attention.equal(torch.zeros(height, width))
    else:
        attention = found.attention
        assert float(attention.flatten() @ torch.tensor(wanted["eigvec_unit"]) / attention.norm()) > 0.9999
        assert (attention > attention.mean()).int().tolist() == wanted["mask"]


@pytest.mark.parametrize("center", [True, False])
def test_maps_of_a_batch_are_those_of_a_dense_solver(center: bool) -> None:
    features = random_features(4, (14, 18))
    for one, found in zip(features, eigen_maps(features, center=center), strict=True):
        wanted, value = dense(one, center)
        assert found.eigenvalue == pytest.approx(value, abs=1e-4)
        agree(found.attention, wanted)
        assert eigen_attention(one, center=center).allclose(found.attention, atol=1e-4)


def test_padding_takes_no_part() -> None:
    features = random_features(2, (9, 11), seed=1)
    padded = torch.randn(2, 24, 12, 16)
    valid = torch.zeros(2, 12, 16, dtype=torch.bool)
    for row, (height, width) in enumerate([(9, 11), (12, 16)]):
        valid[row, :height, :width] = True
    padded[0, :, :9, :11] = features[0]
    found = eigen_maps(padded, valid=valid)
    agree(found[0].attention[:9, :11], dense(features[0])[0])
    assert found[0].attention.masked_select(~valid[0]).abs().sum() == 0
    agree(found[1].attention, dense(padded[1])[0])


def test_turned_features_turn_the_map() -> None:
    features = random_features(1, (10, 13), seed=2)[0]
    agree(eigen_attention(features.flip(2)), eigen_attention(features).flip(1))
    agree(eigen_attention(features * 7), eigen_attention(features))


def test_centring_tells_tokens_apart_that_are_all_alike() -> None:
    """Features after a ReLU: all cosines are high, and without centring the graph is complete."""
    features = random_features(1, (10, 10), seed=3) + 8
    plain, [centred] = eigen_maps(features, center=False), eigen_maps(features)
    assert plain[0].density > 0.99
    assert plain[0].degenerate
    assert 0.02 < centred.density < 0.5
    assert not centred.degenerate


def test_the_foreground_holds_the_largest_entry_unless_it_holds_the_corners() -> None:
    features = torch.zeros(2, 8, 8)
    features[0] = 1
    features[:, 2:6, 1:7] = torch.tensor([0.0, 1.0])[:, None, None]  # 24 cells of 64
    middle = torch.zeros(8, 8, dtype=torch.bool)
    middle[2:6, 1:7] = True
    found = eigen_attention(features, center=False)
    assert (found > found.mean()).equal(middle)  # fewer cells, so larger entries
    big = torch.zeros(2, 8, 8)
    big[0] = 1
    big[:, 1:7, :] = torch.tensor([0.0, 1.0])[:, None, None]  # the border rows are the smaller part, with all corners
    border = eigen_attention(big, center=False)
    flipped = eigen_attention(big, center=False, corner_flip=True)
    assert bool((border > border.mean())[0, 0])
    assert flipped.equal(-border)
    assert not bool((flipped > flipped.mean())[0, 0])


@pytest.mark.parametrize(
    "features",
    [
        torch.ones(3, 4, 5),
        torch.zeros(3, 4, 5),
        torch.randn(3, 1, 2),
        torch.full((3, 4, 5), float("nan")),
    ],
    ids=["constant", "zero", "two tokens", "not a number"],
)
def test_without_a_cut_there_is_no_map(features: Tensor) -> None:
    for center in (True, False):
        [found] = eigen_maps(features[None], center=center)
        assert found.degenerate
        assert found.attention.equal(torch.zeros(features.shape[1:]))


def test_an_image_does_not_depend_on_its_batch() -> None:
    """Also beside images that need more steps, or have no map."""
    features = random_features(3, (12, 12), seed=4)
    features[1] = 1.0
    together = eigen_maps(features)
    for one, found in zip(features, together, strict=True):
        [alone] = eigen_maps(one[None])
        assert alone.degenerate == found.degenerate
        torch.testing.assert_close(alone.attention, found.attention, atol=1e-5, rtol=1e-4)


def test_the_graph_by_hand() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 2.0], [5.0, 5.0]]])
    valid = torch.tensor([[True, True, True, False]])
    found = token_graph(tokens, valid, 0.2, center=False)[0]
    low = 1e-5
    torch.testing.assert_close(found, torch.tensor([[1, 1, low, 0], [1, 1, 1, 0], [low, 1, 1, 0], [0, 0, 0, 0]]))
