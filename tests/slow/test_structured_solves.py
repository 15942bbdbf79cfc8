"""50,000 assignments with structure against SciPy in float64: none wrong, none certified and wrong, few uncertified.

``pytest -m slow -s tests/slow/test_structured_solves.py`` prints figures per kind: about ten minutes on one core.
"""

from __future__ import annotations

import pytest

from ..structured_costs import KINDS, Tally, assign_one, solve_one

pytestmark = pytest.mark.slow
SOLVES = 3_600  # of each kind; 14 kinds: 50,400
ASSIGN = "class means and prototypes"


@pytest.mark.parametrize("kind", [*KINDS, ASSIGN])
def test_structured_solves(kind: str) -> None:
    tally = Tally()
    for seed in range(SOLVES):
        if kind == ASSIGN:
            assign_one(seed, tally, warm=0.5)
        else:
            solve_one(kind, seed, tally, warm=0.5)
    print(
        f"{kind:26} solves {tally.count:5}  wrong {tally.wrong}  certified and wrong "
        f"{tally.certified_and_wrong}  uncertified {tally.uncertified}"
    )
    assert tally.count == SOLVES
    assert tally.wrong == tally.certified_and_wrong == 0, tally.first
    assert tally.uncertified <= 0.01 * tally.count
