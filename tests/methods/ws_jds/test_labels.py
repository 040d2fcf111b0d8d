"""What WS-JDS makes of tags, against worked examples, a loop over cells, and symmetries that it must have."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from boxcycle.methods.ws_jds import labels
from boxcycle.methods.ws_jds.crf import boundary_targets, mean_field, shrunk

EXAMPLES = json.loads((Path(__file__).parent / "examples.json").read_text())


def example(name: str) -> tuple[dict[str, Tensor], dict]:
    case = EXAMPLES[name]
    return {key: torch.tensor(value) for key, value in case["input"].items() if key != "W"}, case["expected"]


def close(found: Tensor, expected: object, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found.double(), torch.tensor(expected).double(), atol=tolerance, rtol=tolerance)


def numbers(column: list[float | None]) -> Tensor:
    """A column of weights in which an empty box is null."""
    return torch.tensor([[math.nan if value is None else value] for value in column])


# --- scores


def test_scores_example() -> None:
    given, expected = example("wsddn_scores")
    scores = labels.wsddn_scores(given["Xc"], given["Xd"])
    close(scores, expected["Xs"])
    close(scores.sum(0), expected["y"])


def test_a_single_proposal_has_its_class_distribution() -> None:
    given, expected = example("wsddn_single_proposal")
    close(labels.wsddn_scores(given["Xc"], given["Xd"]).sum(0), expected["y"])


def test_the_order_of_proposals_does_not_matter() -> None:
    given, _ = example("wsddn_scores")
    order = torch.tensor([2, 0, 3, 1])
    scores = labels.wsddn_scores(given["Xc"], given["Xd"])
    close(labels.wsddn_scores(given["Xc"][order], given["Xd"][order]), scores[order].tolist())


# --- maps and seeds


def toy_scores(image: Tensor, slopes: Tensor) -> Tensor:
    parts = (0.05 * slopes * image, 0.02 * (slopes * image) ** 2, 0.01 * slopes * image**3)
    return torch.stack([part.sum() for part in parts])


def test_localisation_map_example() -> None:
    given, expected = example("localisation_seed_choice")
    image = torch.ones(3, 2, 3, requires_grad=True)
    scores = toy_scores(image, given["g"])
    close(scores.detach(), expected["P"])
    close(labels.localisation_map(scores, image, weighted=False), expected["map_a"])
    close(labels.localisation_map(scores, image), expected["map_b"])


def test_maps_of_a_batch_are_those_of_its_images() -> None:
    given, _ = example("localisation_seed_choice")
    images = torch.rand(2, 3, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    together = labels.localisation_map(torch.cat([toy_scores(image, given["g"]) for image in images]), images)
    for image, found in zip(images.detach(), together, strict=True):
        alone = image.clone().requires_grad_()
        close(labels.localisation_map(toy_scores(alone, given["g"]), alone), found.tolist())


def test_a_map_without_gradient_is_zero() -> None:
    image = torch.ones(3, 2, 2, requires_grad=True)
    assert labels.localisation_map((0 * image).sum(), image).eq(0).all()


def test_seeds_by_hand() -> None:
    maps = torch.tensor([[[1.0, 0.1, 0.05]], [[1.0, 0.005, 0.0]], [[0.0, 0.0, 0.0]], [[0.3, 1.0, 0.0]]])
    tags, known = torch.tensor([1, 0, 1, 1]), torch.tensor([True, True, True, False])
    seeds = labels.localisation_seeds(maps, tags, known, foreground=0.1, background=0.05)
    assert seeds[:, 0].tolist() == [[1, 1, 0], [0, 0, 0], [-1, -1, -1], [-1, -1, -1]]


def test_a_class_that_lost_its_map_is_not_taught_as_background() -> None:
    """The released code's fault after its guidance stops: an empty map lies below every threshold."""
    seeds = labels.localisation_seeds(
        torch.zeros(1, 4, 4), torch.ones(1), torch.ones(1, dtype=torch.bool), foreground=0.1, background=0.005
    )
    assert (seeds == labels.IGNORED).all()


# --- weights of proposals


def test_threshold_map_example() -> None:
    given, expected = example("W_threshold_map")
    found = labels.threshold_map(given["S"][None])
    assert found[0].int().tolist() == expected["T"]
    assert found.sum() == expected["count"]


@pytest.mark.parametrize("name", ["W_raw_eq3", "W_raw_zero_map"])
def test_weights_examples(name: str) -> None:
    given, expected = example(name)
    found = labels.proposal_weights(given["S"][None].float(), given["boxes"])
    torch.testing.assert_close(found, numbers(expected["W"]).float(), equal_nan=True, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["W_normalised", "W_normalised_no_positive"])
def test_normalised_weights_examples(name: str) -> None:
    case = EXAMPLES[name]
    close(labels.normalise_weights(numbers(case["input"]["W"]))[:, 0], case["expected"]["W_norm"])


def slow_weight(cells: list[list[bool]], box: list[int], context: float) -> float:
    """The definition, cell by cell."""
    height, width = len(cells), len(cells[0])
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return math.nan
    centre, half = ((x1 + x2) / 2, (y1 + y2) / 2), ((x2 - x1) / 2 * context, (y2 - y1) / 2 * context)
    left, right = math.floor(centre[0] - half[0] + 0.5), math.floor(centre[0] + half[0] + 0.5)
    top, bottom = math.floor(centre[1] - half[1] + 0.5), math.floor(centre[1] + half[1] + 0.5)
    inside, around = [], []
    for y in range(max(top, 0), min(bottom, height)):
        for x in range(max(left, 0), min(right, width)):
            (inside if x1 <= x < x2 and y1 <= y < y2 else around).append(cells[y][x])
    return sum(inside) / math.sqrt(len(inside)) - (sum(around) / math.sqrt(len(around)) if around else 0.0)


def random_case(seed: int, size: tuple[int, int], classes: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(classes, *size, generator=generator) ** 3 - 0.1
    corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([size[1] + 1.0, size[0] + 1.0])
    return masks, torch.cat([corners.amin(1), corners.amax(1)], 1).floor().long()


@pytest.mark.parametrize("context", [1.0, 1.3, 1.8, 4.0])
@pytest.mark.parametrize("size", [(1, 1), (9, 14), (23, 5)])
def test_weights_equal_counted_cells(size: tuple[int, int], context: float) -> None:
    masks, boxes = random_case(sum(size), size, classes=3, count=60)
    found = labels.proposal_weights(masks, boxes, context)
    for k, cells in enumerate(labels.threshold_map(masks).tolist()):
        expected = [slow_weight(cells, box, context) for box in boxes.tolist()]
        torch.testing.assert_close(found[:, k], torch.tensor(expected), equal_nan=True, atol=1e-5, rtol=1e-5)


def test_weights_of_a_mirrored_map_are_those_of_mirrored_boxes() -> None:
    """Odd sides: halves are rounded up in either direction, so that only whole edges of the context mirror."""
    masks, boxes = random_case(3, (20, 30), classes=2, count=80)
    x1, y1, x2, y2 = boxes.unbind(1)
    mirrored = torch.stack([30 - x2, y1, 30 - x1, y2], 1)
    whole = (((x2 - x1) % 2 == 0) & ((y2 - y1) % 2 == 0)).nonzero().flatten()
    found = labels.proposal_weights(masks, boxes, 2.0)[whole]
    again = labels.proposal_weights(masks.flip(2), mirrored, 2.0)[whole]
    assert len(whole) > 5
    torch.testing.assert_close(found, again, equal_nan=True)


def test_weights_do_not_depend_on_the_scale_of_the_mask_or_the_other_classes() -> None:
    masks, boxes = random_case(4, (12, 12), classes=3, count=40)
    together = labels.proposal_weights(masks, boxes)
    torch.testing.assert_close(labels.proposal_weights(7 * masks, boxes), together, equal_nan=True)
    torch.testing.assert_close(labels.proposal_weights(masks[1:2], boxes), together[:, 1:2], equal_nan=True)


def test_weights_of_no_proposals_and_no_classes() -> None:
    masks, boxes = random_case(5, (6, 6), classes=3, count=4)
    assert labels.proposal_weights(masks, boxes[:0]).shape == (0, 3)
    assert labels.proposal_weights(masks[:0], boxes).shape == (4, 0)


def test_normalised_weights_are_bounded() -> None:
    masks, boxes = random_case(6, (20, 20), classes=5, count=200)
    found = labels.normalise_weights(labels.proposal_weights(masks, boxes))
    assert found.isfinite().all()
    assert found.abs().max() <= 1
    assert (found.amax(0) == 1).all()


def test_guidance_grows_with_the_image_score_and_spares_absent_classes() -> None:
    weights = torch.tensor([[0.5, -1.0], [-1.0, 0.2]])
    found = labels.guidance(weights, torch.tensor([0.25, 1.0]), torch.tensor([1, 0]))
    close(found, [[0.875, 1.0], [0.5, 1.0]])
    close(labels.guidance(weights, torch.zeros(2), torch.ones(2)), [[1.0, 1.0], [1.0, 1.0]])


def test_grid_boxes_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 16.0, 24.0], [7.9, 8.0, 40.0, 400.0], [3.0, 3.0, 4.0, 4.0]])
    found = labels.grid_boxes(boxes, (1 / 16, 1 / 8), (4, 5))
    assert found.tolist() == [[0, 0, 2, 2], [1, 1, 5, 4], [0, 0, 1, 0]]


def test_instance_mask_example() -> None:
    given, expected = example("instance_mask")
    assert labels.instance_mask(given["mask"], given["box"]).int().tolist() == expected["mask"]


def test_suppression_keeps_an_overlap_of_exactly_the_threshold() -> None:
    given, expected = example("nms")
    boxes = given["boxes"][:, :4] + torch.tensor([0, 0, 1, 1])  # inclusive pixels to half-open ones
    assert nms(boxes, given["boxes"][:, 4], float(given["t"])).tolist() == expected["keep"]


# --- the CRF


def test_mean_field_example() -> None:
    given, expected = example("dense_crf_exact")
    image = given["image"].permute(2, 0, 1).double()
    probabilities = torch.stack([1 - given["prob_fg"].double(), given["prob_fg"].double()])
    settings = {"place": 4.0, "colour": 13.0, "near": 1.5, "bilateral": 10.0, "gaussian": 3.0}
    close(mean_field(image, probabilities, iterations=1, **settings)[1].flatten(), expected["after_1"])
    close(mean_field(image, probabilities, iterations=10, **settings)[1].flatten(), expected["after_10"], 1e-7)


def test_targets_end_at_the_edge_of_the_image() -> None:
    """A blob that spills over an edge is cut off at it."""
    image = torch.full((3, 16, 16), 30.0)
    image[:, :, 8:] = 220.0
    mask = torch.full((1, 16, 16), 0.1)
    mask[:, :, :7] = 0.8
    mask[:, :, 7:10] = 0.45
    found = boundary_targets(image, mask)[0]
    assert (found[:, :8] > 0.9).all()
    assert (found[:, 8:] < 0.1).all()


def test_targets_keep_to_the_symmetries_of_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    image, masks = 255 * torch.rand(3, 9, 12, generator=generator), torch.rand(2, 9, 12, generator=generator)
    found = boundary_targets(image, masks)
    close(boundary_targets(image.flip(2), masks.flip(2)), found.flip(2).tolist(), 1e-4)
    close(boundary_targets(image, masks.flip(0)), found.flip(0).tolist(), 1e-4)


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_targets_of_a_certain_mask_are_finite(level: float) -> None:
    assert boundary_targets(torch.zeros(3, 4, 4), torch.full((2, 4, 4), level)).isfinite().all()


def test_large_maps_are_shrunk_to_their_means() -> None:
    maps = torch.arange(96.0 * 40).reshape(1, 96, 40)
    found = shrunk(maps, 48)
    assert found.shape == (1, 48, 20)
    close(found[0, 0, 0], float(maps[0, :2, :2].mean()))
    assert shrunk(maps[:, :30]).equal(maps[:, :30])
