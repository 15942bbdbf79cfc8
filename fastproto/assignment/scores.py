"""The interface of column generation to the scores, on the CPU and on a GPU."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np

from fastproto.assignment.array_types import Floats, Ints, Ints32

PerRow: TypeAlias = Floats | None  # one bound per row; None: no bound
Rows: TypeAlias = Ints | Ints32 | slice  # row indices
EVERY = slice(None)
EPS = float(np.finfo(np.float32).eps)
# bfloat16 products change the sum of the squared scores by at most 2^-8 of its upper bound. The spread comes from them
# where the sum is at least this share of the bound, otherwise from float64 products.
LEAST_OVERLAP = 0.05


class Scores(Protocol):
    """Scores s_ij [rows, columns]. Prices and results are in the units of s."""

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
        """Prices [columns] that remove the part common to all rows: the prices of a cold start."""

    def margin(self, prices: Floats) -> Floats:
        """A bound on the rounding error of the values of ``top`` [rows]."""

    def column_mass(self, prices: Floats, temperature: float, every: int) -> Floats:
        """Σ_i softmax_j((s_ij - p_j) / temperature) [columns], summed over every ``every``-th row."""

    def top(
        self, prices: Floats, k: int, floor: PerRow = None, rows: Rows = EVERY, within: PerRow = None
    ) -> tuple[Floats, Ints32]:
        """Top-k of the rounded s_ij - p_j of ``rows``, descending, and their columns; -inf and -1 below ``floor``.

        ``floor`` and ``within`` have one entry per row of the whole problem. Values more than ``within`` below the
        largest of their row may be left out.
        """

    def recheck(self, columns: Ints, prices: Floats, places: int) -> tuple[float, float] | None:
        """The gap Σ_i max_j(s_ij - p_j) - (s_iA(i) - p_A(i)) and Σ_i s_iA(i) of A = ``columns``, in one pass.

        None if a sample of the rows should be tested before such a pass, or if too many rows have more than ``places``
        columns that rounding leaves undecided.
        """

    def exact(self, rows: Ints32, columns: Ints32) -> Floats:
        """s_ij of these pairs, float64."""

    def exact_rows(self, rows: Ints) -> Floats:
        """s_ij of a few rows and all columns, float64."""


class FactorScores(Scores, Protocol):
    """Scores that are products of two factors: s_ij = q̂_i·w_j."""

    @property
    def mean(self) -> float:
        """The mean of the scores."""
