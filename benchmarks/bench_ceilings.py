"""The limits of this machine: see :mod:`.ceilings`."""

from __future__ import annotations

from .ceilings import CEILINGS
from .comparison import Case, Row, compared


@compared(CEILINGS)
def test_ceilings(case: Case, row: Row) -> None:
    row(case)
