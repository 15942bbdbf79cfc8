"""linear_sum_assignment against SciPy on 10,000 matrices of every shape and kind, errors included."""

from __future__ import annotations

from collections import Counter

import pytest

from ..scipy_cases import check

pytestmark = pytest.mark.slow


def test_ten_thousand_matrices() -> None:
    seen = Counter(check(seed) for seed in range(10_000))
    print(f"\nlinear_sum_assignment: {dict(seen)}")
    assert min(seen.values()) > 20 and sum(seen.values()) == 10_000
