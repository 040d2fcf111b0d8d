"""Counts of single images, and the score from which detections are shown."""

from __future__ import annotations

import numpy as np
import pytest

from boxcycle.evaluation.images import ImageScore, above, best_min_score, score_images


@pytest.fixture
def case(make_index, make_predictions):
    truth = [[(1, [0, 0, 10, 10]), (2, [20, 20, 30, 30]), (1, [50, 50, 60, 60])], [], [(1, [0, 0, 10, 10])]]
    index = make_index(truth, difficult=[2])
    found = [
        [(1, 0.9, [0, 0, 10, 10]), (1, 0.8, [50, 50, 60, 60]), (1, 0.6, [20, 20, 30, 30]), (1, 0.2, [0, 0, 10, 9])],
        [(2, 0.3, [0, 0, 5, 5])],
        [(1, 0.4, [0, 0, 10, 10])],
    ]
    return index, make_predictions(index, found)


def test_counts_by_hand(case):
    assert score_images(*case, min_score=0.1) == [(0, 1, 2, 1), (1, 0, 1, 0), (2, 1, 0, 0)]
    assert score_images(*case, min_score=0.5) == [(0, 1, 1, 1), (1, 0, 0, 0), (2, 0, 0, 1)]


def test_f1():
    assert ImageScore(0, 1, 2, 1).f1 == pytest.approx(2 / 5)
    assert ImageScore(0, 0, 0, 0).f1 == 1
    assert ImageScore(0, 0, 3, 0).f1 == 0


def test_above_keeps_rows_together(case):
    kept = above(case[1][0], 0.6)
    assert kept.scores == pytest.approx([0.9, 0.8, 0.6])
    assert kept.boxes[2].tolist() == [20, 20, 30, 30]


def test_best_score_has_the_best_f1_of_all(draw_case):
    index, predictions = draw_case(7, difficult=0.1)
    found = best_min_score(index, predictions)

    def f1(min_score: float) -> float:
        _, right, wrong, missed = np.sum(score_images(index, predictions, min_score=min_score), axis=0)
        return 2 * right / (2 * right + wrong + missed)

    assert f1(found) == pytest.approx(max(f1(score) for score in np.linspace(0, 1, 101)))


def test_detections_of_one_score_are_shown_together(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 10, 10]), (1, [50, 50, 60, 60])]])
    elsewhere = [(1, 0.9, [20, 20, 30, 30]), (1, 0.9, [80, 80, 90, 90])]
    predictions = make_predictions(index, [[(1, 0.9, [0, 0, 10, 10]), *elsewhere, (1, 0.8, [50, 50, 60, 60])]])
    assert best_min_score(index, predictions) == pytest.approx(0.8)  # F1 at 0.9 is 2/5, not the 2/3 of the first alone


def test_best_score_where_nothing_is_right(make_index, make_predictions):
    index = make_index([[(1, [0, 0, 10, 10])], []])
    assert best_min_score(index, make_predictions(index, [[], []])) == 0.5
    assert best_min_score(index, make_predictions(index, [[(2, 0.9, [0, 0, 9, 9])], []])) == 0.5
