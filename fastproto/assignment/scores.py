"""What column generation asks of the scores, whether they are computed on the CPU or on a GPU."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32

PerRow: TypeAlias = Floats | None  # one number for each row, or no limit
Rows: TypeAlias = Ints | Ints32 | slice  # which rows
EVERY = slice(None)
EPS = float(np.finfo(np.float32).eps)
# The spread comes from bfloat16 products where the sum of the squared scores is at least this share of its upper bound,
# and from float64 products otherwise: bfloat16 changes the sum by at most 2^-8 of the bound.
LEAST_OVERLAP = 0.05


class Scores(Protocol):
    """Scores s_ij of rows and columns. Prices, values and results are in the units of s."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def spread(self) -> float:
        """The standard deviation of the scores."""

    @property
    def magnitude(self) -> float:
        """An upper bound of |s_ij|."""

    @property
    def column_shift(self) -> Floats:
        """Prices [columns] that remove what all rows have in common: a cold start begins there."""

    def margin(self, prices: Floats) -> Floats:
        """A bound of the error of the values of ``top`` [rows]."""

    def column_mass(self, prices: Floats, temperature: float, every: int) -> Floats:
        """Σ_i softmax_j((s_ij - p_j) / temperature) [columns], over each ``every``-th row."""

    def top(
        self, prices: Floats, k: int, floor: PerRow = None, rows: Rows = EVERY, within: PerRow = None
    ) -> tuple[Floats, Ints32]:
        """Top-k of s_ij - p_j and their columns per row, descending, rounded; -inf and -1 below ``floor``.

        ``floor`` and ``within`` have an entry for every row of the problem, whatever ``rows`` says. Values more than
        ``within`` below the largest of their row may be left out.
        """

    def recheck(self, columns: Ints, prices: Floats, places: int) -> tuple[float, float] | None:
        """The gap Σ_i max_j(s_ij - p_j) - (s_iA(i) - p_A(i)) and Σ_i s_iA(i) of A = ``columns``, in one pass.

        None if the pass is expensive enough to look at a sample of the rows first, or if many rows have more than
        ``places`` columns that rounding leaves undecided.
        """

    def exact(self, rows: Ints32, columns: Ints32) -> Floats:
        """s_ij in float64 of these pairs."""

    def exact_rows(self, rows: Ints) -> Floats:
        """s_ij in float64 of all columns of a few rows."""


class FactorScores(Scores, Protocol):
    """Scores that are products of two factors: s_ij = q̂_i·w_j."""

    @property
    def mean(self) -> float:
        """The mean of the scores."""
