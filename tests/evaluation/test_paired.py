"""Paired differences: tables of Student's t, counting sign patterns by hand, and pairs that cannot be."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from boxcycle.evaluation.paired import paired_difference, student_quantile


@pytest.mark.parametrize(
    ("degrees", "expected"),  # the 0.975 column of printed tables
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (19, 2.093), (30, 2.042), (120, 1.980)],
)
def test_student_quantile_is_that_of_the_tables(degrees, expected):
    assert student_quantile(degrees) == pytest.approx(expected, abs=5.1e-4)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_student_quantile_agrees_with_scipy(confidence):
    stats = pytest.importorskip("scipy.stats")
    for degrees in range(1, 60):
        expected = stats.t.ppf((1 + confidence) / 2, degrees)
        assert student_quantile(degrees, confidence) == pytest.approx(expected, rel=1e-9)


def test_interval_by_hand():
    found = paired_difference([11, 12, 13], [10, 10, 10])
    assert (found.mean, found.count) == (2, 3)
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    assert found.p_value == 2 / 8  # of eight sign patterns, + + + and - - - are as far from 0
    assert str(found) == "+2.00 ± 2.48 (95 %, 3 pairs, p = 0.25)"


def test_p_value_counts_sign_patterns():
    differences = np.random.default_rng(0).normal(0.7, 1, 9)
    patterns = itertools.product([-1, 1], repeat=9)
    at_least = [abs(np.dot(signs, differences)) >= abs(differences.sum()) - 1e-12 for signs in patterns]
    assert paired_difference(differences, np.zeros(9)).p_value == pytest.approx(np.mean(at_least), abs=1e-12)


def test_equal_sums_in_another_order_count_as_equal():
    tenths = [1, 2, -3, 7, 4, -6]
    patterns = itertools.product([-1, 1], repeat=6)
    expected = np.mean([abs(np.dot(signs, tenths)) >= abs(sum(tenths)) for signs in patterns])
    assert paired_difference([tenth / 10 for tenth in tenths], [0] * 6).p_value == expected


def test_swapping_methods_turns_the_sign():
    new, old = [3.0, 1.0, 4.5, 1.2], [2.0, 1.5, 3.0, 1.1]
    one, other = paired_difference(new, old), paired_difference(old, new)
    assert (one.mean, one.low, one.high, one.p_value) == (-other.mean, -other.high, -other.low, other.p_value)


def test_interval_holds_the_truth_19_times_of_20():
    rng = np.random.default_rng(1)
    found = [paired_difference(rng.normal(0.5, 2, 6), np.zeros(6)) for _ in range(2000)]
    assert np.mean([each.low <= 0.5 <= each.high for each in found]) == pytest.approx(0.95, abs=0.015)
    without_effect = [paired_difference(rng.normal(0, 2, 6), np.zeros(6)).p_value for _ in range(2000)]
    assert np.mean(np.array(without_effect) <= 2 / 64) == pytest.approx(2 / 64, abs=0.012)


def test_one_pair_says_nothing():
    found = paired_difference([5], [3])
    assert (found.mean, found.low, found.high, found.p_value) == (2, -math.inf, math.inf, 1)


@pytest.mark.parametrize(
    ("new", "old", "message"),
    [
        ([], [], "got 0 and 0"),
        ([1, 2], [1], "got 2 and 1"),
        ([1, math.nan], [1, 2], "must be finite"),
        ([1] * 25, [2] * 25, "got 25 and 25"),
    ],
)
def test_pairs_that_cannot_be(new, old, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(new, old)
