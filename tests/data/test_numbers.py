from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from boxcycle.data.numbers import decimals, integers


@pytest.mark.parametrize(
    ("value", "expected"),
    [(17, 17), ("17", 17), (" -3 ", -3), (17.0, 17), ("17.0", 17), (2**61, 2**61)]
    + [(value, None) for value in (1.5, "1.5", "x", "", None, True, [], {}, math.nan, math.inf)]
    + [(value, None) for value in (10**30, "9" * 25, "1e3", "१")],
)
def test_integers_are_what_spells_one(value: Any, expected: int | None) -> None:
    for column in ([value], [value, "0"]):
        read, known = integers(column)
        assert read[0] == (-1 if expected is None else expected)
        assert known[0] == (expected is not None)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(17, 17.0), ("1.5", 1.5), (1e300, 1e300), (math.inf, math.inf), ("1e3", 1000.0)]
    + [(value, None) for value in ("x", "", None, True, [], {}, 10**400)],
)
def test_decimals_are_what_spells_one(value: Any, expected: float | None) -> None:
    read, known = decimals([value, 1.0])
    assert known.tolist() == [expected is not None, True]
    assert np.isnan(read[0]) if expected is None else read[0] == expected


def test_empty_columns_have_no_rows() -> None:
    assert [len(column) for column in (*integers([]), *decimals([]))] == [0, 0, 0, 0]
