"""Matches the rows and columns of a cost matrix: one method after the other until a certificate agrees."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastproto.assignment.certificate import Certificate
from fastproto.assignment.column_generation import STILL_OPTIMAL, Search
from fastproto.assignment.dense import improve_prices, match_dense, match_scipy
from fastproto.assignment.reduced_costs import NO_PLACE, Reduced, reduce
from fastproto.assignment.scores_cpu import MatrixScores

Array = np.ndarray[Any, Any]
TIE = 2e-10  # in units of the scale: how much better a previous column is than its equal


@dataclass(frozen=True)
class Old:
    """A previous result: rows to columns [n], -1 where a row is left out, and prices [m]."""

    permutation: Array
    prices: Array


@dataclass(frozen=True)
class Match:
    """The same, with its proof."""

    permutation: Array
    prices: Array
    known: Certificate
    method: str
    reason: str
    passes: float
    stopped: bool = False  # by the deadline or Ctrl-C
    interrupted: bool = False


Prove = Callable[[Array, Array, float], Certificate]  # (permutation, prices, scale)


@dataclass(frozen=True)
class Problem:
    """``cost`` [n, m] float64, n and m >= 1; inf forbids a pair. ``prove`` judges what is found for it."""

    cost: Array
    prove: Prove
    method: str  # "dense" or "column_generation"
    why: str
    old: Old | None = None
    recheck: bool = True  # whether ``old`` may still be optimal
    deadline: float | None = None
    progress: bool = False

    def late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline


@dataclass(frozen=True)
class _Try:
    """Of a matrix with no more rows than columns: the column of each row, and prices for its reduced costs."""

    columns: Array
    prices: Array
    method: str
    reason: str
    passes: float
    stopped: bool = False
    interrupted: bool = False


def match(problem: Problem) -> Match:
    """By the method asked for, then by SciPy on the whole matrix where that is not proved optimal.

    Raises:
        ValueError: no permutation avoids the forbidden pairs.
    """
    flipped = problem.cost.shape[0] > problem.cost.shape[1]
    cost = np.ascontiguousarray(problem.cost.T) if flipped else problem.cost
    kept = _still_optimal(problem, 0.0)  # as far as rounding can tell: most unchanged results need no scale
    if kept is not None:
        return kept
    reduced = reduce(cost)
    kept = _still_optimal(problem, reduced.scale)
    if kept is not None:
        return kept
    old = None if problem.old is None else _flip_old(problem.old, cost) if flipped else problem.old

    def proved(found: _Try) -> Match:
        prices = reduced.prices_given(found.prices)
        if len(cost) < cost.shape[1]:
            prices -= prices.min()
        permutation = found.columns
        if flipped:
            permutation, prices = _flip_back(permutation, prices, cost)
        known = problem.prove(permutation, prices, reduced.scale)
        stopped = found.stopped or problem.late()
        return Match(
            permutation, prices, known, found.method, found.reason, found.passes + 1, stopped, found.interrupted
        )

    first = proved(_first(problem, reduced, old))
    forbidden = not np.isfinite(first.known.objective)
    if first.known.certified or (first.stopped and not forbidden):
        return first
    exact = _exactly(reduced, cost, problem.deadline)
    second = proved(exact)
    if not forbidden and not second.known.certified and first.known.gap < second.known.gap:
        return first
    why = f"{first.reason}; {first.method} did not prove its result optimal"
    return replace(second, reason=why, passes=first.passes + second.passes)


def _still_optimal(problem: Problem, scale: float) -> Match | None:
    old = problem.old
    if old is None or not problem.recheck:
        return None
    few = problem.cost.shape[0] < problem.cost.shape[1]
    prices = old.prices - old.prices.min() if few else old.prices
    known = problem.prove(old.permutation, prices, scale)
    return Match(old.permutation, prices, known, "previous", STILL_OPTIMAL, 1) if known.certified else None


def _first(problem: Problem, reduced: Reduced, old: Old | None) -> _Try:
    if reduced.scale == 0 and not reduced.cost.any():
        columns = np.arange(len(reduced.cost)) if old is None else old.permutation
        reason = f"{problem.why}; all permutations are equally good"
        return _Try(columns, np.zeros(reduced.cost.shape[1]), problem.method, reason, 0)
    if problem.method == "dense":
        return _densely(problem, reduced, old)
    return _by_columns(problem, reduced, old)


def _densely(problem: Problem, reduced: Reduced, old: Old | None) -> _Try:
    cost = reduced.cost
    if old is None:
        columns, solver, reason = match_dense(cost)
        prices, sweeps = improve_prices(cost, columns, reduced.spread, problem.deadline)
    else:  # of equals the previous one is taken
        at = np.arange(len(cost)), old.permutation
        before = cost[at]
        cost[at] = before - TIE * reduced.spread
        columns, solver, reason = match_dense(cost)
        prices, sweeps = improve_prices(cost, columns, reduced.spread, problem.deadline)
        cost[at] = before
    return _Try(columns, prices, solver, f"{problem.why}; {reason}", sweeps)


def _by_columns(problem: Problem, reduced: Reduced, old: Old | None) -> _Try:
    scores = MatrixScores(reduced.cost, reduced.spread, reduced.span)
    rows, columns = scores.shape
    begin = None if old is None else np.concatenate((old.permutation, _others(old.permutation, columns)))
    prices = None if old is None else reduced.prices_here(old.prices)
    found = Search(scores, begin, prices, deadline=problem.deadline, progress=problem.progress).run()
    return _Try(
        found.columns[:rows],
        found.prices,
        "column_generation",
        f"{problem.why}; {found.reason}",
        found.passes,
        found.stopped,
        found.interrupted,
    )


def _exactly(reduced: Reduced, given: Array, deadline: float | None) -> _Try:
    """On costs that are not cut."""
    cost = reduced.whole(given)
    try:
        columns = match_scipy(cost)
    except ValueError:
        raise ValueError(NO_PLACE) from None
    prices, sweeps = improve_prices(cost, columns, reduced.scale, deadline)
    return _Try(columns, np.ldexp(prices, reduced.exponent), "scipy", "", sweeps)


def _others(columns: Array, size: int) -> Array:
    free = np.ones(size, dtype=bool)
    free[columns] = False
    return np.flatnonzero(free)


def _flip_old(old: Old, cost: Array) -> Old:
    """Of the transposed matrix ``cost`` [m, n]: what a row was worth is its price there."""
    rows = np.flatnonzero(old.permutation >= 0)
    columns = np.empty(len(cost), dtype=np.int64)
    columns[old.permutation[rows]] = rows
    with np.errstate(over="ignore"):
        return Old(columns, np.maximum(-(cost + old.prices[:, None]).min(0), 0.0))


def _flip_back(columns: Array, prices: Array, cost: Array) -> tuple[Array, Array]:
    permutation = np.full(cost.shape[1], -1, dtype=np.int64)
    permutation[columns] = np.arange(len(columns))
    return permutation, -(cost + prices).min(1)
