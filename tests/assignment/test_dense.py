"""The compiled dense solver: optimal prices and pairs for every kind of matrix, and where auto takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from fastproto.assignment import solve
from fastproto.assignment.dense import BIDS, TIED_BIDS, least_prices, match_dense

Matrix = np.ndarray[Any, np.dtype[np.float64]]
Generator = np.random.Generator

MATRICES: dict[str, Callable[[Generator, int, int], Matrix]] = {
    "uniform": lambda rng, n, m: rng.random((n, m)),
    "few values": lambda rng, n, m: rng.integers(0, 3, (n, m)).astype(float),
    "all equal": lambda rng, n, m: np.zeros((n, m)),
    "products": lambda rng, n, m: np.outer(np.arange(n), np.arange(m)) / (n * m),
    "forbidden": lambda rng, n, m: np.where(rng.random((n, m)) < 0.3, rng.random((n, m)), np.inf),
    "copies": lambda rng, n, m: rng.random((n, m))[rng.integers(0, n, n)][:, rng.integers(0, m, m)],
}


@pytest.mark.parametrize("kind", MATRICES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (30, 30), (30, 31), (30, 200), (150, 150)])
def test_the_pairs_are_optimal_and_the_prices_prove_it(kind: str, shape: tuple[int, int]) -> None:
    cost = MATRICES[kind](np.random.default_rng(1), *shape)
    if kind == "forbidden":
        np.fill_diagonal(cost, 1.0)  # some matching is allowed
    columns, prices = match_dense(cost.copy(), widest=np.inf)
    rows = np.arange(len(cost))
    paid = cost[rows, columns]
    assert len(np.unique(columns)) == len(cost)
    assert paid.sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), abs=1e-9)
    assert np.all(paid + prices[columns] <= (cost + prices).min(1) + 1e-9)  # no row prefers another column
    assert prices.min() >= 0 and np.all(np.delete(prices, columns) == 0)


def test_chains_of_bids_end_where_costs_are_equal() -> None:
    """More rows want one of two columns than a chain of bids may have links."""
    cost = np.ones((2 * BIDS * TIED_BIDS, 2 * BIDS * TIED_BIDS))
    cost[:, :2] = 0.0
    columns, prices = match_dense(cost, widest=np.inf)
    assert sorted(columns) == list(range(len(cost)))
    assert prices[:2] == pytest.approx([1.0, 1.0])


def test_least_prices_are_no_larger_than_needed() -> None:
    """Two rows share two columns, whose prices a bid of the other row's raises by 1e12 together."""
    cost = np.full((4, 4), 1e12)
    cost[:2, :2] = cost[2, 2] = cost[3, 3] = 0.0
    columns, prices = match_dense(cost, widest=np.inf)
    assert sorted(columns[:2]) == [0, 1] and columns[2:].tolist() == [2, 3]
    high = prices + np.array([1e12, 1e12, 0.0, 0.0])
    assert least_prices(cost, columns, high).tolist() == [0.0] * 4


def test_a_row_without_a_place_is_an_error() -> None:
    cost = np.full((3, 3), np.inf)
    cost[:, 0] = 0.0
    with pytest.raises(ValueError, match="every permutation of cost uses a pair at inf"):
        match_dense(cost, widest=np.inf)


@pytest.mark.parametrize(
    ("cost", "method", "reason"),
    [
        (np.random.default_rng(0).random((1000, 1000)), "column_generation", "at least 1000 rows and columns"),
        (np.random.default_rng(0).integers(0, 9, (1000, 1000)), "dense", "many equal costs"),
        (np.random.default_rng(0).random((1000, 1200)), "dense", "of one side 1.2 times as many"),
        (np.random.default_rng(0).random((999, 999)), "dense", "fewer than 1000 rows or columns"),
    ],
)
def test_auto_takes_the_solver_that_is_faster(cost: Matrix, method: str, reason: str) -> None:
    found = solve(cost)
    assert found.certified and found.method == method and reason in found.reason


def test_costs_with_long_lists_go_to_the_dense_solver() -> None:
    """Squared distances on a line: many columns are almost as good as the best."""
    rng = np.random.default_rng(0)
    cost = np.subtract.outer(rng.normal(size=1000), rng.normal(size=1000)) ** 2
    found = solve(cost)
    assert found.certified and found.method == "dense" and "long lists" in found.reason
    assert found.objective == pytest.approx(cost[linear_sum_assignment(cost)].sum(), rel=1e-12)


@pytest.mark.parametrize("attractive", [1, 2, 50])
def test_columns_that_every_row_wants(attractive: int) -> None:
    cost = np.random.default_rng(0).random((200, 200))
    cost[:, :attractive] -= 1e3
    found = solve(cost)
    assert found.certified
    assert found.objective == pytest.approx(cost[linear_sum_assignment(cost)].sum(), abs=1e-7)


def test_prices_of_all_scales_do_not_overflow() -> None:
    rng = np.random.default_rng(3752)
    shape = rng.integers(1, 7, 2)
    cost = rng.integers(-2, 3, shape) * 10.0 ** rng.integers(-200, 200, shape)
    assert solve(cost, method="dense").objective == cost[linear_sum_assignment(cost)].sum()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(8, 8), (5, 1), (3, 7)])
def test_huge_prices_of_a_previous_result_are_no_warning(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    first = solve(rng.random(shape))
    huge = replace(first, prices=torch.full_like(first.prices, 1.7e308))
    cost = rng.random(shape)
    assert solve(cost, previous=huge).objective == pytest.approx(cost[linear_sum_assignment(cost)].sum())


def test_with_a_time_limit_auto_takes_what_can_be_stopped() -> None:
    found = solve(np.random.default_rng(0).integers(0, 9, (1000, 1000)), time_limit=100.0)
    assert "many equal costs" not in found.reason
