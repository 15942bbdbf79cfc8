"""Matches class means with prototypes: through the matrix of scores, or by column generation without it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fastproto.assignment.array_types import Floats, Ints
from fastproto.assignment.certificate import Certificate, certify, directions, score_spread
from fastproto.assignment.column_generation import cold_prices, search
from fastproto.assignment.inputs import Solver, check_memory, fits
from fastproto.assignment.match_matrix import MatrixProblem, match_matrix
from fastproto.assignment.matching import STILL_OPTIMAL, Matching, Previous
from fastproto.assignment.means_problem import OUTLIER, MeansProblem
from fastproto.assignment.pricing import prove
from fastproto.assignment.scores import FactorScores, Scores
from fastproto.assignment.scores_cpu import CpuFactorScores
from fastproto.assignment.scores_gpu import GpuFactorScores
from fastproto.assignment.search_state import ScoreReader
from fastproto.backend import resolve
from fastproto.support.checks import check_permutation

USABLE = 64  # times the largest score: previous prices beyond it belong to other scores
DENSE_MOST = 1 << 14  # classes: up to here a matrix is formed where column generation does not lead to a proof


def match_means(problem: MeansProblem, method: Solver, why: str) -> Matching:
    """By the method asked for, then by a dense solver where that is not proved optimal and a matrix can be formed."""
    possible = problem.size <= DENSE_MOST and fits(problem.size, problem.size)
    if method == "dense" or (possible and problem.lengths.outliers):
        return match_by_matrix(problem, method, why)
    found = match_by_columns(problem, why)
    if found.known.certified or found.ending != "converged" or problem.late() or not possible:
        return found
    why = f"{found.reason}; column generation did not prove its result optimal"
    again = match_by_matrix(problem, "dense", why)
    return again if again.known.certified or again.known.gap <= found.known.gap else found


def match_by_matrix(problem: MeansProblem, method: Solver, why: str) -> Matching:
    """With all scores in float64, centred: the optimum is the same, and collapsed means keep their digits."""
    q, w = directions(problem.class_means), problem.prototypes.detach().double()
    sizes, yardstick = problem.lengths.each.to(problem.device), problem.yardstick(score_spread(q, w))
    previous = problem.previous

    def proved(permutation: Ints, prices: Floats) -> Certificate:
        a, p = (torch.from_numpy(x).to(problem.device) for x in (permutation, prices))
        return certify(lambda start, stop: q[start:stop] @ w.T, a, p, yardstick, sizes)

    if previous is not None:
        prices = problem.final_prices(previous.prices)
        known = proved(previous.permutation, prices)
        if known.certified:
            return Matching(previous.permutation, prices, known, "previous", STILL_OPTIMAL, 1)
    check_memory(problem.size, problem.size, "method='column_generation', which never forms it")
    seen = np.flatnonzero(~problem.unseen)
    if not len(seen):
        order = np.arange(problem.size) if previous is None else previous.permutation
        prices = np.zeros(problem.size)
        return Matching(order, prices, proved(order, prices), "dense", f"{why}; no class was seen", 1)
    middle = q.mean(0) if problem.complete else torch.zeros_like(q[0])  # unseen rows take a column as it is
    offset = (w @ middle).cpu().numpy()
    rows = q[torch.from_numpy(seen).to(problem.device)] - middle
    others = w[sizes <= OUTLIER * problem.lengths.typical] if problem.lengths.outliers else w
    found = match_matrix(
        MatrixProblem(
            cost=-(rows @ (w - others.mean(0)).T).cpu().numpy(),
            prove=lambda permutation, prices, _: proved(problem.with_unseen(permutation), prices + offset),
            method=method,
            why=why,
            previous=None if previous is None else Previous(previous.permutation[seen], previous.prices - offset),
            recheck=False,
            deadline=problem.deadline,
            progress=problem.progress,
        )
    )
    return Matching(
        permutation=_checked(problem.with_unseen(found.permutation), found.method),
        prices=found.prices + offset,
        known=found.known,
        method=found.method,
        reason=found.reason,
        passes=found.passes + (previous is not None),
        ending=found.ending,
    )


def match_by_columns(problem: MeansProblem, why: str) -> Matching:
    """By column generation, without a matrix."""
    seen = slice(None) if problem.complete else torch.from_numpy(~problem.unseen).to(problem.device)
    scores, where = factor_scores(problem.class_means[seen], problem.norms[seen], problem.prototypes)
    why = f"{why}; {where}"
    search_spread, spread = scores.spread, _spread_of_all(scores, problem.size)
    if search_spread == 0:  # as far as the moments tell: a pass over all scores says whether they differ
        equal, gap = _all_equal(problem, scores, why)
        if equal is not None:
            return equal
        search_spread = spread = max(spread, gap / problem.size)
    begin = prices = None
    if problem.previous is not None:
        old = problem.previous.permutation
        begin = np.concatenate((old[~problem.unseen], old[problem.unseen]))
        prices = _usable(problem.previous.prices, scores.magnitude)

    accepted: Certificate | None = None  # of the previous result

    def accept(objective: float, gap: float, prices: Floats) -> bool:
        nonlocal accepted
        accepted = problem.certificate(spread, objective, gap, old, problem.final_prices(prices))
        return accepted.certified

    found = search(
        scores,
        begin,
        prices,
        spread=search_spread,
        accept=accept,
        deadline=problem.deadline,
        progress=problem.progress,
    )
    permutation = problem.with_unseen(found.columns[: scores.shape[0]])
    prices = problem.final_prices(found.prices)
    known = accepted if found.unchanged else None
    return Matching(
        permutation=_checked(permutation, "column generation"),
        prices=prices,
        known=known or problem.certificate(spread, found.objective, found.gap, permutation, prices),
        method="previous" if found.unchanged else "column_generation",
        reason=found.reason if found.unchanged else f"{why}; {found.reason}",
        passes=found.passes,
        ending=found.ending,
    )


def factor_scores(class_means: Tensor, norms: Tensor, prototypes: Tensor) -> tuple[FactorScores, str]:
    """The scores of rows that are not zero [m, D], of lengths [m] float64, and prototypes [C, D]; and the backend.

    Raises:
        ValueError, ImportError: as :func:`fastproto.backend.resolve`.
    """
    dtype = torch.float64 if torch.float64 in (class_means.dtype, prototypes.dtype) else torch.float32
    q, w = (x.detach().to(dtype) for x in (class_means, prototypes))
    # the kernels see centred float32 rows, whatever the dtype is here
    choice = resolve("assign", *(x.new_empty(0, dtype=torch.float32) for x in (q, w)))
    if choice.backend == "triton":
        return GpuFactorScores(q, norms, w), f"sweeps on {choice}"
    q, w = (x.cpu().contiguous() for x in (q, w))
    return CpuFactorScores(q, norms.cpu().numpy(), w), f"sweeps on {choice}"


def _spread_of_all(scores: FactorScores, size: int) -> float:
    """The standard deviation with the scores of unseen classes, which are 0."""
    share = scores.shape[0] / size
    square = share * (scores.spread**2 + scores.mean**2)
    return float(max(square - (share * scores.mean) ** 2, 0.0) ** 0.5)


def _usable(prices: Floats, largest: float) -> Floats | None:
    """Previous prices, less what they have in common where they are large, or None if they belong to other scores."""
    most = USABLE * largest
    if float(np.abs(prices).max()) <= most:
        return prices
    with np.errstate(over="ignore"):
        prices = prices - np.median(prices)
    return prices if float(np.abs(prices).max()) <= most else None


def _all_equal(problem: MeansProblem, scores: Scores, why: str) -> tuple[Matching | None, float]:
    """The previous or the first permutation if scores differ by constants of rows and columns only; and its gap."""
    permutation = np.arange(problem.size) if problem.previous is None else problem.previous.permutation
    columns = np.concatenate((permutation[~problem.unseen], permutation[problem.unseen]))
    reader, prices = ScoreReader(scores, spread=0.0), cold_prices(scores)
    gap = prove(reader, columns, prices).gap if reader.rows else 0.0
    prices = problem.final_prices(prices)
    known = problem.certificate(0.0, float(reader.matched(columns).sum()), gap, permutation, prices)
    if not known.certified:
        return None, gap
    reason = f"{why}; all permutations are equally good"
    return Matching(permutation, prices, known, "column_generation", reason, reader.passes), gap


def _checked(permutation: Ints, method: str) -> Ints:
    check_permutation(f"the result of {method}", torch.from_numpy(permutation), len(permutation))
    return permutation
