"""The stages of a two-stage detector: losses by hand, per-image means, boxes inside the image."""

import pytest
import torch
from torch.nn.functional import cross_entropy, smooth_l1_loss

from boxcycle.models.config import DetectorConfig
from boxcycle.models.faster_rcnn import FasterRCNN
from boxcycle.models.two_stage import RegionConfig, thin
from boxcycle.ops.matching import says_where
from boxcycle.types import Target
from small_images import image, target


@pytest.fixture
def detector(tiny: str) -> FasterRCNN:
    torch.manual_seed(0)
    regions = RegionConfig(sampled=16, score_threshold=0.0)
    return FasterRCNN(3, DetectorConfig(backbone=tiny, weights="none", proposals=20, regions=regions))


IMAGES = [image(64, 90, 1), image(80, 48, 2), image(33, 33, 3)]
TARGETS = [target([[4, 5, 40, 50], [30, 8, 70, 60]], [1, 3], 11), target([], [], 12), target([[0, 0, 33, 33]], [2], 13)]


def test_images_are_normalised_and_padded_with_zeros(detector: FasterRCNN) -> None:
    batch = detector.batch(IMAGES)
    assert batch.tensors.shape == (3, 3, 96, 96)
    assert batch.sizes == [(64, 90), (80, 48), (33, 33)]
    mean, std = torch.tensor(detector.backbone.mean), torch.tensor(detector.backbone.std)
    torch.testing.assert_close(batch.tensors[0, :, 63, 89], (IMAGES[0][:, 63, 89] - mean) / std)
    assert batch.tensors[0, :, 64:].abs().sum() == 0
    assert batch.tensors[2, :, :, 33:].abs().sum() == 0


def test_the_loss_of_a_batch_is_the_mean_of_the_losses_of_its_images(detector: FasterRCNN) -> None:
    """So two processes equal one. The images are of one size: padding reaches into a small one's features."""
    images = [image(64, 64, seed) for seed in range(3)]
    targets = [target([[4, 5, 40, 50], [30, 8, 62, 60]], [1, 3], 11), *TARGETS[1:]]
    together = detector.losses(images, targets)
    alone = [detector.losses([one], [its]) for one, its in zip(images, targets, strict=True)]
    for name, value in together.items():
        mean = sum(losses[name] for losses in alone) / 3
        torch.testing.assert_close(value, mean, atol=1e-5, rtol=1e-4, msg=name)


def test_region_losses_equal_a_loop_over_regions(detector: FasterRCNN) -> None:
    batch = detector.batch(IMAGES, TARGETS)
    maps = detector.features(batch)
    proposals, _ = detector.propose(maps, batch, TARGETS)
    rois = detector.sample(proposals, TARGETS)
    logits, deltas = detector.classify(maps, rois.boxes)
    found = detector.region_losses(logits, deltas, rois)
    classes, boxes, row = 0.0, 0.0, 0
    for regions, its in zip(rois.boxes, TARGETS, strict=True):
        for region in regions:
            label, part = int(rois.labels[row]), 1 / (3 * len(regions))
            classes += part * float(cross_entropy(logits[row], rois.labels[row]).detach())
            if label:
                box = its["boxes"][rois.matched[row]]
                assert its["labels"][rois.matched[row]] == label
                size, wanted_size = region[2:] - region[:2], box[2:] - box[:2]
                shift = ((box[:2] + box[2:]) - (region[:2] + region[2:])) / 2 / size * 10
                wanted = torch.cat([shift, (wanted_size / size).log() * 5])
                loss = smooth_l1_loss(deltas[row, label - 1], wanted, beta=1 / 9, reduction="sum")
                boxes += part * float(loss.detach())
            row += 1
    assert float(found["class"].detach()) == pytest.approx(classes, rel=1e-4)
    assert float(found["box"].detach()) == pytest.approx(boxes, rel=1e-4)
    assert boxes > 0


def test_weights_multiply_the_losses_of_their_boxes_and_no_others(detector: FasterRCNN) -> None:
    targets = [TARGETS[0] | {"weight": torch.tensor([0.0, 0.0])}]
    batch = detector.batch(IMAGES[:1], targets)
    maps = detector.features(batch)
    rois = detector.sample(detector.propose(maps, batch)[0], targets)
    assert (rois.share[rois.labels > 0] == 0).all()
    assert (rois.share[rois.labels == 0] == 1 / len(rois.labels)).all()
    assert (rois.labels > 0).any()


def test_a_mined_box_teaches_its_class_and_not_its_place(detector: FasterRCNN) -> None:
    human, mined = (
        detector.losses(IMAGES[:1], [TARGETS[0] | {"source": torch.full_like(TARGETS[0]["labels"], source)}])
        for source in (0, 1)
    )
    assert human["box"] > 0
    assert human["rpn_box"] > 0
    assert mined["box"] == mined["rpn_box"] == 0
    for name in ("class", "rpn_objectness"):
        assert mined[name] == human[name]


def test_of_two_boxes_only_the_mined_one_teaches_no_place() -> None:
    target = Target(boxes=torch.zeros(2, 4), labels=torch.ones(2, dtype=torch.int64), source=torch.tensor([0, 1]))
    assert says_where(target, torch.tensor([0, 1, 1, 0])).tolist() == [True, False, False, True]
    assert says_where(target | {"source": torch.zeros(0)}, torch.tensor([0])).tolist() == [True]


def test_thinned_regions_keep_the_weight_of_their_image(detector: FasterRCNN) -> None:
    batch = detector.batch(IMAGES, TARGETS)
    maps = detector.features(batch)
    rois = detector.sample(detector.propose(maps, batch)[0], TARGETS)
    some, rows = thin(rois, 6)
    assert [len(boxes) for boxes in some.boxes] == [6, 6, 6]
    assert some.labels.equal(rois.labels[rows])
    torch.testing.assert_close(torch.cat(some.boxes), torch.cat(rois.boxes)[rows])
    assert float(some.share.sum()) == pytest.approx(float(rois.share.sum()), rel=1e-5)


def test_detections_are_ranked_inside_the_image_and_carry_class_distributions(detector: FasterRCNN) -> None:
    with torch.no_grad():
        found = detector.predict(IMAGES)
    for one, detections in zip(IMAGES, found, strict=True):
        boxes, scores, probs = detections["boxes"], detections["scores"], detections["probs"]
        assert len(boxes) > 0
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2:] <= torch.tensor([one.shape[2], one.shape[1]])).all()
        assert (scores[:-1] >= scores[1:]).all()
        torch.testing.assert_close(probs.sum(1), torch.ones(len(probs)))
        torch.testing.assert_close(probs[torch.arange(len(probs)), detections["labels"]], scores)


def test_detect_decodes_the_box_of_the_class(detector: FasterRCNN) -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0, 0.0]])
    deltas = torch.zeros(1, 3, 4)
    deltas[0, 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])  # of label 2: a tenth of its width to the right
    found = detector.detect(logits, deltas, [torch.tensor([[10.0, 10, 30, 30]])], [(40, 31)])[0]
    assert found["labels"][0] == 2
    torch.testing.assert_close(found["boxes"][0], torch.tensor([12.0, 10, 31, 30]))  # clipped at 31


def test_bad_targets_are_refused_with_a_sentence(detector: FasterRCNN) -> None:
    for boxes, labels, message in (
        ([[0.0, 0, 10, 900]], [1], "must lie inside the image of 64 x 90"),
        ([[20.0, 20, 10, 10]], [1], "x1 < x2"),
        ([[0.0, 0, 10, 10]], [4], r"must be in 1\.\.3"),
        ([[0.0, 0, 10, 10]], [0], "0 is background"),
        ([[0.0, float("nan"), 10, 10]], [1], "must be finite"),
        ([[0.0, 0, 10, 10]], [1, 2], "one for each box"),
    ):
        with pytest.raises(ValueError, match=message):
            detector.losses(IMAGES[:1], [target(boxes, labels)])


def test_training_mode_needs_targets(detector: FasterRCNN) -> None:
    with pytest.raises(ValueError, match="needs targets"):
        detector.train()(IMAGES)
