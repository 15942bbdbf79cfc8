"""The limits of this machine: see :mod:`.ceilings`."""

from __future__ import annotations

import pytest

from .ceilings import CEILINGS
from .comparison import Case, Row


@pytest.mark.comparison(CEILINGS)
def test_ceilings(case: Case, row: Row) -> None:
    row(case)
