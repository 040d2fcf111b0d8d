"""Groups of runs: means and spreads by hand, pairs by seed, rounds averaged one by one."""

from __future__ import annotations

import math

import pytest

from boxcycle.evaluation.groups import Group, Labels, Measured, Point, course, difference, spread


def run(seed: int, ap50: float, *, boxes: float = 10, rounds: tuple[tuple[float, float], ...] = ()) -> Measured:
    course = [Point(Labels(spent, 0, spent / 10), {"AP50": value}) for spent, value in rounds]
    return Measured(f"run{seed}", seed, Point(Labels(boxes), {"AP50": ap50}), course)


def test_mean_and_sample_deviation() -> None:
    assert spread([1.0, 2.0, 6.0]) == (3.0, pytest.approx(math.sqrt(7)), 3)  # squares 4, 1, 9 over n - 1 = 2
    assert spread([1.0, math.nan])[0::2] == (1.0, 1)
    assert math.isnan(spread([1.0]).std)
    assert math.isnan(spread([]).mean)


def test_differences_are_between_equal_seeds() -> None:
    old = Group("old", [run(0, 10.0), run(1, 20.0), run(2, 90.0)])
    new = Group("new", [run(1, 23.0), run(0, 11.0), run(7, 0.0)])
    found = difference(new, old, "AP50")
    assert found is not None
    assert (found.mean, found.count) == (2.0, 2)  # +1 and +3
    assert difference(old, new, "AP50").mean == -2.0  # type: ignore[union-attr]
    assert found.high - found.mean == pytest.approx(12.706 * math.sqrt(2) / math.sqrt(2), rel=1e-4)


def test_no_shared_seed_is_no_difference() -> None:
    assert difference(Group("a", [run(0, 1.0)]), Group("b", [run(1, 1.0)]), "AP50") is None
    assert difference(Group("a", [run(0, math.nan)]), Group("b", [run(0, 1.0)]), "AP50") is None


def test_rounds_are_averaged_over_the_runs_that_have_them() -> None:
    group = Group("ssm", [run(0, 9.0, rounds=((10, 1.0), (20, 3.0))), run(1, 9.0, rounds=((12, 2.0),))])
    found = course(group, "AP50")
    assert [(labels.boxes, figure.mean, figure.known) for labels, figure in found] == [(11, 1.5, 2), (20, 3.0, 1)]
    assert found[0][0].minutes == pytest.approx(1.1)


def test_without_rounds_the_course_is_the_result() -> None:
    ((labels, figure),) = course(Group("plain", [run(0, 4.0), run(1, 8.0, boxes=20)]), "AP50")
    assert (labels.boxes, figure.mean) == (15, 6.0)
    assert math.isnan(labels.minutes)
