"""The exact solver on lists of arcs, against SciPy on the same arcs as a matrix."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linear_sum_assignment

from fastproto.assignment.list_solver import add_arcs, solve_lists, start_lists
from fastproto.assignment.price_centring import centre_prices

Array = np.ndarray[Any, Any]
STEPS = (2e-1, 4e-2, 8e-3, 1.6e-3)
SLACK = 1e-13


class Problem:
    """Rows with lists, as many or fewer than there are columns; each list holds the row's own column: a matching."""

    def __init__(self, listed: int, columns: int, seed: int, *, whole: bool = False) -> None:
        rng = np.random.default_rng(seed)
        width = int(rng.integers(0, min(columns, 12)))
        found = np.array([rng.choice(columns, width, replace=False) for _ in range(listed)], np.int32)
        found[rng.random(found.shape) < 0.2] = -1
        self.old = rng.permutation(columns)[:listed]
        self.indices, self.counts = start_lists(found.reshape(listed, width), self.old)
        scores = rng.normal(size=self.indices.shape)
        self.scores = np.rint(2 * scores) if whole else scores  # whole numbers: many equal values
        self.prices = rng.normal(size=columns)
        self.column_of, self.row_of = np.full(columns, -1), np.full(columns, -1)

    @property
    def arcs(self) -> tuple[Array, Array, Array]:
        return self.indices, self.scores, self.counts

    def matrix(self) -> Array:
        """[columns, columns] with -1000 where there is no arc, and rows of zeros for those without lists."""
        columns = len(self.prices)
        full = np.zeros((columns, columns))
        full[: len(self.indices)] = -1000.0
        for i, count in enumerate(self.counts):
            full[i, self.indices[i, :count]] = self.scores[i, :count]
        return full

    def solve(self, steps: tuple[float, ...]) -> int:
        return solve_lists(*self.arcs, self.prices, self.column_of, self.row_of, steps, SLACK)

    def check(self) -> None:
        """A permutation as good as SciPy's, and prices at which every row has one of its best columns."""
        columns = len(self.prices)
        every = np.arange(columns)
        assert sorted(self.column_of) == list(every) and (self.row_of[self.column_of] == every).all()
        full = self.matrix()
        best = full[linear_sum_assignment(full, maximize=True)].sum()
        own = full[every, self.column_of]
        assert own.sum() == pytest.approx(best, abs=1e-10)
        assert ((full - self.prices).max(1) - (own - self.prices[self.column_of])).max() <= 1e-10


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.integers(0, 20), st.integers(0, 2**31), st.booleans(), st.sampled_from([(), STEPS]))
def test_optimal_with_prices(listed: int, more: int, seed: int, whole: bool, steps: tuple[float, ...]) -> None:
    problem = Problem(listed, listed + more, seed, whole=whole)
    assert problem.solve(steps) == -1
    problem.check()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_it_goes_on_from_a_solution_when_arcs_are_added(listed: int, seed: int, whole: bool) -> None:
    problem = Problem(listed, listed + 3, seed, whole=whole)
    problem.solve(STEPS)
    rng = np.random.default_rng(seed)
    rows, ends = rng.integers(0, listed, 30), rng.integers(0, listed + 3, 30).astype(np.int32)
    problem.indices, problem.scores = (np.pad(x, ((0, 0), (0, 30))) for x in (problem.indices, problem.scores))
    add_arcs(*problem.arcs, rows, ends, rng.normal(size=30) + 1)
    assert problem.solve(()) == -1
    problem.check()


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 8), st.integers(0, 2**31))
def test_centred_prices_still_prove_it(listed: int, more: int, seed: int) -> None:
    problem = Problem(listed, listed + more, seed)
    problem.solve(STEPS)
    centre_prices(*problem.arcs, problem.prices, problem.column_of, problem.row_of, 3, 0.5)
    problem.check()


def test_a_column_that_two_rows_need() -> None:
    problem = Problem(3, 3, 0)
    problem.indices = np.array([[0, 1], [2, 0], [2, 0]], np.int32)
    problem.counts, problem.scores = np.array([2, 1, 1]), np.ones((3, 2))
    assert problem.solve(()) in (1, 2)


def test_a_tight_column_is_kept() -> None:
    """Of equally good permutations the one that it begins with."""
    size = 6
    problem = Problem(size, size, 0)
    problem.indices = np.tile(np.arange(size, dtype=np.int32), (size, 1))
    problem.scores, problem.counts, problem.prices = np.ones((size, size)), np.full(size, size), np.zeros(size)
    begun = np.random.default_rng(0).permutation(size)
    problem.column_of[:] = begun
    assert problem.solve(()) == -1
    assert problem.column_of.tolist() == begun.tolist()


def test_left_over_columns_share_the_lowest_price() -> None:
    problem = Problem(20, 35, 1)
    problem.solve(STEPS)
    left_over = problem.prices[problem.column_of[20:]]
    assert left_over == pytest.approx(np.full(15, problem.prices.min()), abs=1e-12)


def test_equal_rows_end_soon() -> None:
    """An auction on rows that compete for the same columns at the same values is cut off by its number of bids."""
    size = 300
    problem = Problem(size, size, 2)
    problem.indices = np.tile(np.arange(size, dtype=np.int32), (size, 1))
    problem.scores = np.tile(np.random.default_rng(3).normal(size=size), (size, 1))
    problem.counts = np.full(size, size)
    assert problem.solve(STEPS) == -1
    problem.check()


def test_lists_begin_with_the_old_column_and_hold_nothing_twice() -> None:
    found = np.array([[3, 1, -1], [2, 0, 1]], np.int32)
    indices, counts = start_lists(found, np.array([1, 4]))
    assert [indices[i, : counts[i]].tolist() for i in range(2)] == [[1, 3], [4, 2, 0, 1]]
    indices, scores = np.pad(indices, ((0, 0), (0, 1))), np.zeros((2, 5))
    add_arcs(indices, scores, counts, np.array([0, 0, 1]), np.array([3, 2, 2]), np.array([1.0, 5.0, 7.0]))
    assert indices[0, : counts[0]].tolist() == [1, 3, 2] and counts.tolist() == [3, 4]
    assert scores[0].tolist() == [0, 0, 5, 0, 0] and not scores[1].any()
