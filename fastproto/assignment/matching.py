"""The records that the solvers exchange: a previous result, and a matching with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import Certificate, Ending

STILL_OPTIMAL = "its prices still prove it optimal"


@dataclass(frozen=True)
class Previous:
    """``permutation`` [n] int64 holds the column of each row, -1 for an unmatched row; ``prices`` is [m] float64."""

    permutation: Ints
    prices: Floats


@dataclass(frozen=True)
class Matching:
    """A permutation and prices as in :class:`Previous`, their certificate, and how they were found."""

    permutation: Ints
    prices: Floats
    known: Certificate
    method: str
    reason: str
    passes: float
    ending: Ending = "converged"
