"""Matches the rows and columns of a cost matrix: one method after the other, until a result is certified."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import Certificate, Ending
from fastproto.assignment.column_generation import search
from fastproto.assignment.cost_certificate import FEW_PAIRS, least_of_rows
from fastproto.assignment.inputs import Solver
from fastproto.assignment.lapjv import FINER, REFINEMENTS, match_on_grid
from fastproto.assignment.matching import STILL_OPTIMAL, Matching, Previous
from fastproto.assignment.reduced_costs import Reduced, reduce
from fastproto.assignment.scores_cpu import MatrixScores
from fastproto.assignment.small import match_small

MANY_TIES = 4.0  # equally good entries per row from which lists of candidates are too short, and dense paths are short
MANY_COLUMNS = 1.1  # per row from which dense paths are short
MOST_LISTED = 0.1  # of all pairs: with more on the lists, paths on them are long, and the dense solver is faster
APART = 4.0  # in units of the scale: column minima that differ by less are a good start
FAR_APART = 1e7  # prices that differ by more cancel too many digits of the costs
TIE_BONUS = 2e-10  # in units of the scale: the bonus of a previous column, which breaks ties in its favour


Prove: TypeAlias = Callable[[Ints, Floats, float], Certificate]  # (permutation, prices, scale)


@dataclass(frozen=True)
class MatrixProblem:
    """``cost`` [n, m] float64, n and m >= 1; inf forbids a pair. ``prove`` certifies a result."""

    cost: Floats
    prove: Prove
    method: Solver
    why: str
    free: bool = False  # whether the dense solver may take the place of column generation
    previous: Previous | None = None
    recheck: bool = True  # whether to test first if ``previous`` is still optimal
    deadline: float | None = None
    progress: bool = False

    def late(self) -> bool:
        return self.deadline is not None and time.perf_counter() > self.deadline


@dataclass(frozen=True)
class _Attempt:
    """A result for n <= m: the column of each row, and prices for the reduced costs."""

    columns: Ints
    prices: Floats
    method: str
    reason: str
    passes: float
    ending: Ending = "converged"


def match_matrix(problem: MatrixProblem) -> Matching:
    """Solves by ``problem.method``, then on the matrix without clipping if that result is not certified.

    Raises:
        ValueError: no permutation avoids the forbidden pairs.
    """
    transposed = problem.cost.shape[0] > problem.cost.shape[1]
    cost = np.ascontiguousarray(problem.cost.T) if transposed else problem.cost
    kept = _still_optimal(problem, 0.0)  # with scale 0 only the rounding floor counts, which suffices for most
    if kept is not None:
        return kept
    reduced = reduce(cost)
    kept = _still_optimal(problem, reduced.scale)
    if kept is not None:
        return kept
    previous = problem.previous
    if previous is not None and transposed:
        previous = _transpose_previous(previous, cost)
    first = _first_matching(problem, reduced, previous, cost)
    forbidden = not np.isfinite(first.known.objective)
    if first.known.certified or (first.ending != "converged" and not forbidden):
        return first
    second = _solve_whole(problem, reduced, cost)
    if not forbidden and not second.known.certified and first.known.gap < second.known.gap:
        return first
    why = f"{first.reason}; the result of {first.method} was not certified"
    return replace(second, reason=why, passes=first.passes + second.passes)


def _first_matching(problem: MatrixProblem, reduced: Reduced, previous: Previous | None, cost: Floats) -> Matching:
    """The result of ``problem.method``, certified or not; lapjv refines its own until it is."""
    found = _first_attempt(problem, reduced, previous)
    first = _proved(problem, found, reduced, cost)
    width = _width(reduced)
    if problem.method != "lapjv" or width == 0:  # 0: all reduced costs are equal, and there was no grid
        return first
    for _ in range(REFINEMENTS):
        if first.known.certified or problem.late():
            break
        width /= FINER
        columns, prices = match_on_grid(reduced.cost, found.prices, width, None)
        reason = f"{problem.why}; on a grid of whole numbers, refined"
        found = _Attempt(columns, prices, "lapjv", reason, first.passes)
        first = _proved(problem, found, reduced, cost)
    return first


def _width(reduced: Reduced) -> float:
    """What the first grid spans: four times what a good permutation may use, so that it avoids forbidden pairs."""
    return min(4 * reduced.span, float(reduced.cost.max()))


def _proved(problem: MatrixProblem, found: _Attempt, reduced: Reduced, cost: Floats) -> Matching:
    """``found`` in terms of the given matrix, with its certificate; ``cost`` is that matrix, transposed if n > m."""
    return _proved_given(problem, replace(found, prices=reduced.prices_given(found.prices)), reduced.scale, cost)


def _proved_given(problem: MatrixProblem, found: _Attempt, scale: float, cost: Floats) -> Matching:
    """As ``_proved``, for prices of the given matrix."""
    permutation, prices = found.columns, found.prices
    if len(cost) < cost.shape[1]:
        prices = prices - prices.min()
    if cost.shape != problem.cost.shape:
        permutation, prices = _transpose_back(permutation, prices, cost)
    known = problem.prove(permutation, prices, scale)
    ending: Ending = "time limit" if found.ending == "converged" and problem.late() else found.ending
    return Matching(permutation, prices, known, found.method, found.reason, found.passes + 1, ending)


def _still_optimal(problem: MatrixProblem, scale: float) -> Matching | None:
    previous = problem.previous
    if previous is None or not problem.recheck:
        return None
    few = problem.cost.shape[0] < problem.cost.shape[1]
    with np.errstate(over="ignore"):
        prices = previous.prices - previous.prices.min() if few else previous.prices
    known = problem.prove(previous.permutation, prices, scale)
    if not known.certified:
        return None
    return Matching(previous.permutation, prices, known, "previous", STILL_OPTIMAL, 1)


def _first_attempt(problem: MatrixProblem, reduced: Reduced, previous: Previous | None) -> _Attempt:
    if reduced.scale == 0 and not reduced.cost.any():
        columns = np.arange(len(reduced.cost)) if previous is None else previous.permutation
        reason = f"{problem.why}; all permutations are equally good"
        return _Attempt(columns, np.zeros(reduced.cost.shape[1]), problem.method, reason, 0)
    why = problem.why if problem.method == "dense" else _why_dense(problem, reduced)
    if why is not None:
        return _solve_dense(why, reduced, previous)
    if problem.method == "lapjv":
        keep = None if previous is None else previous.permutation
        columns, prices = match_on_grid(reduced.cost, np.zeros(reduced.cost.shape[1]), _width(reduced), keep)
        return _Attempt(columns, prices, "lapjv", f"{problem.why}; on a grid of whole numbers", 0)
    return _solve_by_column_generation(problem, reduced, previous)


def _why_dense(problem: MatrixProblem, reduced: Reduced) -> str | None:
    """Why the dense solver is faster than column generation, if it is."""
    if problem.method != "column_generation" or not problem.free:
        return None
    rows, columns = reduced.cost.shape
    if columns > MANY_COLUMNS * rows:
        return f"{problem.why}, but of one side {columns / rows:.3g} times as many"
    return f"{problem.why}, but many equal costs" if reduced.tied > MANY_TIES else None


def _solve_dense(why: str, reduced: Reduced, previous: Previous | None) -> _Attempt:
    cost = reduced.cost
    if previous is not None:  # ties go to the previous pairs; costs change in place, since a copy may be large
        pairs = np.arange(len(cost)), previous.permutation
        before = cost[pairs]
        cost[pairs] = before - TIE_BONUS * reduced.spread
    if cost.size < FEW_PAIRS:
        columns, prices = match_small(cost)
    else:
        from fastproto.assignment.dense import match_dense

        columns, prices = match_dense(cost, reduced.span, _prices_of_minima(reduced))
    if previous is not None:
        cost[pairs] = before
    return _Attempt(columns, prices, "dense", why, 0)


def _prices_of_minima(reduced: Reduced) -> Floats | None:
    """Prices that undo the reduction of the columns, where a few columns have the minima of most rows.

    The minima of the other columns may then be in the few rows that miss those columns least: a bad start, with long
    paths.
    """
    above = reduced.columns - reduced.columns.min()
    if len(reduced.cost) < len(above) or not APART * reduced.scale < above.max() <= FAR_APART * reduced.scale:
        return None
    begin: Floats = np.ldexp(above, reduced.exponent)
    return begin


def _solve_by_column_generation(problem: MatrixProblem, reduced: Reduced, previous: Previous | None) -> _Attempt:
    scores = MatrixScores(reduced.cost, reduced.spread, reduced.span)
    rows, columns = scores.shape
    begin = prices = None
    if previous is not None:
        begin = np.concatenate((previous.permutation, _left_over(previous.permutation, columns)))
        prices = reduced.prices_here(previous.prices)
    most = MOST_LISTED * reduced.cost.size if problem.free else math.inf
    found = search(scores, begin, prices, deadline=problem.deadline, progress=problem.progress, most_listed=most)
    reason = f"{problem.why}; {found.reason}"
    return _Attempt(found.columns[:rows], found.prices, "column_generation", reason, found.passes, found.ending)


def _solve_whole(problem: MatrixProblem, reduced: Reduced, given: Floats) -> Matching:
    """Solves on the reduced costs without the clipping, with the prices found or else with the least prices."""
    from fastproto.assignment.dense import least_prices, match_dense

    cost = reduced.whole(given)
    columns, prices = match_dense(cost, float(np.ldexp(reduced.span, -reduced.exponent)))

    def proved(prices: Floats) -> Matching:
        attempt = _Attempt(columns, prices - reduced.columns, "dense", "", 0)
        return _proved_given(problem, attempt, reduced.scale, given)

    found = proved(prices)
    return found if found.known.certified else proved(least_prices(cost, columns, prices))


def _left_over(columns: Ints, size: int) -> Ints:
    free = np.ones(size, dtype=bool)
    free[columns] = False
    return np.flatnonzero(free)


def _transpose_previous(previous: Previous, cost: Floats) -> Previous:
    """The previous result for the transposed matrix ``cost``: the profits of its rows become prices."""
    rows = np.flatnonzero(previous.permutation >= 0)
    columns = np.empty(len(cost), dtype=np.int64)
    columns[previous.permutation[rows]] = rows
    with np.errstate(over="ignore"):
        return Previous(columns, np.maximum(-(cost + previous.prices[:, None]).min(0), 0.0))


def _transpose_back(columns: Ints, prices: Floats, cost: Floats) -> tuple[Ints, Floats]:
    """The result for the given matrix, the transpose of ``cost``."""
    permutation = np.full(cost.shape[1], -1, dtype=np.int64)
    permutation[columns] = np.arange(len(columns))
    return permutation, -least_of_rows(cost, prices)
