"""Is one method better than another? Differences over paired seeds, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_PAIRS = 24  # 2^24 sign patterns are looked at one by one


@dataclass(frozen=True)
class PairedDifference:
    """Mean difference of ``count`` pairs, its 95 % interval ``low`` to ``high``, and a two-sided ``p_value``."""

    mean: float
    low: float
    high: float
    p_value: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {(self.high - self.low) / 2:.2f} (95 %, {self.count} pairs, p = {self.p_value:.3g})"


def paired_difference(new: Sequence[float], old: Sequence[float]) -> PairedDifference:
    """``new`` minus ``old``, figures of two methods on the same seeds in the same order.

    The interval is Student's; the p-value that of the exact sign-flip test, which assumes no distribution: the share of
    all 2^n ways to swap methods within pairs whose mean difference is at least as far from 0. With n pairs it cannot be
    below 2^(1-n), so five seeds cannot reach 0.05.

    Raises:
        ValueError: if there is not one finite figure of each method for each of 1 to 24 seeds.
    """
    if len(new) != len(old) or not 1 <= len(new) <= MOST_PAIRS:
        raise ValueError(f"expected 1 to {MOST_PAIRS} pairs of figures; got {len(new)} and {len(old)}")
    differences = np.asarray(new, dtype=np.float64) - np.asarray(old, dtype=np.float64)
    if not np.isfinite(differences).all():
        raise ValueError(f"figures must be finite; the differences are {differences.tolist()}")
    count, mean = len(differences), float(differences.mean())
    half = math.inf
    if count > 1:
        half = student_quantile(count - 1) * float(differences.std(ddof=1)) / math.sqrt(count)
    return PairedDifference(mean, mean - half, mean + half, _sign_flip_p_value(differences), count)


def _sign_flip_p_value(differences: np.ndarray) -> float:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    rounding = 1e-9 * np.abs(differences).sum()  # equal sums in another order differ in the last bits
    return float(np.mean(np.abs(sums) >= abs(differences.sum()) - rounding))


def student_quantile(degrees: int, confidence: float = 0.95) -> float:
    """The t with P(|T| < t) = ``confidence`` for a Student variable T of ``degrees`` degrees of freedom."""
    low, high = 0.0, math.pi / 2  # the angle whose tangent is t / sqrt(degrees)
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, degrees) < confidence else (low, middle)
    return math.tan(low) * math.sqrt(degrees)


def _within(angle: float, degrees: int) -> float:
    """P(|T| < tan(angle) sqrt(degrees)), a finite sum. [Abramowitz and Stegun, 26.7.3 and 26.7.4]"""
    odd = degrees % 2
    term, total = (math.cos(angle) if odd else 1.0), 0.0
    for power in range(2 + odd, degrees + 1, 2):
        total += term
        term *= (power - 1) / power * math.cos(angle) ** 2
    inner = math.sin(angle) * total
    return 2 / math.pi * (angle + inner) if odd else inner
