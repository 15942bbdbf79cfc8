"""A few hundred assignments with structure against SciPy; tests/slow has 50,000."""

from __future__ import annotations

import pytest

from ..structured_costs import KINDS, Tally, assign_one, solve_one


@pytest.mark.parametrize("kind", KINDS)
def test_none_is_wrong(kind: str) -> None:
    tally = Tally()
    for seed in range(100_000, 100_022):
        solve_one(kind, seed, tally, warm=0.5)
    assert tally.wrong == 0, tally.first
    assert tally.uncertified <= 1


def test_no_assignment_is_wrong() -> None:
    tally = Tally()
    for seed in range(100_000, 100_022):
        assign_one(seed, tally, warm=0.5)
    assert tally.wrong == 0, tally.first
    assert tally.uncertified <= 1
