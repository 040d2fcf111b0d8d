"""Cross image validation with a detector of coloured rectangles: exact, and independent of order, batch and shard."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from boxcycle.data.pool import Pool, regions
from boxcycle.data.transforms import ResizeConfig
from boxcycle.methods.ssm.config import MiningConfig
from boxcycle.methods.ssm.copies import Copy, window_of
from boxcycle.methods.ssm.labels import FIELDS, Candidates, joined
from boxcycle.methods.ssm.mining import blocks, fingerprint_of, mine_pool, read_candidates, read_pastes
from boxcycle.methods.ssm.pasting import choose_place, cut, draw_places, fitted, pack, paste, seeded, window_around
from boxcycle.methods.ssm.questions import box_questions, image_questions, with_pastes
from boxcycle.methods.ssm.selection import QuestionConfig, pseudo_boxes, select_questions
from boxcycle.methods.ssm.validation import Miner

from .cases import Blobs, make, make_index

LABELLED = [[(2, 2, 22, 22, 2, 0.9)], [(30, 30, 50, 50, 2, 0.9)], [(5, 5, 25, 25, 3, 0.9)], [(40, 4, 60, 24, 1, 0.9)]]
OPEN = [
    [(4, 4, 24, 24, 1, 0.95), (40, 30, 60, 50, 1, 0.6), (30, 2, 50, 20, 2, 0.5)],
    [(10, 10, 40, 30, 3, 0.8)],
    [],
    [(0, 40, 20, 60, 1, 0.7), (30, 40, 52, 62, 1, 0.75), (30, 6, 44, 20, 3, 0.55)],
    [(20, 20, 26, 26, 1, 0.9)],
]


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Four annotated images, of which one shows red, and five that nobody looked at."""
    index = make_index(tmp_path, LABELLED + OPEN, light=[0.0, 0.1, 0.2, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0])
    return Pool.start(index, np.arange(4))


def miner(pool: Pool, detector: Any = None, previous: Candidates | None = None, **changes: Any) -> Miner:
    config = MiningConfig(**({"targets": 3, "gap": 2} | changes))
    resize = ResizeConfig(short=64, long=200)
    return Miner(detector or Blobs(), pool, resize, config, QuestionConfig(), previous=previous)


def mined_by(its: Miner) -> Candidates:
    """All candidates of a miner's pool, by image id."""
    found = [image for block in blocks(its.pool, its.config.block) for image in its.mine(block)]
    return joined([image.candidates for image in found], 3)


def mine(pool: Pool, **changes: Any) -> Candidates:
    return mined_by(miner(pool, **changes))


def same(one: Candidates, other: Candidates) -> bool:
    return all(getattr(one, name).nan_to_num(-1).equal(getattr(other, name).nan_to_num(-1)) for name in FIELDS)


def test_candidates_are_large_enough_regions_of_the_right_image(pool: Pool) -> None:
    found = mine(pool)
    truth = [(14 + number, objects) for number, objects in enumerate(OPEN[:4])]
    assert sorted(zip(found.image_ids.tolist(), found.labels.tolist(), strict=True)) == sorted(
        (image_id, its[4]) for image_id, objects in truth for its in objects
    )
    for image_id, objects in truth:
        mine_boxes = found.boxes[found.image_ids == image_id]
        wanted = torch.tensor([its[:4] for its in objects], dtype=torch.float32).reshape(-1, 4)
        assert sorted(mine_boxes.tolist()) == sorted(wanted.tolist())


def test_scores_are_those_of_pasting_by_hand(pool: Pool) -> None:
    """Blue of brightness 0.8, into images of lightness 0, 0.1 and 0 without blue: how sure the detector is there."""
    found = mine(pool, targets=4, early_stop=False)
    blue = found[(found.image_ids == 15)]
    assert blue.tests.tolist() == [3]  # the fourth annotated image shows blue
    bright = int(255 * 0.8) / 255
    expected = [bright * (1 - int(255 * light) / 255) for light in (0.0, 0.1, 0.0)]
    assert float(blue.consistency) == pytest.approx(sum(expected) / 3, abs=1e-6)


def test_no_target_shows_the_class(pool: Pool) -> None:
    its = miner(pool)
    for label in (1, 2, 3):
        for image_id in range(14, 19):
            drawn = its.draw_targets(image_id, label)
            assert len(drawn) == min(3, {1: 3, 2: 2, 3: 3}[label])
            for position in drawn:
                assert label not in its.index.labels[its.index.boxes_of(position)]


def test_targets_and_places_vary_with_image_and_seed(pool: Pool) -> None:
    its = miner(pool)
    assert len({tuple(its.draw_targets(image_id, 1)) for image_id in range(50)}) == 6
    one, other = (draw_places((5, 9), (64, 80), seeded(0, seed)) for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert (one >= 0).all()
    assert (one[:, 2] <= 80).all()
    assert (one[:, 3] <= 64).all()
    assert (one[:, 2:] - one[:, :2] == [9, 5]).all()


def test_a_class_that_every_annotated_image_shows_is_unknown_unless_any_context_will_do(tmp_path: Path) -> None:
    index = make_index(tmp_path, [[(40, 4, 60, 24, 1, 0.9)], [(4, 4, 24, 24, 1, 0.95)]])
    pool = Pool.start(index, np.array([0]))
    unknown, measured = mine(pool), mine(pool, any_context=True)
    assert math.isnan(unknown.consistency[0])
    assert unknown.tests.tolist() == [0]
    assert measured.consistency[0] > 0.9
    assert not len(pseudo_boxes(unknown).labels)


@pytest.mark.parametrize("setting", [{"batch_size": 1}, {"batch_size": 3}])
@pytest.mark.parametrize("window", [None, 1.5])
def test_scores_do_not_depend_on_batches(pool: Pool, setting: dict[str, int], window: float | None) -> None:
    assert same(mine(pool, window=window, **setting), mine(pool, window=window))


def test_scores_do_not_depend_on_the_order_of_images(pool: Pool) -> None:
    its = miner(pool)
    backwards = joined([image.candidates for image in its.mine(pool.unlabelled[::-1])], 3)
    assert same(backwards, mine(pool))


def test_blocks_are_those_of_the_ids_whatever_the_order_of_the_images(pool: Pool) -> None:
    order = np.random.default_rng(0).permutation(len(pool.index))
    shuffled = Pool.start(pool.index.subset(order), np.flatnonzero(order < 4))
    ids = [[its.index.image_ids[block].tolist() for block in blocks(its, 2)] for its in (pool, shuffled)]
    assert ids[0] == ids[1] == [[14, 15], [16, 17], [18]]
    assert same(mine(pool, block=2), mine(shuffled, block=2))


@pytest.mark.parametrize("block", [1, 2, 64])
@pytest.mark.parametrize("shards", [2, 3, 7])
def test_scores_do_not_depend_on_shards(pool: Pool, tmp_path: Path, shards: int, block: int) -> None:
    for shard in range(shards):
        mine_pool(miner(pool, block=block), tmp_path / "mined", "print", shard=shard, shards=shards)
    assert same(read_candidates(tmp_path / "mined", 3), mine(pool, block=block))


def test_annotations_of_the_pool_are_not_read(tmp_path: Path) -> None:
    index = make_index(tmp_path, LABELLED + OPEN)
    poisoned = replace(index, boxes=index.boxes.copy(), labels=index.labels.copy())
    poisoned.boxes[4:], poisoned.labels[4:] = [1, 1, 2, 2], 3
    assert same(mine(Pool.start(index, np.arange(4))), mine(Pool.start(poisoned, np.arange(4))))


@pytest.mark.parametrize("saving", [{"prune": True}, {"early_stop": True}, {"prune": True, "early_stop": True}])
def test_pruning_and_early_stop_lose_nothing(pool: Pool, saving: dict[str, bool]) -> None:
    whole_miner, saving_miner = (
        miner(pool, **({"prune": False, "early_stop": False, "pace": 0.5, "pack": 1} | its)) for its in ({}, saving)
    )
    whole, saved = mined_by(whole_miner), mined_by(saving_miner)
    for one, other in ((pseudo_boxes(whole, pace=0.5), pseudo_boxes(saved, pace=0.5)),):
        assert len(one.labels)
        assert same(one.candidates, other.candidates)
    assert saving_miner.pasted < whole_miner.pasted
    if "prune" not in saving:  # what is not pasted counts as doubtful
        generators = [torch.Generator().manual_seed(0) for _ in range(2)]
        asked = [select_questions(its, count=9, generator=g) for its, g in zip((whole, saved), generators, strict=True)]
        assert asked[0].equal(asked[1])


def test_crops_of_one_class_share_copies(pool: Pool) -> None:
    alone, together = miner(pool, pack=1, early_stop=False), miner(pool, pack=4, early_stop=False)
    scores = [mined_by(its).consistency for its in (alone, together)]
    assert alone.pasted == together.pasted
    assert together.canvases < alone.canvases
    assert scores[0].nan_to_num(-1).tolist() == pytest.approx(scores[1].nan_to_num(-1).tolist(), abs=0.02)


def test_crops_of_several_images_share_copies(pool: Pool) -> None:
    alone, together = (miner(pool, block=block, early_stop=False, prune=False) for block in (1, 64))
    found = [mined_by(its) for its in (alone, together)]
    assert found[0].tests.equal(found[1].tests)
    assert alone.pasted == together.pasted
    assert together.canvases < alone.canvases


@pytest.mark.parametrize("form", ["literal5", "literal6", "vote"])
def test_forms_that_look_at_a_whole_image_have_it_for_themselves(pool: Pool, form: str) -> None:
    assert same(mine(pool, form=form, pack=8), mine(pool, form=form, pack=1))


def test_windows_by_hand() -> None:
    crop = torch.tensor([100, 40, 140, 60])  # 40 x 20, centre (120, 50); 2.5 times 40 is 100, in steps of 64: 128
    assert window_around([crop], (200, 300), 2.5) == (56, 0, 184, 128)
    assert window_around([crop], (100, 300), 2.5) == (56, 0, 184, 100)  # no higher than the target
    assert window_around([crop + 155], (200, 300), 2.5) == (172, 72, 300, 200)  # 72: moved inwards, as is 172
    far = torch.tensor([200, 140, 220, 160])  # its own window: 185 to 235 and 125 to 175
    assert window_around([crop, far], (400, 400), 2.5) == (56, 0, 248, 192)


def test_a_window_holds_its_crops_as_they_are() -> None:
    canvas = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
    placed = {3: torch.tensor([250, 20, 290, 50]), 7: torch.tensor([180, 30, 200, 60])}
    window, corner = window_of(canvas, placed, 1.5)
    assert window.shape == (3, 64, 192)  # the crops' own windows span 62.5 x 132.5
    for place in placed.values():
        (x1, y1, x2, y2), (a1, b1, a2, b2) = place.tolist(), (place - corner).tolist()
        assert window[:, b1:b2, a1:a2].equal(canvas[:, y1:y2, x1:x2])
    assert Copy(0, (200, 300), window, corner, placed).part == pytest.approx(64 * 192 / (200 * 300))
    assert window_of(canvas, placed, None)[0] is canvas


def test_windows_find_what_whole_targets_find(pool: Pool) -> None:
    whole, part = (miner(pool, window=window, early_stop=False) for window in (None, 1.5))
    scores = [mined_by(its).consistency for its in (whole, part)]
    assert scores[0].nan_to_num(-1).tolist() == pytest.approx(scores[1].nan_to_num(-1).tolist(), abs=0.1)
    assert whole.spared == 0


def test_views_of_the_image_itself(pool: Pool) -> None:
    found = mine(pool, validate_by="views", prune=False)
    sure = found[found.labels > 0]
    assert sure.tests.tolist() == [3] * len(sure)
    assert torch.allclose(sure.consistency, sure.probs.amax(1).double(), atol=0.05)


def test_unchanged_candidates_keep_their_score_for_some_rounds(pool: Pool) -> None:
    first = mine(pool, early_stop=False)
    kept = first[first.tests == 3]
    assert len(kept)
    again = miner(pool, early_stop=False, previous=first)
    second = mined_by(again)
    rows = second.tests == 3
    assert second.age[rows].tolist() == [1] * len(kept)
    assert again.pasted < miner_pasted(pool)
    old = replace(first, age=torch.full_like(first.age, 3))
    assert same(mine(pool, early_stop=False, previous=old), first)
    moved = replace(first, boxes=first.boxes + 3)
    assert same(mine(pool, early_stop=False, previous=moved), first)


def test_views_are_kept_while_nothing_changes(pool: Pool) -> None:
    settings = {"validate_by": "views", "prune": False}
    first = mine(pool, **settings)
    again = miner(pool, targets=5, previous=first, **settings)
    second = mined_by(again)
    assert again.canvases == len(pool.unlabelled)  # no view of any image
    assert second.consistency.nan_to_num(-1).equal(first.consistency.nan_to_num(-1))


def test_what_was_stopped_early_is_not_pasted_again_unless_it_is_open_again(pool: Pool) -> None:
    first = mine(pool, targets=2)  # every class is missing from at least two annotated images
    again = miner(pool, targets=2, previous=first)
    assert mined_by(again).consistency.nan_to_num(-1).equal(first.consistency.nan_to_num(-1))
    assert again.pasted == 0
    short = make([[0.48, 0.52, 0, 0], [0.1, 0.9, 0, 0]], [0.0, 0.0])  # at best 2 of 3: phi has to be exp(-0.6) = 0.55
    kept = miner(pool, targets=3).still_decided(replace(short, tests=torch.tensor([1, 1])))
    assert kept.tests.tolist() == [1, 0]
    assert kept.consistency.isnan().tolist() == [False, True]


def miner_pasted(pool: Pool) -> int:
    its = miner(pool, early_stop=False)
    mined_by(its)
    return its.pasted


def test_what_a_person_answered_is_no_candidate(pool: Pool) -> None:
    told = pool.with_human(regions([15], [[10, 10, 40, 31]], [0]))
    assert (mine(pool).image_ids == 15).sum() == 1
    assert (mine(told).image_ids == 15).sum() == 0


@pytest.mark.parametrize("block", [1, 2, 64])
def test_a_killed_shard_goes_on(pool: Pool, tmp_path: Path, block: int) -> None:
    file = tmp_path / "mined" / "candidates-0-of-1.jsonl"
    mine_pool(miner(pool, block=block), file.parent, "print")
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    for cut_at in (3, len(lines[0]), len(lines[0] + lines[1]) + 5, len("".join(lines[:4])), len(whole) - 1, len(whole)):
        file.write_text(whole[:cut_at])
        detector = Blobs()
        mine_pool(miner(pool, detector, block=block), file.parent, "print")
        assert file.read_text() == whole
        assert bool(detector.calls) == (cut_at < len(whole))
    for other, text in ((block, "another print"), (block + 1, "print")):
        with pytest.raises(ValueError, match="mined with another detector"):
            mine_pool(miner(pool, block=other), file.parent, text)


def test_shards_must_be_there_and_agree(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found none"):
        read_candidates(tmp_path, 3)
    mine_pool(miner(pool, block=2), tmp_path, "print", shard=0, shards=2)
    with pytest.raises(ValueError, match="all of 2 shards"):
        read_candidates(tmp_path, 3)
    mine_pool(miner(pool, block=2), tmp_path, "another", shard=1, shards=2)
    with pytest.raises(ValueError, match="different detectors"):
        read_candidates(tmp_path, 3)
    file = tmp_path / "candidates-1-of-2.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(ValueError, match="let its shard finish"):
        read_candidates(tmp_path, 3)


def test_fingerprints_differ_with_what_they_are_of(pool: Pool) -> None:
    state = {"a": torch.zeros(2), "b": torch.tensor(3)}
    told = pool.with_human(regions([15], [[10, 10, 40, 31]], [0]))
    prints = {
        fingerprint_of(state, pool, {"x": 1}),
        fingerprint_of(state | {"a": torch.ones(2)}, pool, {"x": 1}),
        fingerprint_of(state, told, {"x": 1}),
        fingerprint_of(state, pool, {"x": 2}),
    }
    assert len(prints) == 4
    assert fingerprint_of(state, pool, {"x": 1}) in prints


def test_crops_keep_their_scale_unless_they_are_too_large() -> None:
    image = torch.rand(3, 40, 60)
    crop = cut(image, torch.tensor([10.2, 5.0, 29.9, 25.0]))
    assert crop.equal(image[:, 5:25, 10:30])
    assert cut(image, torch.tensor([50.0, 30, 60.4, 41])).shape == (3, 10, 10)
    assert fitted(crop, (50, 50), largest=0.6, least=12) is crop
    shrunk = fitted(torch.rand(3, 40, 20), (50, 100), largest=0.6, least=12)
    assert shrunk is not None
    assert shrunk.shape == (3, 30, 15)
    assert fitted(torch.rand(3, 40, 8), (50, 100), largest=0.6, least=12) is None


def test_places_hide_no_object_and_keep_their_distance() -> None:
    places = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [20, 0, 30, 10]])
    boxes, taken = torch.tensor([[0.0, 0, 8, 8]]), torch.zeros(0, 4)
    assert choose_place(places, boxes, taken, 2).tolist() == [4, 0, 14, 10]  # hides half of the box, not more
    assert choose_place(places, boxes, torch.tensor([[15.0, 0, 17, 9]]), 2).tolist() == [20, 0, 30, 10]
    assert choose_place(places, boxes, torch.tensor([[15.0, 0, 19, 9]]), 2) is None
    canvas = paste(torch.zeros(3, 20, 40), [torch.ones(3, 10, 10)], [places[2]])
    assert canvas.sum() == 300
    assert canvas[:, 0:10, 20:30].all()


def test_packed_crops_are_disjoint_and_none_is_lost() -> None:
    rng = np.random.default_rng(0)
    sizes = [(int(rng.integers(12, 30)), int(rng.integers(12, 30))) for _ in range(9)]
    places = [
        torch.from_numpy(draw_places(size, (100, 120), seeded(number))).float() for number, size in enumerate(sizes)
    ]
    copies = pack(places, torch.zeros(0, 4), (100, 120), most=3, gap=4, largest_part=0.4)
    assert sorted(number for copy in copies for number in copy) == list(range(9))
    assert 3 <= len(copies) < 9
    for copy in copies:
        boxes = torch.stack(list(copy.values()))
        wide = boxes + torch.tensor([-2.0, -2, 2, 2])
        assert (box_iou(wide, wide) - torch.eye(len(boxes))).amax() == 0
    none = torch.zeros(0, 4)
    assert len(pack(places[:1], none, (100, 120), most=3, gap=4, largest_part=0.0)) == 1  # alone on its copy
    everywhere = torch.cat([places[0], torch.tensor([[0.0, 0, 1, 1]])])
    assert pack(places[:1], everywhere, (100, 120), most=3, gap=4, largest_part=0.4) == []


def test_what_a_question_shows_of_its_pastes(pool: Pool, tmp_path: Path) -> None:
    """Blue of 30 x 20 pixels, pasted into the three annotated images without blue, as it is and found as it is."""
    mined_with = miner(pool, targets=3, early_stop=False)
    mine_pool(mined_with, tmp_path / "mined", "x")
    found, pastes = read_candidates(tmp_path / "mined", 3), read_pastes(tmp_path / "mined")
    blue = found[found.image_ids == 15]
    asked = with_pastes([*box_questions(blue, pool.index, "r0"), *image_questions([15], pool.index, "r1")], pastes)
    assert asked[1].pastes == ()
    assert {shown.image_id for shown in asked[0].pastes} == {10, 11, 13}
    light = {10: 0.0, 11: 0.1, 13: 0.0}
    for shown in asked[0].pastes:
        expected = int(255 * 0.8) / 255 * (1 - int(255 * light[shown.image_id]) / 255)
        assert shown.found == pytest.approx(expected, abs=1e-6)
        assert (shown.box[2] - shown.box[0], shown.box[3] - shown.box[1]) == pytest.approx((30, 20))
