"""What is passed between the solvers: a previous result, and a matching with its certificate."""

from __future__ import annotations

from dataclasses import dataclass

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import Certificate, Ending

STILL_OPTIMAL = "its prices still prove it optimal"


@dataclass(frozen=True)
class Previous:
    """``permutation`` [n] holds the column of each row, -1 where a row is left out, and ``prices`` is [m]."""

    permutation: Ints
    prices: Floats


@dataclass(frozen=True)
class Matching:
    """The same, with its certificate, where it comes from and how its search ended."""

    permutation: Ints
    prices: Floats
    known: Certificate
    method: str
    reason: str
    passes: float
    ending: Ending = "converged"
