"""Columns of numbers as people's files hold them: mostly numbers, sometimes texts of numbers, or anything else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LARGEST = 2**62  # ids above it do not fit into int64 together with the new ids that may follow them


def integer(value: Any) -> int | None:
    """The integer that ``value`` is or spells (17, "17", 17.0), else None. Truth values are not integers."""
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}(\.0*)?\s*", value):
        value = int(value.strip().partition(".")[0])
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST else None


def decimal(value: Any) -> float | None:
    """The number that ``value`` is or spells, else None. NaN and infinity are numbers here."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def integers(values: Sequence[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A column of integers [N], and which of its rows [N] are integers at all (the others are -1)."""
    if set(map(type, values)) <= {int} and all(-LARGEST <= value <= LARGEST for value in values):
        return np.array(values, dtype=np.int64), np.ones(len(values), dtype=bool)
    read = [integer(value) for value in values]
    known = np.array([value is not None for value in read], dtype=bool)
    return np.array([-1 if value is None else value for value in read], dtype=np.int64), known


def decimals(values: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A column of floats [N], and which of its rows [N] are numbers at all (the others are NaN)."""
    if set(map(type, values)) <= {float, int}:
        try:
            return np.array(values, dtype=np.float64), np.ones(len(values), dtype=bool)
        except OverflowError:
            pass  # an integer beyond every float: found again below
    read = [decimal(value) for value in values]
    known = np.array([value is not None for value in read], dtype=bool)
    return np.array([np.nan if value is None else value for value in read], dtype=np.float64), known
