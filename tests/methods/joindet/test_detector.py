"""The pretraining detector: its classes, its embeddings, and that its backbone stays as it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from boxcycle.methods.joindet.detector import JoinDet, PretrainDetrConfig
from boxcycle.methods.joindet.losses import embedding_loss, unit_mean_square
from boxcycle.models.detr_losses import Wanted
from boxcycle.types import Target


def build(tiny: str, **changes: Any) -> JoinDet:
    torch.manual_seed(0)
    small: dict[str, Any] = {"width": 32, "encoder_layers": 1, "decoder_layers": 2, "feed_forward": 32, "queries": 8}
    return JoinDet(PretrainDetrConfig(backbone=tiny, weights="none", dropout=0, **small | changes))


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, 64, 96, generator=generator), torch.rand(3, 80, 64, generator=generator)]


def targets(labels: int = 1) -> list[Target]:
    first = torch.tensor([[0.0, 0, 48, 48], [16, 16, 80, 64]])
    second = torch.tensor([[10.0, 20, 60, 70]])
    return [
        Target(boxes=boxes, labels=torch.full((len(boxes),), labels), image_id=i, seed=i)
        for i, boxes in enumerate((first, second))
    ]


def wanted(count: int) -> Wanted:
    return Wanted(torch.rand(count, 4), torch.ones(count, dtype=torch.int64), torch.ones(count), torch.zeros(0, 4))


def test_embedding_loss_by_hand() -> None:
    """An image with two boxes and one with one: (1 + 3) / 2 and 5, of which the mean is 3.5."""
    found = torch.tensor([[1.0, 1], [3, 3], [5, 5]])
    image = torch.tensor([0, 0, 1])
    assert float(embedding_loss(found, torch.zeros(3, 2), image, [wanted(2), wanted(1)])) == 3.5
    nothing = torch.zeros(0, 2)
    assert float(embedding_loss(nothing, nothing, image[:0], [wanted(0), wanted(0)])) == 0


def test_embeddings_have_a_mean_square_of_one() -> None:
    vectors = (
        torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 10, 100, 1e3])[:, None]
    )
    torch.testing.assert_close(unit_mean_square(vectors).square().mean(1), torch.ones(5))
    assert unit_mean_square(torch.zeros(1, 3)).equal(torch.zeros(1, 3))


def test_labels_are_not_looked_at(tiny: str) -> None:
    model = build(tiny)
    one, other = (model.losses(images(), targets(labels)) for labels in (1, 5))
    assert all(one[name].equal(other[name]) for name in model.loss_weights)


def test_an_embedding_is_the_mean_of_the_map_in_its_box(tiny: str) -> None:
    """A map of 4 x 6 cells of 16 pixels: 1 in the two columns that the box covers, 0 elsewhere; channel k times k."""
    model = build(tiny)
    batch = model.detector.batch(images()[:1])
    half = torch.zeros(1, 5, 4, 6)
    half[..., 2:4] = 1
    channels = torch.arange(5.0)[None, :, None, None]
    inside = Wanted(torch.tensor([[0.5, 0.5, 0.2, 0.5]]), *wanted(1)[1:])
    [found] = model.embeddings(batch, [half * channels], [inside])
    torch.testing.assert_close(found, unit_mean_square(channels.flatten()[None])[0])
    outside = Wanted(torch.tensor([[0.1, 0.5, 0.1, 0.5]]), *wanted(1)[1:])
    assert model.embeddings(batch, [half * channels], [outside]).abs().max() == 0


@pytest.mark.parametrize("embedding", ["map", "crops"])
def test_embeddings_of_a_batch_are_those_of_its_images(tiny: str, embedding: str) -> None:
    model, both = build(tiny, embedding=embedding), [images()[0], images()[0].flip(1)]
    boxes = [wanted(2), wanted(1)]
    batch = model.detector.batch(both)
    together = model.embeddings(batch, model.detector.maps(batch.tensors), boxes)
    assert together.shape == (3, model.detector.maps.channels[0])
    assert not together.requires_grad
    for image, its, rows in zip(both, boxes, together.split([2, 1]), strict=True):
        alone = model.detector.batch([image])
        found = model.embeddings(alone, model.detector.maps(alone.tensors), [its])
        torch.testing.assert_close(found, rows, atol=1e-4, rtol=1e-4)


def test_a_step_leaves_the_backbone_alone(tiny: str) -> None:
    model = build(tiny).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = [parameter for group in model.parameter_groups() for parameter in group["params"]]
    optimizer = torch.optim.SGD([p for p in parameters if p.requires_grad], lr=0.1)
    losses = model(images(), targets())
    sum(model.loss_weights[name] * value for name, value in losses.items()).backward()
    optimizer.step()
    after = model.state_dict()
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert not any(name.startswith("detector.maps.") for name in changed)
    assert any(name.startswith("embedding.") for name in changed)


def test_two_logits_start_at_background(tiny: str) -> None:
    model = build(tiny).eval()
    [found, _] = model.predict(images())
    assert (found["scores"] < 0.2).all()
    assert set(found["labels"].tolist()) <= {1}
    assert found["probs"].shape[1] == 2
